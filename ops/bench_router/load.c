/* Loads that wrk does not know, from one cheap thread. Each prints one line of JSON.
 *
 *     load rate   PORT METHOD PATH BODY_BYTES CONNECTIONS SECONDS PER_S   latencies at a fixed rate
 *     load bodies PORT METHOD PATH BODY_BYTES CONNECTIONS SECONDS         as much as goes
 *     load idle   PORT METHOD PATH BODY_BYTES CONNECTIONS                 one request each, then hold them all
 *
 * At a fixed rate a request counts from when it was due, so that what waits behind a stall counts too. Beside the
 * quantiles of all, `window_p99_us` is the median of the p99s of each quarter of a second: 0 where none had enough
 * requests. `idle` prints a line once all are open, holds them until its standard input ends, and prints how many the
 * server has kept.
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
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { BLOCK_BYTES = 1 << 20, HEAD_BYTES = 8 * 1024, EVENTS = 256, MAX_LATENCIES = 8 << 20 };
enum { WINDOW_NS = 250000000, MAX_WINDOWS = 4096, WINDOW_REQUESTS = 100 };

struct connection {
    int fd;
    bool busy, writing;
    size_t head_sent;
    uint64_t body_left;
    uint64_t due_ns;
    bool in_body; /* of the answer */
    size_t have;
    uint64_t answer_left;
    char head[HEAD_BYTES];
};

static char block[BLOCK_BYTES];
static char request[4096];
static size_t request_length;
static uint64_t request_body;
static int epoll_fd, port;
static struct connection *all, **idle_ones;
static int connections, idle_count;
static uint32_t *latencies; /* in units of 100 ns */
static size_t done;
static size_t windows[MAX_WINDOWS + 1], window_count; /* where in `latencies` each begins, by when answers came */
static uint64_t window_end_ns;
static uint64_t bytes, bad;

static void fail(const char *what)
{
    fprintf(stderr, "load: %s: %s\n", what, errno ? strerror(errno) : "not understood");
    exit(1);
}

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void watch(struct connection *each, uint32_t events, int operation)
{
    struct epoll_event event = {.events = events, .data.ptr = each};
    if (epoll_ctl(epoll_fd, operation, each->fd, &event) < 0)
        fail("epoll_ctl");
}

