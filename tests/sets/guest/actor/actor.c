// The names of what the actor can do, and what all of it uses.
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "actor.h"

char **args;
int arg_count;

long number(int i) { return i < arg_count ? atol(args[i]) : 0; }
const char *text(int i) { return i < arg_count ? args[i] : ""; }

void fail(const char *what) {
    perror(what);
    exit(99);
}

void must(int ok, const char *what) {
    if (!ok) fail(what);
}

void write_all(int fd, const void *data, size_t size) {
    for (const char *at = data; size;) {
        ssize_t n = write(fd, at, size);
        must(n > 0, "write");
        at += n;
        size -= (size_t)n;
    }
}

void doze(long ms) {
    struct timespec t = {ms / 1000, ms % 1000 * 1000000};
    nanosleep(&t, NULL);
}

int main(int argc, char **argv, char **env) {
    args = argv + 1;
    arg_count = argc - 1;
    const char *what = text(0);
    if (!strcmp(what, "argv")) for (int i = 1; i < argc; i++) write_all(1, argv[i], strlen(argv[i]) + 1);
    else if (!strcmp(what, "env")) for (; *env; env++) write_all(1, *env, strlen(*env) + 1);
    else if (!strcmp(what, "exit")) return (int)number(1);
    else if (!strcmp(what, "raise")) raise((int)number(1));
    else if (!strcmp(what, "write")) writing();
    else if (!strcmp(what, "cat")) copying();
    else if (!strcmp(what, "fds")) descriptors();
    else if (!strcmp(what, "signals")) signals();
    else if (!strcmp(what, "facts")) facts();
    else if (!strcmp(what, "pause")) for (write_all(1, "ready", 5);;) pause();
    else if (!strcmp(what, "doze")) doze(number(1));
    else if (!strcmp(what, "pour")) pour();
    else if (!strcmp(what, "half")) write_all(1, "before", 6), close(0), close(1), doze(number(1)), write_all(2, "after", 5);
    else if (!strcmp(what, "orphans")) orphans();
    else if (!strcmp(what, "daemon")) daemonise();
    else if (!strcmp(what, "crowd")) crowd();
    else if (!strcmp(what, "nochld")) ignore_children();
    else if (!strcmp(what, "churn")) churn();
    else if (!strcmp(what, "deep")) deep();
    else if (!strcmp(what, "many")) many();
    else if (!strcmp(what, "closed")) closed();
    else if (!strcmp(what, "names")) names();
    else if (!strcmp(what, "spoil")) spoil();
    else if (!strcmp(what, "look")) look();
    else if (!strcmp(what, "outputs")) outputs();
    else if (!strcmp(what, "tamper")) tamper();
    else if (!strcmp(what, "limit")) limit();
    else if (!strcmp(what, "inherited")) inherited();
    else if (!strcmp(what, "mark")) mark();
    else if (!strcmp(what, "steal")) steal();
    else if (!strcmp(what, "eat")) eat();
    else if (!strcmp(what, "fill")) fill();
    else if (!strcmp(what, "store")) store();
    else if (!strcmp(what, "stored")) stored();
    else if (!strcmp(what, "netlink")) netlink();
    else if (!strcmp(what, "listen")) listen_first();
    else if (!strcmp(what, "rmdir")) must(!rmdir(text(1)) && !mkdir(text(2), 0700), "rmdir");
    else return 98;
    return fflush(stdout) ? 97 : 0;
}
