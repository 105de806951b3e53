#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "self.h"

static struct trait { const char *path, *form; int fd; char was[64]; } traits[] = {
    {"/proc/self/autogroup", "%s", -1, ""}, {"/proc/self/coredump_filter", "0x%s", -1, ""}};
static uint64_t reported_cpu_us;

void __attribute__((noreturn)) malformed(void) { _exit(EXIT_MALFORMED); }

void __attribute__((noreturn)) unusable(const char *what, const char *why) {
    fprintf(stderr, "guest: %s: %s\n", what, why);
    _exit(EXIT_USAGE);
}

uint64_t now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

uint64_t cpu_us(const struct rusage *u) {
    return (uint64_t)(u->ru_utime.tv_sec + u->ru_stime.tv_sec) * 1000000 + (uint64_t)(u->ru_utime.tv_usec + u->ru_stime.tv_usec);
}

uint64_t own_cpu_us(void) {
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    uint64_t all = cpu_us(&u), since = all - reported_cpu_us;
    reported_cpu_us = all;
    return since;
}

void shut(int *fd) {
    if (*fd >= 0) close(*fd);
    *fd = -1;
}

void close_from(int first, int most) {
    if (syscall(SYS_close_range, first, ~0u, 0))
        for (int fd = first; fd < first + most; fd++) close(fd);
}

void take_traits(void) {
    for (struct trait *t = traits; t < traits + sizeof traits / sizeof *traits; t++) {
        t->fd = open(t->path, O_RDWR | O_CLOEXEC);
        if (t->fd >= 0 && pread(t->fd, t->was, sizeof t->was - 1, 0) <= 0) shut(&t->fd);
    }
}

bool put_traits_back(void) {
    for (struct trait *t = traits; t < traits + sizeof traits / sizeof *traits; t++)
        for (int tries = 0; t->fd >= 0; tries++) {
            char text[sizeof t->was] = "", *last = strrchr(t->was, ' ');
            if (pread(t->fd, text, sizeof text - 1, 0) > 0 && !strcmp(text, t->was)) break;
            int n = snprintf(text, sizeof text, t->form, last ? last + 1 : t->was);
            // The kernel changes autogroups at most ten times a second, for all processes together.
            if (tries == 100 || (write(t->fd, text, (size_t)n) < 0 && (errno != EAGAIN || poll(NULL, 0, 20)))) return false;
        }
    return true;
}
