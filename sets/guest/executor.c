#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "executor.h"
#include "self.h"

#define CONNECT_LIMIT_S 60
#define CONNECT_MOST_MS 500
#define SEND_LIMIT_S 60

int executor = -1;
const char *socket_path;
char token[TOKEN_BYTES];
uint32_t last_task;

// The socket is blocking: a slow executor is waited for, up to a limit; a dead one is an error.
bool tell(struct iovec *parts, size_t count) {
    struct msghdr m = {.msg_iov = parts, .msg_iovlen = count};
    ssize_t n;
    do n = sendmsg(executor, &m, MSG_NOSIGNAL); while (n < 0 && errno == EINTR);
    return n >= 0;
}

ssize_t hear(void *buffer, size_t size, int flags, struct riders *riders) {
    union { char space[CMSG_SPACE(sizeof riders->fds)]; struct cmsghdr align; } control;
    struct iovec part = {buffer, size};
    struct msghdr m = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = CMSG_LEN(sizeof riders->fds)};
    ssize_t n;
    do n = recvmsg(executor, &m, flags | MSG_CMSG_CLOEXEC); while (n < 0 && errno == EINTR);
    riders->count = 0;
    if (n < 0) return errno == EAGAIN ? -1 : 0;
    if (m.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) malformed();
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    if (c) {
        if (!n || c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS) malformed();
        riders->count = (int)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
        memcpy(riders->fds, CMSG_DATA(c), c->cmsg_len - CMSG_LEN(0));
    }
    return n;
}

const char *beside_socket(const char *name) {
    static char path[sizeof ((struct sockaddr_un *)0)->sun_path + 16];
    const char *slash = strrchr(socket_path, '/');
    snprintf(path, sizeof path, "%.*s/%s", (int)(slash ? slash - socket_path : 0), socket_path, name);
    return path;
}

static void connect_with(uint8_t flags) {
    uint64_t until = now_us() + CONNECT_LIMIT_S * 1000000ull;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    memcpy(address.sun_path, socket_path, strlen(socket_path));
    shut(&executor);
    last_task = 0;
    for (int wait_ms = CONNECT_FIRST_MS;; wait_ms = wait_ms * 2 < CONNECT_MOST_MS ? wait_ms * 2 : CONNECT_MOST_MS) {
        executor = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
        struct timeval limit = {.tv_sec = SEND_LIMIT_S};
        setsockopt(executor, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
        // Where the host's default is small, the kernel gives what it allows: a full EXIT must fit.
        int room = 2 * MESSAGE_BYTES;
        setsockopt(executor, SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
        if (executor >= 0 && !connect(executor, (struct sockaddr *)&address, sizeof address)) {
            struct hello_message hello = {.head = {.type = HELLO, .flags = flags}, .version = VERSION};
            memcpy(hello.token, token, TOKEN_BYTES);
            if (tell(&(struct iovec){&hello, sizeof hello}, 1)) {
                // Our own CPU time until now enters the cgroup's account before the executor first reads it.
                own_cpu_us();
                return;
            }
        }
        shut(&executor);
        if (now_us() > until) _exit(EXIT_NO_EXECUTOR);
        poll(NULL, 0, wait_ms);
    }
}

void connect_executor(void) { connect_with(0); }

void await_dressing(void) {
    struct head head;
    struct riders riders;
    connect_with(UNDRESSED);
    ssize_t n = hear(&head, sizeof head, 0, &riders);
    if (!n) _exit(EXIT_NO_EXECUTOR);
    if (n != sizeof head || riders.count || head.flags || head.reserved) malformed();
    if (head.type == RETIRE) _exit(EXIT_RETIRED);
    if (head.type != DRESSED || head.task) malformed();
}

void report_dressed(void) {
    struct cleaned_message c = {.head = {.type = CLEANED}, .ok = 1, .guest_cpu_us = own_cpu_us()};
    int last = fcntl(executor, F_DUPFD_CLOEXEC, executor + 1);
    // Something else gets its number, so that a later connection is the last one, too.
    if (last < 0 || dup3(STDIN_FILENO, executor, O_CLOEXEC) < 0) unusable("descriptors", strerror(errno));
    executor = last;
    tell(&(struct iovec){&c, sizeof c}, 1);
}
