#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/seccomp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "netlink.h"
#include "self.h"

// Bounds in bytes: the unread messages of all sockets together, and the excess of one socket over its own limit.
#define NETLINK_BYTES (16 << 20)
#define NETLINK_EXCESS_BYTES 65536
#define NETLINK_SOCKETS_LEAST 4
#define PROTOCOLS_BYTES 32768

int netlink_asked = -1;
uint64_t netlink_word;
// /proc/net/protocols, where the kernel counts sockets; and how many may live.
static int protocols = -1;
static long netlink_most;

static int make_netlink(int type, int protocol) { return (int)syscall(SYS_socket, AF_NETLINK, type | SOCK_CLOEXEC, protocol, netlink_word); }

// How many sockets live in the slot's network, those in flight in messages included.
static long count_netlink(void) {
    static char listing[PROTOCOLS_BYTES];
    static const char name[] = "\nNETLINK ";
    char *text = listing, *end = text;
    if (lseek(protocols, 0, SEEK_SET)) return LONG_MAX;
    for (ssize_t n; end < text + PROTOCOLS_BYTES - 1 && (n = read(protocols, end, (size_t)(text + PROTOCOLS_BYTES - 1 - end))) > 0;) end += n;
    *end = 0;
    if (!(text = strstr(text, name))) return LONG_MAX;
    strtol(text + sizeof name - 1, &end, 10);  // the size of one
    return strtol(end, NULL, 10);
}

static void refuse_netlink(uint64_t id, int error) {
    struct seccomp_notif_resp answer = {.id = id, .error = -error};
    ioctl(netlink_asked, SECCOMP_IOCTL_NOTIF_SEND, &answer);
}

// Hand the socket to the thread that asked. This call returns only when that thread has run, which the program can delay; so it is
// made in a child.
static void __attribute__((noreturn)) hand_netlink_over(const struct seccomp_notif *asked, int fd) {
    struct seccomp_notif_addfd added = {.id = asked->id, .flags = SECCOMP_ADDFD_FLAG_SEND, .srcfd = (uint32_t)fd,
                                        .newfd_flags = asked->data.args[1] & SOCK_CLOEXEC ? O_CLOEXEC : 0};
    if (ioctl(netlink_asked, SECCOMP_IOCTL_NOTIF_ADDFD, &added) < 0) refuse_netlink(asked->id, errno);
    _exit(0);
}

void answer_netlink(void) {
    struct seccomp_notif asked;
    memset(&asked, 0, sizeof asked);
    // This fails if the thread that asked has ended.
    if (ioctl(netlink_asked, SECCOMP_IOCTL_NOTIF_RECV, &asked)) return;
    if (count_netlink() >= netlink_most) return refuse_netlink(asked.id, ENOBUFS);
    int fd = make_netlink((int)asked.data.args[1], (int)asked.data.args[2]);
    pid_t pid = fd < 0 ? -1 : fork();
    if (pid == 0) hand_netlink_over(&asked, fd);
    if (pid < 0) refuse_netlink(asked.id, errno);
    shut(&fd);
}

bool prepare_netlink(void) {
    if (getrandom(&netlink_word, sizeof netlink_word, 0) != sizeof netlink_word) unusable("getrandom", strerror(errno));
    protocols = open("/proc/self/net/protocols", O_RDONLY | O_CLOEXEC);
    return protocols >= 0;
}

void measure_netlink(void) {
    socklen_t size = sizeof (int);
    int held = 0, probe = make_netlink(SOCK_RAW, 0);
    if (probe >= 0 && !getsockopt(probe, SOL_SOCKET, SO_RCVBUF, &held, &size)) netlink_most = NETLINK_BYTES / (held + NETLINK_EXCESS_BYTES);
    if (netlink_most < NETLINK_SOCKETS_LEAST) netlink_most = NETLINK_SOCKETS_LEAST;
    shut(&probe);
}
