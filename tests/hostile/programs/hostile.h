// A suite of hostile programs. Each case says what it tries, what must come of it, and why that matters; its body tries it, and
// calls breach() when it got what it must not get. What must come of it:
//   contained   the program ends by itself with 0: nothing it tried worked
//   timed_out   it would never end: the platform ends it, and everything it started
//   memory      it is ended for its memory, and nobody else is
//   ended       either of the two
//   any         however it ends, the platform and the next task are unharmed
// A case of OUTPUTS also asks for files to be kept, by paths with a space between, and says what may be kept of them:
//   none        nothing
//   mine        only what its program wrote: files that begin with the word `mine`
//   any         what the program could have read and printed itself
// After every case the test runs `residue` in the same slot (or in the one that replaced it): it must find nothing.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

struct hostile_case {
    const char *name, *tries, *must, *why;
    void (*run)(int argc, char **argv);
    const char *outputs, *kept;
};

#define CASE(id, what, outcome, reason) OUTPUTS(id, "", "none", what, outcome, reason)

#define OUTPUTS(id, paths, left, what, outcome, reason)                                                            \
    static void run_##id(int argc, char **argv);                                                                   \
    static const struct hostile_case case_##id = {#id, what, outcome, reason, run_##id, paths, left};              \
    __attribute__((used, section("cases"))) static const struct hostile_case *const pointer_##id = &case_##id;     \
    static void run_##id(int argc __attribute__((unused)), char **argv __attribute__((unused)))

// The attack worked: say how, and fail.
static inline void __attribute__((noreturn, format(printf, 1, 2))) breach(const char *format, ...) {
    va_list list;
    va_start(list, format);
    // Standard error is what a failed task shows of itself.
    fputs("BREACH: ", stderr);
    vfprintf(stderr, format, list);
    fputc(10, stderr);
    va_end(list);
    _exit(1);
}

// The attack could not be set up, so nothing was shown.
static inline void __attribute__((noreturn, format(printf, 1, 2))) broken(const char *format, ...) {
    va_list list;
    va_start(list, format);
    fputs("BROKEN TEST: ", stderr);
    vfprintf(stderr, format, list);
    fprintf(stderr, " (errno %d, %s)\n", errno, strerror(errno));
    va_end(list);
    _exit(2);
}

// A child that never ends; it dies with the slot's clean-up or not at all.
static inline pid_t lingering_child(void) {
    pid_t pid = fork();
    if (pid == 0)
        for (;;) pause();
    return pid;
}

// Whether a file can be opened for writing. What the engine masked with /dev/null may be.
static inline bool can_write(const char *path) {
    struct stat st;
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0) return false;
    bool masked = !fstat(fd, &st) && S_ISCHR(st.st_mode) && st.st_rdev == 0x103;
    close(fd);
    return !masked;
}
