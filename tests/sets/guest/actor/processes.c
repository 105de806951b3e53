// Processes: those that the program starts and leaves, and the memory that it takes.
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "actor.h"

// Fork N children that go on when this one exits.
void orphans(void) {
    for (long i = number(1); i > 0; i--) {
        pid_t pid = fork();
        must(pid >= 0, "fork");
        if (!pid) pour();
    }
    doze(20);
}

// daemon FILE: a process far away that goes on writing into FILE.
void daemonise(void) {
    int ready[2];
    char c;
    must(!pipe(ready), "pipe");
    if (!fork()) {
        setsid();
        if (fork()) _exit(0);
        signal(SIGHUP, SIG_IGN);
        signal(SIGTERM, SIG_IGN);
        int null = open("/dev/null", O_RDWR);
        for (int i = 0; i < 3; i++) dup2(null, i);
        int fd = open(text(1), O_WRONLY | O_CREAT | O_APPEND, 0600);
        write_all(ready[1], "x", 1);
        for (;;) {
            write_all(fd, "alive", 5);
            doze(1);
        }
    }
    must(read(ready[0], &c, 1) == 1, "read");
    printf("started");
}

// Fork as often as the kernel allows, and say how often.
void crowd(void) {
    long count = 0, most = number(1);
    while (count < most) {
        pid_t pid = fork();
        if (pid < 0) break;
        if (!pid) for (;;) pause();
        count++;
    }
    printf("%ld", count);
}

// Processes that end without their parent waiting for them.
void ignore_children(void) {
    signal(SIGCHLD, SIG_IGN);
    for (long i = number(1); i > 0; i--) {
        pid_t pid = fork();
        must(pid >= 0, "fork");
        if (!pid) {
            if (!fork()) doze(2);
            _exit(7);
        }
    }
    doze(20);
    printf("done");
}

// churn N: N orphans, one after the other, which end at once: they must be reaped while this one runs.
void churn(void) {
    for (long i = number(1); i > 0; i--) {
        pid_t pid = fork();
        must(pid >= 0, "fork");
        if (!pid) {
            if (!fork()) _exit(0);
            _exit(0);
        }
        must(waitpid(pid, NULL, 0) == pid, "waitpid");
    }
    printf("done");
}

// Take memory until the kernel objects.
void eat(void) {
    for (;;) {
        char *page = malloc(1 << 20);
        must(page != NULL, "malloc");
        memset(page, 1, 1 << 20);
    }
}

// fill FILE CHILDREN: memory that lies in a file, while the processes themselves are small.
void fill(void) {
    static char block[1 << 16];
    for (long i = number(2); i > 0; i--)
        if (!fork()) break;
    int fd = open(text(1), O_WRONLY | O_CREAT | O_APPEND, 0600);
    must(fd >= 0, text(1));
    for (;;) write_all(fd, block, sizeof block);
}
