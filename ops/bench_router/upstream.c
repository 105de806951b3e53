/* The set that stands behind every proxy of the bench: small, fast, the same for all.
 *
 *     upstream PORT
 *
 * Reads requests with Content-Length, drops their bodies, and answers 200 with the headers of a sync task, its id and
 * times others each time as a set's are, and 128 bytes, or as many as the request line's `size=` says. One thread; the
 * answer to a request goes out once its body was read.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { HEAD_BYTES = 16 * 1024, BLOCK_BYTES = 1 << 20, EVENTS = 256, SMALL_BYTES = 128 };

struct client {
    int fd;
    bool reading_body;
    bool writing; /* EPOLLOUT is asked for; nothing is read meanwhile */
    size_t have;  /* of head */
    uint64_t body_left;
    uint64_t answer_size;
    size_t lead_at, lead_length; /* the answer's head, then the small body with it */
    uint64_t answer_left;        /* the rest, from `block` */
    char lead[512];
    char head[HEAD_BYTES];
};

static char block[BLOCK_BYTES];
static int epoll_fd;

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static void watch(struct client *client, uint32_t events, int operation)
{
    struct epoll_event event = {.events = events, .data.ptr = client};
    if (epoll_ctl(epoll_fd, operation, client->fd, &event) < 0)
        die("epoll_ctl");
}

static uint64_t number_after(const char *text, const char *end, const char *name)
{
    size_t length = strlen(name);
    for (; text + length < end; text++)
        if (strncasecmp(text, name, length) == 0)
            return strtoull(text + length, NULL, 10);
    return 0;
}

/* Sends what of the answer is left. False: the connection is gone. */
static bool send_answer(struct client *client)
{
    while (client->lead_at < client->lead_length || client->answer_left > 0) {
        ssize_t sent;
        if (client->lead_at < client->lead_length) {
            int more = client->answer_left > 0 ? MSG_MORE : 0;
            sent = send(client->fd, client->lead + client->lead_at, client->lead_length - client->lead_at,
                        MSG_NOSIGNAL | more);
            if (sent > 0)
                client->lead_at += (size_t)sent;
        } else {
            size_t size = client->answer_left < BLOCK_BYTES ? (size_t)client->answer_left : BLOCK_BYTES;
            sent = send(client->fd, block, size, MSG_NOSIGNAL);
            if (sent > 0)
                client->answer_left -= (uint64_t)sent;
        }
        if (sent < 0) {
            if (errno != EAGAIN)
                return false;
            if (!client->writing)
                watch(client, EPOLLOUT, EPOLL_CTL_MOD);
            client->writing = true;
            return true;
        }
    }
    if (client->writing)
        watch(client, EPOLLIN, EPOLL_CTL_MOD);
    client->writing = false;
    return true;
}

static bool begin_answer(struct client *client)
{
    client->reading_body = false;
    static uint32_t count; /* the values jump about, and rarely come again */
    uint32_t mixed = ++count * 2654435761u;
    bool small = client->answer_size <= SMALL_BYTES;
    int length = snprintf(client->lead, sizeof client->lead,
                          "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: %llu\r\n"
                          "X-Task-Id: bench-01jd3k5v8zq4n2w7c9%08x\r\nX-Set: bench\r\nX-Exit-Code: 0\r\n"
                          "X-Cpu-Us: %u\r\nX-Duration-Us: %u\r\nX-Queue-Us: %u\r\nX-Cold-Start: 0\r\n\r\n",
                          (unsigned long long)client->answer_size, mixed, mixed >> 20, mixed >> 16, mixed >> 26);
    client->lead_at = 0;
    client->lead_length = (size_t)length;
    client->answer_left = client->answer_size;
    if (small) {
        memcpy(client->lead + length, block, (size_t)client->answer_size);
        client->lead_length += (size_t)client->answer_size;
        client->answer_left = 0;
    }
    return send_answer(client);
}

/* Takes every whole request out of `head`. False: the connection is to be closed. */
static bool take_requests(struct client *client)
{
    while (!client->writing && !client->reading_body && client->have > 0) {
        char *end = memmem(client->head, client->have, "\r\n\r\n", 4);
        if (end == NULL)
            return client->have < HEAD_BYTES;
        char *line_end = memchr(client->head, '\r', client->have);
        uint64_t size = number_after(client->head, line_end, "size=");
        client->answer_size = size > 0 ? size : SMALL_BYTES;
        client->body_left = number_after(line_end, end, "\ncontent-length:");
        if (memmem(line_end, (size_t)(end - line_end), "chunked", 7) != NULL) {
            fprintf(stderr, "a proxy sent a chunked request: not known here\n");
            return false;
        }
        size_t used = (size_t)(end + 4 - client->head);
        size_t rest = client->have - used;
        size_t body = rest < client->body_left ? rest : (size_t)client->body_left;
        client->body_left -= body;
        client->have = rest - body;
        memmove(client->head, client->head + used + body, client->have);
        client->reading_body = true;
        if (client->body_left == 0 && !begin_answer(client))
            return false;
    }
    return true;
}

static bool read_client(struct client *client)
{
    if (client->reading_body) {
        size_t size = client->body_left < BLOCK_BYTES ? (size_t)client->body_left : BLOCK_BYTES;
        /* Dropped by the kernel, uncopied: so that the proxy is what is short of CPU, not its load. */
        ssize_t got = recv(client->fd, NULL, size, MSG_TRUNC);
        if (got <= 0)
            return got < 0 && errno == EAGAIN;
        client->body_left -= (uint64_t)got;
        return client->body_left > 0 || begin_answer(client);
    }
    ssize_t got = recv(client->fd, client->head + client->have, HEAD_BYTES - client->have, 0);
    if (got <= 0)
        return got < 0 && errno == EAGAIN;
    client->have += (size_t)got;
    return take_requests(client);
}

static void accept_all(int listener)
{
    int fd, on = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        struct client *client = calloc(1, sizeof *client);
        if (client == NULL)
            die("calloc");
        client->fd = fd;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        watch(client, EPOLLIN, EPOLL_CTL_ADD);
    }
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fprintf(stderr, "usage: upstream PORT\n");
        return 2;
    }
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    memset(block, 'y', sizeof block);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1;
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)atoi(argv[1])),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) < 0 || listen(listener, 4096) < 0)
        die("listen");
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    struct client door = {.fd = listener};
    watch(&door, EPOLLIN, EPOLL_CTL_ADD);
    struct epoll_event events[EVENTS];
    for (;;) {
        int count = epoll_wait(epoll_fd, events, EVENTS, -1);
        for (int i = 0; i < count; i++) {
            struct client *client = events[i].data.ptr;
            if (client == &door) {
                accept_all(listener);
                continue;
            }
            bool alive = client->writing ? send_answer(client) && take_requests(client) : read_client(client);
            if (!alive) {
                close(client->fd);
                free(client);
            }
        }
    }
}
