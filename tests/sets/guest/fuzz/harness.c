// libFuzzer's harness of the guest: its files as they are, the system calls played by kernel.h, calls.h and talk.h. Nothing is
// started, killed or removed in earnest; a filter sees to that, should it come to call what is not played.
//
//   clang -fsanitize=fuzzer,address,undefined -o guest-fuzzer harness.c       then: guest-fuzzer CORPUS
//
// With -DPLANTED, $PLANT names a bug that the model then has: accepts, block, descriptor, inherited, overflow, undefined or undressed.
// With $FUZZ_TRACE the messages of each input go to stderr.
#define _GNU_SOURCE
#include <dirent.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/magic.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sanitizer/asan_interface.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#include "kernel.h"

#include "calls.h"
#include "talk.h"

#define main guest_main
#define _exit(...) k_exit(__VA_ARGS__)
#define close(...) k_close(__VA_ARGS__)
#define connect(...) k_connect(__VA_ARGS__)
#define dup2(...) k_dup2(__VA_ARGS__)
#define dup3(...) k_dup3(__VA_ARGS__)
#define execve(...) k_execve(__VA_ARGS__)
#define fcntl(...) k_fcntl(__VA_ARGS__)
#define fork() K_FORK()
#define fstat(...) k_fstat(__VA_ARGS__)
#define fstatat(...) k_fstatat(__VA_ARGS__)
#define ioctl(...) k_ioctl(__VA_ARGS__)
#define kill(...) k_kill(__VA_ARGS__)
#define lseek(...) k_lseek(__VA_ARGS__)
#define open(...) k_openat(FIRST_FD, __VA_ARGS__)
#define openat(...) k_openat(__VA_ARGS__)
#define pipe2(...) k_pipe2(__VA_ARGS__)
#define poll(...) k_poll(__VA_ARGS__)
#define read(...) k_read(__VA_ARGS__)
#define recvmsg(...) k_recvmsg(__VA_ARGS__)
#define splice(...) k_splice(__VA_ARGS__)
#define sendmsg(...) k_sendmsg(__VA_ARGS__)
#define setrlimit(...) k_setrlimit(__VA_ARGS__)
#define setsid() ((pid_t)2)
#define setsockopt(...) ((void)(__VA_ARGS__))
#define sigprocmask(...) ((void)(__VA_ARGS__), 0)
#define socket(...) k_socket(__VA_ARGS__)
#define stat(...) k_stat_path(__VA_ARGS__)
#define syscall(number, ...) k_syscall(number, __VA_ARGS__)
#define vfork() K_VFORK()
#define wait4(...) k_wait4(__VA_ARGS__)
#define write(...) k_write(__VA_ARGS__)

#include "../../../../sets/guest/self.c"
#include "../../../../sets/guest/executor.c"
#include "../../../../sets/guest/program.c"
#include "../../../../sets/guest/netlink.c"
#include "../../../../sets/guest/filter.c"
#include "../../../../sets/guest/places.c"
#include "../../../../sets/guest/content.c"
#include "../../../../sets/guest/cleaning.c"
#define pread(...) k_pread(__VA_ARGS__)
#include "../../../../sets/guest/files.c"
#undef pread
#include "../../../../sets/guest/flow.c"
#include "../../../../sets/guest/task.c"
#include "../../../../sets/guest/guest.c"

static bool guest_waits(void) { return waiting.there; }

// Should the guest come to kill, fork or remove in earnest, the kernel ends the fuzzer instead.
static void forbid(void) {
    enum { CALLS_FORBIDDEN = 7 };
    static const unsigned calls[CALLS_FORBIDDEN] = {SYS_vfork, SYS_unlinkat, SYS_renameat2, SYS_mkdirat, SYS_fchmodat, SYS_pidfd_send_signal, SYS_reboot};
    struct sock_filter code[8 + 2 * CALLS_FORBIDDEN], *at = code;
    *at++ = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
    for (int i = 0; i < CALLS_FORBIDDEN; i++) {
        *at++ = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, calls[i], 0, 1);
        *at++ = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
    }
    *at++ = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_kill, 0, 3);
    *at++ = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[0]));
    *at++ = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, 0x80000000, 0, 1);
    *at++ = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
    *at++ = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    struct sock_fprog filter = {(unsigned short)(at - code), code};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter)) {
        perror("seccomp");
        exit(1);
    }
}

// What `main` sets up, of what serving needs.
static void set_up_guest(void) {
    static char *environment[] = {"HOME=/tmp", "PATH=/bin:/usr/bin::rel/", "LANG=C", "EMPTY=", NULL};
    __asan_unpoison_memory_region(message, sizeof message);
    memset(&run, 0, sizeof run);
    memset(&waiting, 0, sizeof waiting);
    memset(argv, 0, sizeof argv);
    memset(files, 0, sizeof files);
    memset(token, 0, sizeof token);
    memcpy(token, "0123456789abcdef", 16);
    program_descriptors = (struct rlimit){DESCRIPTORS, DESCRIPTORS};
    socket_path = "/executor.sock";
    base_env = environment;
    strcpy(start_cwd, "/");
    root_device = 1;
    executor = -1;
    out.len = err.len = 0;
    out.end = err.end = out.given = err.given = -1;
    out.flow = err.flow = input = (struct flow){-1, -1, false};
    kept_count = 0;
    children = open_fd(SIGNALS, 0, true);
}

// As in `main`: a guest that is dressed first has a connection before it guards itself. What the executor does until it is there
// stands behind the operation.
static void start_guest(void) {
    world.dressed = world.at < world.end && *world.at % OPERATIONS == AWAITS_DRESSING;
    if (world.dressed) {
        take(1);
        world.dressing = UNDRESSED_YET;
        for (uint32_t records = take(1) % 4; records; records--) step();
        await_dressing();
    }
    netlink_asked = open_fd(ASKED, 0, true);
    protocols = open_fd(PROTOCOLS, 0, true);
    netlink_most = NETLINK_MOST;
    if (world.dressed) report_dressed();
    else connect_executor();
    first_task_fd = executor + 1;
    for (int fd = first_task_fd; fd < FIRST_FD + FDS; fd++)
        if (is_open(fd)) broken("descriptor %d is above the connection", fd);
}

int LLVMFuzzerInitialize(int *argc, char ***args);
int LLVMFuzzerInitialize(int *argc, char ***args) {
    (void)argc;
    (void)args;
    tracing = getenv("FUZZ_TRACE");
    for (uint32_t i = 0; i < sizeof pattern; i++) pattern[i] = (uint8_t)(i * 7 + (i >> 8));
    forbid();
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    memset(&world, 0, sizeof world);
    memset(&asked, 0, sizeof asked);
    no_program();
    world.at = data;
    world.end = data + size;
    world.pipe_size = PIPE_BYTES;
    ended_with = NO_EXIT;
    set_up_guest();
    if (!setjmp(whole)) {
        start_guest();
        serve();
    }
    TRACE("ended %d\n", ended_with);
    return 0;
}
