#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "content.h"
#include "executor.h"
#include "self.h"

#define ITEMS_COUNT 1024

// An entry of a place's content. A file is mapped, so that comparing its bytes takes no call: a program that has mapped it can
// change them without changing its times.
struct __attribute__((packed)) item_head { uint8_t kind, reserved; uint16_t mode; uint32_t path_len, reserved2; int64_t mtime_s; uint64_t size; };
enum { ITEM_FOLDER = 1, ITEM_FILE = 2, ITEM_LINK = 3 };
struct item {
    const char *name;  // below the place
    const unsigned char *data, *there;
    size_t size;
    int place, kind;
    mode_t mode;
    time_t mtime_s;
    struct stat was;
};

static struct item items[ITEMS_COUNT];
static int item_count;
// When we last wrote content. A change by a program in the same tick of the clock would have the same time.
static struct timespec filled_at;

static bool later(struct timespec a, struct timespec b) { return a.tv_sec != b.tv_sec ? a.tv_sec > b.tv_sec : a.tv_nsec > b.tv_nsec; }

void let_a_tick_pass(void) {
    if (!filled_at.tv_sec) return;
    struct timespec t;
    for (int tries = 0; tries < 100 && (clock_gettime(CLOCK_REALTIME_COARSE, &t), !later(t, filled_at)); tries++) poll(NULL, 0, 1);
    filled_at.tv_sec = 0;
}

bool is_item(const struct place *p, const char *name) {
    for (int i = 0; p->tops && i < item_count; i++)
        if (items[i].place == p - places && !strcmp(items[i].name, name)) return true;
    return false;
}

// The last page of a file keeps bytes stored behind the file's end, and every program that maps the file can read them.
static bool has_its_bytes(const struct item *i) {
    static const unsigned char zeros[65536];
    size_t page = (size_t)getpagesize(), behind = (page - i->size % page) % page;
    return !memcmp(i->there, i->data, i->size) && !memcmp(i->there + i->size, zeros, behind);
}

// No program can set the time of change back, and everything changes it except a store into a mapped file.
bool is_intact(const struct place *p) {
    struct stat st;
    for (const struct item *i = items; i < items + item_count; i++)
        if (i->place == p - places &&
            (fstatat(p->fd, i->name, &st, AT_SYMLINK_NOFOLLOW) || st.st_dev != i->was.st_dev || st.st_ino != i->was.st_ino ||
             !same_time(st.st_ctim, i->was.st_ctim) || st.st_size != i->was.st_size || (i->there && !has_its_bytes(i))))
            return false;
    return true;
}

static bool make_file(const struct place *p, struct item *i) {
    int fd = openat(p->fd, i->name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0) return false;
    for (size_t at = 0; at < i->size;) {
        ssize_t n = write(fd, i->data + at, i->size - at);
        if (n <= 0) return close(fd), false;
        at += (size_t)n;
    }
    close(fd);
    if (!i->size) return true;
    // Opened again, because a file that is mapped by a descriptor for writing cannot be executed.
    if ((fd = openat(p->fd, i->name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC)) < 0) return false;
    void *there = mmap(NULL, i->size, PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
    if (there != MAP_FAILED) i->there = there;
    return i->there;
}

// Folders get their mode and time last, after what is in them.
bool fill(const struct place *p) {
    for (struct item *i = items; i < items + item_count; i++) {
        if (i->place != p - places) continue;
        if (i->there) munmap((void *)(uintptr_t)i->there, i->size);
        i->there = NULL;
        if (i->kind == ITEM_FOLDER ? mkdirat(p->fd, i->name, 0700) : i->kind == ITEM_LINK ? symlinkat((const char *)i->data, p->fd, i->name) : !make_file(p, i))
            return false;
    }
    for (struct item *i = items + item_count; i-- > items;) {
        if (i->place != p - places) continue;
        struct timespec times[2] = {{i->mtime_s, 0}, {i->mtime_s, 0}};
        if ((i->kind != ITEM_LINK && fchmodat(p->fd, i->name, i->mode, 0)) || utimensat(p->fd, i->name, times, AT_SYMLINK_NOFOLLOW) ||
            fstatat(p->fd, i->name, &i->was, AT_SYMLINK_NOFOLLOW))
            return false;
        if (later(i->was.st_ctim, filled_at)) filled_at = i->was.st_ctim;
    }
    return true;
}

void take_content(void) {
    const char *path = beside_socket("content");
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT) return;
    if (fd < 0 || fstat(fd, &st)) unusable(path, strerror(errno));
    if (!st.st_size) return;
    const unsigned char *at = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0), *end = at + st.st_size;
    if (at == MAP_FAILED) unusable(path, strerror(errno));
    close(fd);
    while (at < end) {
        struct item_head head;
        if ((size_t)(end - at) < sizeof head) unusable(path, "it is cut off");
        memcpy(&head, at, sizeof head);
        at += sizeof head;
        if (head.path_len >= PATH_MAX || (size_t)(end - at) < head.path_len + 2 || head.size > (size_t)(end - at) - head.path_len - 2 ||
            at[head.path_len] || at[head.path_len + 1 + head.size] || *at != '/' || strlen((const char *)at) != head.path_len)
            unusable(path, "it is malformed");
        struct item i = {.name = (const char *)at, .data = at + head.path_len + 1, .size = head.size, .kind = head.kind,
                         .mode = head.mode, .mtime_s = head.mtime_s, .place = holder_of((const char *)at)};
        at = i.data + i.size + 1;
        // A place itself is there already, and has its mode.
        bool is_place = false;
        for (struct place *p = places; p < places + place_count && !is_place; p++) {
            is_place = !strcmp(p->path, i.name);
            if (is_place && p->ours && !fchmod(p->fd, i.mode | S_IRWXU)) fstat(p->fd, &p->was);
        }
        if (is_place) continue;
        if (i.place < 0 || item_count == ITEMS_COUNT || i.kind < ITEM_FOLDER || i.kind > ITEM_LINK) unusable(i.name, "cannot be content of a place");
        if (i.kind == ITEM_FOLDER) i.mode |= S_IRWXU;
        struct place *p = &places[i.place];
        i.name += strlen(p->path) + 1;
        p->items++;
        if (!strchr(i.name, '/')) p->tops++;
        items[item_count++] = i;
    }
}
