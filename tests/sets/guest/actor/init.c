// Process 1: what the program inherits of it, and what it tries to leave there.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "actor.h"

void descriptors(void) {
    for (int fd = 0; fd < 1024; fd++)
        if (fcntl(fd, F_GETFD) >= 0) printf("%d ", fd);
}

void signals(void) {
    struct { void *handler; unsigned long flags; void *restorer; unsigned long mask; } action;
    unsigned long blocked = 0;
    syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, &blocked, 8);
    printf("blocked %lx;", blocked);
    for (int i = 1; i <= 64; i++)
        if (!syscall(SYS_rt_sigaction, i, NULL, &action, 8) && action.handler) printf(" %d", i);
    sigset_t pending;
    sigpending(&pending);
    printf("; pending");
    for (int i = 1; i <= 64; i++)
        if (sigismember(&pending, i) == 1) printf(" %d", i);
}

// Change what later programs would inherit of process 1, and send it what signals there are.
void tamper(void) {
    struct rlimit none = {0, 0};
    struct sched_param idle = {0};
    cpu_set_t cpus;
    CPU_ZERO(&cpus);
    CPU_SET(0, &cpus);
    printf("%d", syscall(SYS_prlimit64, 1, RLIMIT_NOFILE, &none, NULL) == 0);
    printf("%d", syscall(SYS_prlimit64, 1, RLIMIT_CPU, &none, NULL) == 0);
    printf("%d", setpriority(PRIO_PROCESS, 1, 19) == 0);
    printf("%d", setpriority(PRIO_PGRP, 1, 19) == 0);
    printf("%d", setpriority(PRIO_USER, getuid(), 19) == 0);
    printf("%d", sched_setaffinity(1, sizeof cpus, &cpus) == 0);
    printf("%d", sched_setscheduler(1, SCHED_IDLE, &idle) == 0);
    printf("%d", syscall(SYS_ioprio_set, 1, 1, 3 << 13) == 0);
    printf("%d", syscall(SYS_ioprio_set, 3, getuid(), 3 << 13) == 0);
    printf("%d", open("/proc/1/mem", O_RDWR) >= 0 || open("/proc/1/environ", O_RDONLY) >= 0);
    for (int i = 1; i <= 64; i++)
        if (i != SIGKILL && i != SIGSTOP) kill(1, i);
}

// What process 1 bears that a program which is root may write to; not every kernel has each, and a process in whose
// session nobody ever called setsid has an empty autogroup.
static const char *const TRAITS[] = {"/proc/1/autogroup", "/proc/1/coredump_filter"};

static void print_traits(void) {
    for (size_t i = 0; i < 2; i++) {
        char line[128] = "none\n";
        FILE *trait = fopen(TRAITS[i], "r");
        if (trait && !fgets(line, sizeof line, trait)) must(!ferror(trait), TRAITS[i]);
        if (trait) fclose(trait);
        printf("%s", line);
    }
}

// Leave a word there.
void mark(void) {
    for (size_t i = 0; i < 2; i++) {
        int fd = open(TRAITS[i], O_WRONLY);
        // The kernel changes autogroups ten times a second at most.
        while (fd >= 0 && write(fd, "7", 1) < 0 && errno == EAGAIN) doze(10);
    }
    print_traits();
}

// How many descriptors it may have, soft and hard, and whether it could have one more.
void limit(void) {
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    struct rlimit more = {files.rlim_max + 1, files.rlim_max + 1};
    printf("%lu %lu %d", files.rlim_cur, files.rlim_max, !setrlimit(RLIMIT_NOFILE, &more));
}

void inherited(void) {
    struct rlimit files, cpu;
    cpu_set_t cpus;
    CPU_ZERO(&cpus);
    getrlimit(RLIMIT_NOFILE, &files);
    getrlimit(RLIMIT_CPU, &cpu);
    sched_getaffinity(0, sizeof cpus, &cpus);
    printf("%ld %ld %d %d %d %ld\n", (long)files.rlim_cur, (long)cpu.rlim_cur, getpriority(PRIO_PROCESS, 0),
           CPU_COUNT(&cpus), sched_getscheduler(0), syscall(SYS_ioprio_get, 1, 0));
    char line[256];
    FILE *status = fopen("/proc/1/status", "r");
    must(status != NULL, "/proc/1/status");
    while (fgets(line, sizeof line, status))
        if (!strncmp(line, "SigPnd", 6) || !strncmp(line, "ShdPnd", 6)) printf("%s", line);
    fclose(status);
    print_traits();
    FILE *filter = fopen("/proc/self/coredump_filter", "r");
    if (filter && fgets(line, sizeof line, filter)) printf("%s", line);
}

static int score_of(const char *file) {
    char score[32] = "";
    int fd = open(file, O_RDONLY);
    must(fd >= 0 && read(fd, score, sizeof score - 1) > 0, file);
    close(fd);
    return atoi(score);
}

void facts(void) {
    char cwd[4096];
    int own = score_of("/proc/self/oom_score_adj");
    // The guest sets its own back while this runs already.
    for (int i = 0; i < 1000 && score_of("/proc/1/oom_score_adj") == own; i++) doze(1);
    printf("sid %d of %d; parent %d; uid %u; cwd %s; oom %d %d; umask %o", getsid(0) == getpid(), getpid() > 1, getppid(),
           getuid(), getcwd(cwd, sizeof cwd) ? cwd : "?", own, score_of("/proc/1/oom_score_adj"), umask(0));
}