static void open_one(struct connection *each)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int on = 1;
    each->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (each->fd < 0 || connect(each->fd, (struct sockaddr *)&address, sizeof address) < 0)
        fail("connect");
    setsockopt(each->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

/* Sends what of the request is left, as far as the kernel takes it. */
static void send_request(struct connection *each)
{
    while (each->head_sent < request_length || each->body_left > 0) {
        ssize_t sent;
        if (each->head_sent < request_length) {
            sent = send(each->fd, request + each->head_sent, request_length - each->head_sent,
                        MSG_DONTWAIT | MSG_NOSIGNAL | (each->body_left > 0 ? MSG_MORE : 0));
            if (sent > 0)
                each->head_sent += (size_t)sent;
        } else {
            size_t size = each->body_left < BLOCK_BYTES ? (size_t)each->body_left : BLOCK_BYTES;
            sent = send(each->fd, block, size, MSG_DONTWAIT | MSG_NOSIGNAL);
            if (sent > 0) {
                each->body_left -= (uint64_t)sent;
                bytes += (uint64_t)sent;
            }
        }
        if (sent < 0) {
            if (errno != EAGAIN)
                fail("send");
            if (!each->writing)
                watch(each, EPOLLIN | EPOLLOUT, EPOLL_CTL_MOD);
            each->writing = true;
            return;
        }
    }
    if (each->writing)
        watch(each, EPOLLIN, EPOLL_CTL_MOD);
    each->writing = false;
}

static void ask(struct connection *each, uint64_t due_ns)
{
    each->busy = true;
    each->due_ns = due_ns;
    each->head_sent = 0;
    each->body_left = request_body;
    each->in_body = false;
    each->have = 0;
    send_request(each);
}

/* Reads once. True: the whole answer is here. */
static bool receive(struct connection *each)
{
    ssize_t got;
    if (each->in_body) {
        /* Dropped by the kernel, uncopied: so that the proxy is what is short of CPU, not its load. */
        got = recv(each->fd, NULL, BLOCK_BYTES, MSG_DONTWAIT | MSG_TRUNC);
    } else {
        got = recv(each->fd, each->head + each->have, HEAD_BYTES - each->have, MSG_DONTWAIT);
    }
    if (got < 0 && errno == EAGAIN)
        return false;
    if (got <= 0)
        fail("the server closed a connection");
    if (each->in_body) {
        each->answer_left -= (uint64_t)got;
        bytes += (uint64_t)got;
        return each->answer_left == 0;
    }
    each->have += (size_t)got;
    char *end = memmem(each->head, each->have, "\r\n\r\n", 4);
    if (end == NULL) {
        if (each->have == HEAD_BYTES)
            fail("an answer's head is too long");
        return false;
    }
    if (each->have < 12 || memcmp(each->head + 9, "200", 3) != 0)
        bad++;
    uint64_t length = 0;
    bool known = false;
    for (char *at = each->head; at < end && !known; at++)
        if ((known = strncasecmp(at, "\ncontent-length:", 16) == 0))
            length = strtoull(at + 16, NULL, 10);
    errno = 0;
    if (!known)
        fail("an answer without Content-Length");
    uint64_t body = each->have - (size_t)(end + 4 - each->head);
    bytes += body;
    each->answer_left = length - body;
    each->in_body = true;
    return each->answer_left == 0;
}

static void note(struct connection *each)
{
    uint64_t now = now_ns(), age = (now - each->due_ns) / 100;
    if (now >= window_end_ns && window_count < MAX_WINDOWS) {
        windows[window_count++] = done;
        window_end_ns = now + WINDOW_NS;
    }
    if (done < MAX_LATENCIES)
        latencies[done] = age > UINT32_MAX ? UINT32_MAX : (uint32_t)age;
    done++;
    each->busy = false;
}

static int by_size(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

static uint32_t p99_of(uint32_t *sorted, size_t count)
{
    return sorted[count - 1 - count / 100];
}

/* In microseconds; sorts each window. A stall of the whole machine, as a host makes them, spoils the windows that it
 * hits and not the median. */
static double window_p99(size_t count)
{
    static uint32_t p99s[MAX_WINDOWS];
    size_t found = 0;
    windows[window_count] = count;
    for (size_t i = 0; i < window_count && windows[i + 1] <= count; i++) {
        size_t size = windows[i + 1] - windows[i];
        if (size < WINDOW_REQUESTS)
            continue;
        qsort(latencies + windows[i], size, sizeof *latencies, by_size);
        p99s[found++] = p99_of(latencies + windows[i], size);
    }
    qsort(p99s, found, sizeof *p99s, by_size);
    return found > 0 ? p99s[found / 2] / 10.0 : 0;
}

static void report(double elapsed_s)
{
    size_t count = done < MAX_LATENCIES ? done : MAX_LATENCIES;
    double of_windows = window_p99(count);
    qsort(latencies, count, sizeof *latencies, by_size);
    double p50 = 0, p99 = 0, p999 = 0;
    if (count > 0) {
        p50 = latencies[count / 2] / 10.0;
        p99 = p99_of(latencies, count) / 10.0;
        p999 = latencies[count - 1 - count / 1000] / 10.0;
    }
    printf("{\"requests\": %zu, \"bad\": %llu, \"bytes\": %llu, \"elapsed_s\": %.6f, \"p50_us\": %.1f, "
           "\"p99_us\": %.1f, \"p999_us\": %.1f, \"window_p99_us\": %.1f}\n",
           done, (unsigned long long)bad, (unsigned long long)bytes, elapsed_s, p50, p99, p999, of_windows);
    fflush(stdout);
}

static void run_rate(double seconds, double per_s)
{
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    struct connection clock = {.fd = timer};
    watch(&clock, EPOLLIN, EPOLL_CTL_ADD);
    uint64_t began = now_ns(), total = (uint64_t)(seconds * per_s), asked = 0;
    struct epoll_event events[EVENTS];
    while (done < total) {
        uint64_t now = now_ns();
        if (now - began > (uint64_t)((seconds + 20) * 1e9))
            break;
        uint64_t next = began + (uint64_t)((double)asked * 1e9 / per_s);
        while (asked < total && next <= now && idle_count > 0) {
            ask(idle_ones[--idle_count], next);
            asked++;
            next = began + (uint64_t)((double)asked * 1e9 / per_s);
        }
        struct itimerspec at = {0};
        if (asked < total && idle_count > 0) {
            at.it_value.tv_sec = (time_t)(next / 1000000000u);
            at.it_value.tv_nsec = (long)(next % 1000000000u);
        }
        timerfd_settime(timer, TFD_TIMER_ABSTIME, &at, NULL);
        int count = epoll_wait(epoll_fd, events, EVENTS, 1000);
        for (int i = 0; i < count; i++) {
            struct connection *each = events[i].data.ptr;
            if (each == &clock)
                continue;
            if (each->writing)
                send_request(each);
            if ((events[i].events & ~(uint32_t)EPOLLOUT) && receive(each)) {
                note(each);
                idle_ones[idle_count++] = each;
            }
        }
    }
    report((double)(now_ns() - began) / 1e9);
}

static void run_bodies(double seconds)
{
    uint64_t began = now_ns(), until = began + (uint64_t)(seconds * 1e9);
    int busy = connections;
    for (int i = 0; i < connections; i++)
        ask(&all[i], began);
    struct epoll_event events[EVENTS];
    while (busy > 0) {
        int count = epoll_wait(epoll_fd, events, EVENTS, 20000);
        if (count == 0)
            fail("nothing came for 20 s");
        for (int i = 0; i < count; i++) {
            struct connection *each = events[i].data.ptr;
            if (each->writing)
                send_request(each);
            if ((events[i].events & ~(uint32_t)EPOLLOUT) && receive(each)) {
                note(each);
                uint64_t now = now_ns();
                if (now < until)
                    ask(each, now);
                else
                    busy--;
            }
        }
    }
    report((double)(now_ns() - began) / 1e9);
}

static void run_idle(void)
{
    for (int i = 0; i < connections; i++) {
        ask(&all[i], now_ns());
        while (!receive(&all[i])) {
            struct epoll_event event;
            epoll_wait(epoll_fd, &event, 1, 1000);
        }
        note(&all[i]);
    }
    printf("{\"open\": %d, \"bad\": %llu}\n", connections, (unsigned long long)bad);
    fflush(stdout);
    while (read(0, request, sizeof request) > 0)
        continue;
    int kept = 0;
    for (int i = 0; i < connections; i++) {
        char byte;
        kept += recv(all[i].fd, &byte, 1, MSG_DONTWAIT | MSG_PEEK) < 0 && errno == EAGAIN;
    }
    printf("{\"kept\": %d}\n", kept);
}

int main(int argc, char **argv)
{
    const char *mode = argc > 1 ? argv[1] : "";
    int wanted = strcmp(mode, "rate") == 0 ? 9 : strcmp(mode, "bodies") == 0 ? 8 : strcmp(mode, "idle") == 0 ? 7 : 0;
    if (wanted != argc) {
        fprintf(stderr, "usage: load rate|bodies|idle PORT METHOD PATH BODY_BYTES CONNECTIONS [SECONDS [PER_S]]\n");
        return 2;
    }
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
    port = atoi(argv[2]);
    request_body = strtoull(argv[5], NULL, 10);
    connections = atoi(argv[6]);
    char length[64] = "";
    if (request_body > 0)
        snprintf(length, sizeof length, "Content-Length: %llu\r\n", (unsigned long long)request_body);
    int size = snprintf(request, sizeof request, "%s %s HTTP/1.1\r\nHost: bench\r\n%s\r\n", argv[3], argv[4], length);
    if (size < 0 || (size_t)size >= sizeof request)
        fail("the request line");
    request_length = (size_t)size;
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    all = calloc((size_t)connections, sizeof *all);
    idle_ones = calloc((size_t)connections, sizeof *idle_ones);
    latencies = calloc(MAX_LATENCIES, sizeof *latencies);
    if (all == NULL || idle_ones == NULL || latencies == NULL)
        fail("memory");
    for (int i = 0; i < connections; i++) {
        open_one(&all[i]);
        watch(&all[i], EPOLLIN, EPOLL_CTL_ADD);
        idle_ones[idle_count++] = &all[i];
    }
    if (strcmp(mode, "rate") == 0)
        run_rate(atof(argv[7]), atof(argv[8]));
    else if (strcmp(mode, "bodies") == 0)
        run_bodies(atof(argv[7]));
    else
        run_idle();
    return 0;
}
