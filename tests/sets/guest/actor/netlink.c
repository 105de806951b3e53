// Netlink sockets, and a filter that asks.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/netlink.h>
#include <linux/seccomp.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "actor.h"

// netlink take: as many sockets as there are; again COUNT: one after the other; flags: what becomes of flags and options; ahead: one,
// then as cat.
void netlink(void) {
    const char *how = text(1);
    long count = 0, most = !strcmp(how, "again") ? number(2) : 1000;
    if (!strcmp(how, "flags")) {
        int large = 1 << 20, yes = 1;
        int held[2];
        int plain = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE), marked = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE);
        must(!getsockopt(plain, SOL_SOCKET, SO_RCVBUF, &held[0], &(socklen_t){sizeof held[0]}), "getsockopt");
        must(!setsockopt(plain, SOL_SOCKET, SO_RCVBUF, &large, sizeof large) && !setsockopt(plain, SOL_SOCKET, SO_PASSCRED, &yes, sizeof yes), "setsockopt");
        must(!getsockopt(plain, SOL_SOCKET, SO_RCVBUF, &held[1], &(socklen_t){sizeof held[1]}), "getsockopt");
        must(!getsockopt(plain, SOL_SOCKET, SO_PASSCRED, &yes, &(socklen_t){sizeof yes}), "getsockopt");
        printf("cloexec %d %d nonblock %d %d passcred %d rcvbuf %s", fcntl(plain, F_GETFD), fcntl(marked, F_GETFD), !!(fcntl(plain, F_GETFL) & O_NONBLOCK),
               !!(fcntl(marked, F_GETFL) & O_NONBLOCK), yes, held[0] == held[1] ? "kept" : "changed");
        return;
    }
    if (!strcmp(how, "ahead")) must(socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE) >= 0, "socket"), copying();
    else {
        for (int s; count < most && (s = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE)) >= 0; count++)
            if (!strcmp(how, "again")) close(s);
        printf("%ld %s", count, count == most ? "" : strerrorname_np(errno));
    }
}

// listen COMMAND…: run it under a filter that asks this program's child.
void listen_first(void) {
    struct sock_filter allow = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    struct sock_fprog program = {1, &allow};
    must(!prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs");
    must(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program) >= 0, "seccomp");
    if (fork() == 0) for (;;) pause();
    execv(args[1], args + 1);
    fail("execv");
}
