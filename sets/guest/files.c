#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "files.h"
#include "places.h"
#include "self.h"

#define PIECE_BYTES 65536

// A file of the task that has ended, and the bytes of it that go into the pipe `to`.
struct kept { int fd, to; uint64_t size, at, end; };
static struct kept kept[FILES_COUNT];
static int kept_count;

// True if files there are the program's or the image's. In /proc we could read files that the program cannot.
static bool is_storage(int folder) {
    struct stat st;
    if (fstat(folder, &st)) return false;
    bool found = st.st_dev == root_device;
    for (int i = 0; i < place_count && !found; i++) found = st.st_dev == places[i].was.st_dev;
    return found;
}

static int open_file(char *path) {
    struct stat st;
    int at = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC), error = errno;
    for (char *name = path + 1, *slash; at >= 0 && (slash = strchr(name, '/')); name = slash + 1) {
        *slash = 0;
        int next = openat(at, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        error = errno;
        struct stat link;
        if (next < 0 && !fstatat(at, name, &link, AT_SYMLINK_NOFOLLOW) && S_ISLNK(link.st_mode)) error = ELOOP;
        close(at);
        at = next;
        *slash = '/';
        path = slash;
    }
    if (at < 0) return -error;
    const char *name = strrchr(path, '/') + 1;
    int fd = -1;
    if (fstatat(at, name, &st, AT_SYMLINK_NOFOLLOW)) error = errno;
    else if (S_ISLNK(st.st_mode)) error = ELOOP;
    else if (!S_ISREG(st.st_mode) || !is_storage(at)) error = EINVAL;
    else if ((fd = openat(at, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC)) < 0) error = errno;
    close(at);
    return fd < 0 ? -error : fd;
}

int64_t keep_file(int number, char *path) {
    struct stat st;
    int fd = open_file(path);
    while (kept_count <= number) kept[kept_count++] = (struct kept){.fd = -1, .to = -1};
    if (fd < 0) return fd;
    if (fstat(fd, &st)) return close(fd), -EIO;
    kept[number] = (struct kept){.fd = fd, .to = -1, .size = (uint64_t)st.st_size};
    return st.st_size;
}

void close_files(void) {
    for (struct kept *k = kept; k < kept + kept_count; k++) {
        shut(&k->fd);
        shut(&k->to);
    }
    kept_count = 0;
}

// Write a piece into the pipe. It is closed after the last, or early when the file cannot be read or nobody reads the pipe.
static void write_piece(struct kept *k) {
    static char piece[PIECE_BYTES];
    const uint64_t left = k->end - k->at;
    ssize_t n = left ? pread(k->fd, piece, left < sizeof piece ? (size_t)left : sizeof piece, (off_t)k->at) : 0;
    if (n > 0) n = write(k->to, piece, (size_t)n);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (n > 0) k->at += (uint64_t)n;
    if (n <= 0 || k->at == k->end) shut(&k->to);
}

// Begin to write what the executor asks for, instead of what it asked for before of the same file.
static void begin(const struct read_message *m, int to) {
    if (m->file >= (uint32_t)kept_count || m->reserved || kept[m->file].fd < 0 || m->first > kept[m->file].size ||
        m->length > kept[m->file].size - m->first)
        malformed();
    struct kept *k = &kept[m->file];
    shut(&k->to);
    fcntl(to, F_SETFL, O_NONBLOCK);
    k->to = to;
    k->at = m->first;
    k->end = m->first + m->length;
}

bool serve_files(uint32_t task) {
    for (;;) {
        struct pollfd p[1 + FILES_COUNT] = {{executor, POLLIN, 0}};
        for (int i = 0; i < kept_count; i++) p[1 + i] = (struct pollfd){kept[i].to, POLLOUT, 0};
        if (poll(p, 1 + (nfds_t)kept_count, -1) < 0) continue;
        for (int i = 0; i < kept_count; i++)
            if (p[1 + i].revents) write_piece(&kept[i]);
        if (!p[0].revents) continue;
        struct read_message m;
        struct riders riders;
        ssize_t n = hear(&m, sizeof m, MSG_DONTWAIT, &riders);
        if (n < 0) continue;
        if (n == 0) return false;
        const bool reads = n == sizeof m && m.head.type == READ;
        if ((!reads && n != sizeof m.head) || riders.count != reads || m.head.flags || m.head.reserved) malformed();
        if (m.head.type == RETIRE) _exit(EXIT_RETIRED);
        // One that the program's end overtook.
        if (m.head.type == KILL || m.head.type == SHOW) continue;
        if ((!reads && m.head.type != RELEASE) || m.head.task != task) malformed();
        if (!reads) return true;
        begin(&m, riders.fds[0]);
    }
}
