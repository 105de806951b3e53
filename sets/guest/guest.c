// The guest: PID 1 of every slot. Runs the image's own program once per task and hands its bytes to the executor.
// PROTOCOL.md beside this file is the contract. The program is hostile and runs beside us as the same user. It cannot trace
// or read us (we are not dumpable), signals from within do nothing to PID 1, and a filter keeps our limits and priority ours.
// This file is the start; what happens then is in task.c.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "cleaning.h"
#include "content.h"
#include "executor.h"
#include "filter.h"
#include "places.h"
#include "program.h"
#include "self.h"
#include "task.h"

static bool is_named(const char *variable, size_t name_len, char **names) {
    for (; *names; names++)
        if (strlen(*names) == name_len && !memcmp(*names, variable, name_len)) return true;
    return false;
}

// The program gets no token, and if there are `names`, only those variables: an orchestrator may have added others.
static void take_environment(char **names) {
    char **kept = base_env = environ;
    for (char **e = environ; *e; e++) {
        size_t name_len = (size_t)(strchrnul(*e, '=') - *e);
        if (name_len == sizeof TOKEN_NAME - 1 && !memcmp(*e, TOKEN_NAME, name_len)) {
            char *value = *e + name_len + !!(*e)[name_len];
            if (strlen(value) == TOKEN_BYTES) memcpy(token, value, TOKEN_BYTES);
            memset(value, 'x', strlen(value));
        } else if (!names || is_named(*e, name_len, names)) *kept++ = *e;
    }
    *kept = NULL;
}

// Wait until the executor has dressed the slot. It takes mounts away: our working directory may lie in one.
static void wait_undressed(void) {
    char cwd[PATH_MAX], now[PATH_MAX];
    if (!getcwd(cwd, sizeof cwd)) unusable("the working directory", strerror(errno));
    await_dressing();
    // It has no path once its mount is gone.
    if (!getcwd(now, sizeof now) && chdir(cwd)) unusable(cwd, strerror(errno));
}

int main(int argc, char **args) {
    if (getpid() != 1) unusable("runs as PID 1 of a slot only", "it kills every process that it can reach");
    // A job that has the image pulled ahead starts the guest for nothing else.
    if (argc == 2 && !strcmp(args[1], "exit")) return EXIT_RETIRED;
    if (argc < 3 || strlen(args[1]) >= sizeof ((struct sockaddr_un *)0)->sun_path) {
        fprintf(stderr, "usage: guest SOCKET DESCRIPTORS PLACE... [-- VARIABLE...]\n");
        return EXIT_USAGE;
    }
    socket_path = args[1];
    char **places_end = args + 3;
    while (*places_end && strcmp(*places_end, "--")) places_end++;
    // Descriptors 0, 1 and 2 are taken, so that no pipe's end is one of them; nothing else is inherited.
    while (open("/dev/null", O_RDWR) >= 0 && fcntl(2, F_GETFD) < 0) {}
    close_from(3, 65536);
    take_descriptors(args[2]);
    take_oom_score();
    // We are not dumpable, so only root owns our files there.
    if (!geteuid()) take_traits();
    prctl(PR_SET_DUMPABLE, 0);
    take_environment(*places_end ? places_end + 1 : NULL);
    // A signal from within the container does nothing to PID 1 under its default disposition; a blocked one would pile up. SIGCHLD is
    // read from a descriptor.
    static const unsigned long by_default[4];
    for (int i = 1; i <= 64; i++) syscall(SYS_rt_sigaction, i, by_default, NULL, 8);
    sigset_t child_signal;
    sigemptyset(&child_signal);
    sigaddset(&child_signal, SIGCHLD);
    sigprocmask(SIG_SETMASK, &child_signal, NULL);
    children = signalfd(-1, &child_signal, SFD_NONBLOCK | SFD_CLOEXEC);
    if (children < 0) unusable("signalfd", strerror(errno));
    umask(022);
    // The executor changes the places of a cluster's slot first.
    const bool undressed = !access(beside_socket("dressing"), F_OK);
    if (undressed) wait_undressed();
    take_places(args + 3, (int)(places_end - args) - 3);
    take_content();
    empty_all();
    guard();
    if (undressed) report_dressed();
    else connect_executor();
    // The connection is the last descriptor of our own; a later connection gets the same number.
    first_task_fd = executor + 1;
    serve();
}
