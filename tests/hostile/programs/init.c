// Attacks on the guest, PID 1: it runs beside the program as the same user.
#include "hostile.h"
#include <linux/kcmp.h>
#include <sched.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/uio.h>

CASE(kill_init, "sends PID 1 every signal", "contained", "without its guest a slot is lost") {
    for (int s = 1; s < 65; s++) kill(1, s);
    usleep(50000);
    if (kill(1, 0) && errno == ESRCH) breach("PID 1 is gone");
}

CASE(stop_init, "stops PID 1", "contained", "a stopped guest would never report") {
    kill(1, SIGSTOP);
    kill(1, SIGTSTP);
    usleep(20000);
}

CASE(trace_init, "traces PID 1", "contained", "a tracer owns its tracee") {
    if (!ptrace(PTRACE_ATTACH, 1, 0, 0)) breach("attached");
    if (!ptrace(PTRACE_SEIZE, 1, 0, 0)) breach("seized");
}

CASE(trace_own_children, "traces its own child", "any", "tracing stops processes in ways that confuse clean-up") {
    pid_t pid = lingering_child();
    if (!ptrace(PTRACE_ATTACH, pid, 0, 0)) breach("ptrace is allowed");
}

CASE(read_init_memory, "reads PID 1's memory", "contained", "it holds the slot's token and the executor's messages") {
    static char buffer[4096];
    struct iovec mine = {buffer, sizeof buffer}, theirs = {(void *)0x400000, sizeof buffer};
    if (open("/proc/1/mem", O_RDONLY) >= 0) breach("/proc/1/mem opened");
    if (process_vm_readv(1, &mine, 1, &theirs, 1, 0) > 0) breach("process_vm_readv");
    if (process_vm_writev(1, &mine, 1, &theirs, 1, 0) > 0) breach("process_vm_writev");
}

static void must_not_read(const char *path) {
    char buffer[4096];
    int fd = open(path, O_RDONLY);
    if (fd < 0) return;
    ssize_t n = read(fd, buffer, sizeof buffer);
    close(fd);
    if (n > 0) breach("%s can be read: %zd bytes", path, n);
}

CASE(read_init_environment, "reads PID 1's environment", "contained", "the slot's token was in it") { must_not_read("/proc/1/environ"); }

CASE(read_init_layout, "reads PID 1's maps, stack and auxv", "contained", "addresses make an exploit of any other bug") {
    must_not_read("/proc/1/maps");
    must_not_read("/proc/1/smaps");
    must_not_read("/proc/1/stack");
    must_not_read("/proc/1/auxv");
    must_not_read("/proc/1/syscall");
}

CASE(open_init_descriptors, "opens PID 1's descriptors", "contained", "one of them is the executor's connection") {
    char path[64], target[256];
    // Their numbers are no secret, and root sees them; what they are must be.
    for (int fd = 0; fd < 64; fd++) {
        snprintf(path, sizeof path, "/proc/1/fd/%d", fd);
        if (open(path, O_RDWR) >= 0 || open(path, O_RDONLY) >= 0) breach("%s opened", path);
        if (readlink(path, target, sizeof target) > 0) breach("%s can be read", path);
    }
}

CASE(take_init_descriptors, "takes PID 1's descriptors by pidfd_getfd", "contained", "the same by a newer door") {
    int pidfd = (int)syscall(SYS_pidfd_open, 1, 0);
    for (int fd = 0; fd < 64 && pidfd >= 0; fd++)
        if (syscall(438 /* pidfd_getfd */, pidfd, fd, 0) >= 0) breach("descriptor %d of PID 1", fd);
}

CASE(limit_init, "changes PID 1's limits", "contained", "a guest without descriptors or CPU time is dead") {
    struct rlimit none = {0, 0};
    if (!prlimit(1, RLIMIT_NOFILE, &none, NULL)) breach("PID 1 may open no file");
    if (!prlimit(1, RLIMIT_CPU, &none, NULL)) breach("PID 1 gets no CPU time");
}

CASE(offer_init_to_the_oom_killer, "raises PID 1's oom_score_adj and takes all memory", "any",
     "root may raise it: then the slot dies with the task, and only this account's slot") {
    int fd = open("/proc/1/oom_score_adj", O_WRONLY);
    if (fd >= 0 && write(fd, "1000", 4) != 4) fd = -1;
    for (int i = 0; i < 4096; i++) {
        char *p = malloc(1 << 20);
        if (p) memset(p, 1, 1 << 20);
    }
}

CASE(slow_init_down, "pins and re-nices PID 1", "any", "the bill of a slow guest is somebody's") {
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(0, &one);
    sched_setaffinity(1, sizeof one, &one);
    setpriority(PRIO_PROCESS, 1, 19);
}

CASE(compare_with_init, "compares kernel objects with PID 1's (kcmp)", "contained", "an oracle for pointers") {
    if (syscall(SYS_kcmp, getpid(), 1, KCMP_FILES, 0, 0) >= 0) breach("kcmp");
}

CASE(join_init_namespaces, "joins PID 1's namespaces", "contained", "setns is the way out of a container") {
    const char *names[] = {"mnt", "pid", "net", "ipc", "uts", "user", "cgroup"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[64];
        snprintf(path, sizeof path, "/proc/1/ns/%s", names[i]);
        int fd = open(path, O_RDONLY);
        if (fd >= 0 && !syscall(SYS_setns, fd, 0)) breach("setns %s", names[i]);
    }
}

CASE(walk_through_init_root, "walks through /proc/1/root and /proc/1/cwd", "contained", "the same file system, by another door") {
    if (open("/proc/1/root/etc", O_RDONLY) >= 0) breach("/proc/1/root");
    if (open("/proc/1/cwd/.", O_RDONLY) >= 0) breach("/proc/1/cwd");
}

CASE(overwrite_guest, "changes the guest's own binary", "contained", "the next slot would run it as PID 1") {
    if (can_write("/gc/guest")) breach("/gc/guest can be written");
    if (!chmod("/gc/guest", 0777)) breach("chmod");
    if (!unlink("/gc/guest")) breach("unlink");
    if (!rename("/gc/guest", "/gc/old")) breach("rename");
    if (can_write("/proc/1/exe")) breach("/proc/1/exe can be written");
}

CASE(signal_init_by_pipe, "asks for SIGIO to PID 1 on its own pipes", "contained", "the kernel would signal on its behalf") {
    for (int fd = 0; fd < 3; fd++) {
        fcntl(fd, F_SETOWN, 1);
        fcntl(fd, F_SETSIG, SIGKILL);
        fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_ASYNC);
    }
    if (write(1, "\n", 1) != 1) broken("write");
    usleep(20000);
}
