// Calls that have no place in an algorithm, and where kernels were broken before.
#include "hostile.h"
#include <linux/futex.h>
#include <sched.h>
#include <sys/personality.h>
#include <sys/reboot.h>
#include <sys/time.h>
#include <time.h>

#define REFUSED(what, call)                        \
    do {                                           \
        errno = 0;                                 \
        if ((call) >= 0) breach("%s", what);       \
    } while (0)

static unsigned char zeros[4096];

CASE(io_uring, "sets up io_uring", "contained", "it went around seccomp, and was the kernel's weakest spot for years") {
    REFUSED("io_uring_setup", syscall(425, 8, zeros));
}

CASE(bpf, "loads a BPF program", "contained", "the verifier has been fooled often") { REFUSED("bpf", syscall(SYS_bpf, 5, zeros, 128)); }

CASE(userfaultfd, "handles its own page faults", "contained", "it makes every race in the kernel winnable") {
    REFUSED("userfaultfd", syscall(SYS_userfaultfd, 0));
    REFUSED("userfaultfd", syscall(SYS_userfaultfd, 1));
}

CASE(perf_events, "opens performance events", "contained", "side channels, and a long list of faults") {
    REFUSED("perf_event_open", syscall(SYS_perf_event_open, zeros, 0, -1, -1, 0));
}

CASE(keyrings, "puts a key into a keyring", "contained", "keyrings are not of the container: the next task would find it") {
    REFUSED("add_key", syscall(SYS_add_key, "user", "hostile", "secret", 6, -3));
    REFUSED("add_key", syscall(SYS_add_key, "user", "hostile", "secret", 6, -4));
    REFUSED("keyctl", syscall(SYS_keyctl, 0, -3, 1));
    REFUSED("request_key", syscall(SYS_request_key, "user", "hostile", NULL, -3));
}

CASE(user_namespace, "makes a user namespace, where it is root", "contained", "it opens most of the kernel to everybody") {
    int kinds[] = {CLONE_NEWUSER, CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWNET, CLONE_NEWIPC, CLONE_NEWUTS, CLONE_NEWCGROUP};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        if (!unshare(kinds[i])) breach("unshare %x", (unsigned)kinds[i]);
        long pid = syscall(SYS_clone, kinds[i] | SIGCHLD, 0, 0, 0, 0);
        if (pid == 0) _exit(0);
        if (pid > 0) breach("clone %x", (unsigned)kinds[i]);
    }
}

CASE(sysv_ipc, "leaves SysV shared memory, semaphores and messages", "contained", "they outlive every process") {
    REFUSED("shmget", syscall(SYS_shmget, 4711, 4096, 01666));
    REFUSED("semget", syscall(SYS_semget, 4711, 1, 01666));
    REFUSED("msgget", syscall(SYS_msgget, 4711, 01666));
}

CASE(posix_queues, "leaves a POSIX message queue", "contained", "it outlives every process") {
    REFUSED("mq_open", syscall(SYS_mq_open, "hostile", O_CREAT | O_RDWR, 0666, NULL));
}

CASE(modules, "loads kernel modules", "contained", "a module is the kernel") {
    REFUSED("init_module", syscall(SYS_init_module, zeros, sizeof zeros, ""));
    REFUSED("finit_module", syscall(SYS_finit_module, 0, "", 0));
    REFUSED("delete_module", syscall(SYS_delete_module, "x", 0));
    REFUSED("kexec_load", syscall(SYS_kexec_load, 0, 0, NULL, 0));
}

CASE(reboot_host, "reboots, swaps, accounts, logs", "contained", "the host's own controls") {
    REFUSED("reboot", syscall(SYS_reboot, 0xfee1dead, 672274793, 0, NULL));
    REFUSED("swapon", syscall(SYS_swapon, "/tmp/x", 0));
    REFUSED("acct", syscall(SYS_acct, "/tmp/x"));
    REFUSED("syslog", syscall(SYS_syslog, 3, zeros, sizeof zeros));
    REFUSED("quotactl", syscall(SYS_quotactl, 0x800007, NULL, 0, zeros));
}

CASE(clocks, "sets the clocks", "contained", "time is the host's") {
    struct timespec then = {1000000000, 0};
    struct timeval val = {1000000000, 0};
    REFUSED("clock_settime", clock_settime(CLOCK_REALTIME, &then));
    REFUSED("settimeofday", settimeofday(&val, NULL));
    REFUSED("adjtimex", syscall(SYS_adjtimex, memset(zeros, 0xff, 208)));
}

CASE(personality_games, "switches address randomisation off", "contained", "it makes exploits of other bugs certain") {
    if (personality(0x0040000) >= 0) breach("ADDR_NO_RANDOMIZE");
    if (personality(0x0400000) >= 0) breach("READ_IMPLIES_EXEC");
}

#ifdef __x86_64__
CASE(calls_of_32_bits, "makes 32-bit and x32 system calls", "any", "a filter that looks at 64-bit numbers only is no filter") {
    long result;
    REFUSED("an x32 call", syscall(0x40000000 | 39));
    // getpid by the 32-bit table is 20; an allowed call would return our number.
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(20L) : "memory", "r8", "r9", "r10", "r11");
    if (result == getpid()) breach("int 0x80");
}
#endif

CASE(terminal_injection, "pushes characters into a terminal (TIOCSTI)", "contained", "the classic way out of a shell") {
    char c = 'x';
    REFUSED("TIOCSTI", syscall(SYS_ioctl, 0, 0x5412, &c));
    REFUSED("TIOCLINUX", syscall(SYS_ioctl, 0, 0x541c, &c));
}

CASE(other_memory, "moves pages of other processes, makes secret memory", "contained", "rarely used, rarely tested calls") {
    REFUSED("migrate_pages", syscall(SYS_migrate_pages, 1, 8, zeros, zeros));
    REFUSED("process_madvise", syscall(440, -1, zeros, 1, 4, 0));
    REFUSED("lookup_dcookie", syscall(SYS_lookup_dcookie, 0L, zeros, sizeof zeros));
    REFUSED("fanotify_init", syscall(SYS_fanotify_init, 0, 0));
}
