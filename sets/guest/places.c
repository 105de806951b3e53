#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "content.h"
#include "places.h"
#include "self.h"

#define LISTING_BYTES 32768

struct place places[PLACES_COUNT];
int place_count;
dev_t root_device;
static char start_cwd[PATH_MAX];
static char listings[2][LISTING_BYTES] __attribute__((aligned(8)));

// Walks over a listing that getdents64 has filled.
#define EACH_ENTRY(e, listing, n)                                                    \
    (struct dirent64 *e = (struct dirent64 *)(listing); (char *)e < (listing) + (n); \
     e = (struct dirent64 *)((char *)e + e->d_reclen)) if (strcmp(e->d_name, ".") && strcmp(e->d_name, ".."))

// Whether the entry of that name is a place itself, the one that it has been from the start.
static bool is_kept(const struct place *p, const char *name) {
    struct stat st;
    if (!p->keeps) return false;
    for (const struct place *q = places; q < places + place_count; q++)
        if (q->parent == p - places && !strcmp(q->name, name))
            return !fstatat(p->fd, name, &st, AT_SYMLINK_NOFOLLOW) && st.st_dev == q->was.st_dev && st.st_ino == q->was.st_ino;
    return false;
}

// Whether a place holds what it keeps and its content, and nothing else.
static bool is_empty(const struct place *p) {
    ssize_t n;
    int kept = 0;
    if (lseek(p->fd, 0, SEEK_SET)) return false;
    while ((n = getdents64(p->fd, listings[0], LISTING_BYTES)) > 0)
        for EACH_ENTRY(e, listings[0], n) {
            if (!is_kept(p, e->d_name) && !is_item(p, e->d_name)) return false;
            kept++;
        }
    return !n && kept == p->keeps + p->tops;
}

// Its owner could leave a word to the next task in its times, too.
static bool put_times_back(const struct place *p) { return !futimens(p->fd, (struct timespec[]){p->was.st_atim, p->was.st_mtim}); }

static bool is_clean(const struct place *p) {
    struct statfs fs;
    struct stat st;
    const bool ours = p->ours;
    if (ours && (fstat(p->fd, &st) || st.st_mode != p->was.st_mode || st.st_gid != p->was.st_gid ||
                    flistxattr(p->fd, NULL, 0) != p->xattrs))
        return false;
    if (!(p->counts ? !fstatfs(p->fd, &fs) && fs.f_files - fs.f_ffree == p->inodes : is_empty(p))) return false;
    if (p->items && !is_intact(p)) return false;
    return !ours || (same_time(st.st_mtim, p->was.st_mtim) && same_time(st.st_atim, p->was.st_atim)) || put_times_back(p);
}

// Move a folder up to the place itself.
static bool lift(int root, int parent, const char *name) {
    static unsigned serial;
    char moved[32];
    fchmodat(parent, name, 0700, 0);
    for (;;) {
        snprintf(moved, sizeof moved, ".gc-%u", ++serial);
        if (!renameat2(parent, name, root, moved, RENAME_NOREPLACE)) return true;
        if (errno != EEXIST) return false;
    }
}

// Remove an entry of a place. The folders within a folder are lifted, so that depth never matters and each is looked at in its
// turn. False, with errno, when nothing could be done.
static bool remove_entry(int root, const char *name) {
    if (!unlinkat(root, name, 0)) return true;
    if (errno != EISDIR) return false;
    if (!unlinkat(root, name, AT_REMOVEDIR)) return true;
    fchmodat(root, name, 0700, 0);
    int fd = openat(root, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), error = 0;
    if (fd < 0) return false;
    bool progress = false;
    ssize_t n;
    while ((n = getdents64(fd, listings[1], LISTING_BYTES)) > 0)
        for EACH_ENTRY(e, listings[1], n) {
            if (!unlinkat(fd, e->d_name, 0) ||
                (errno == EISDIR && (!unlinkat(fd, e->d_name, AT_REMOVEDIR) || lift(root, fd, e->d_name))))
                progress = true;
            else error = errno;
        }
    close(fd);
    if (!unlinkat(root, name, AT_REMOVEDIR) || progress) return true;
    errno = error ? error : errno;
    return false;
}

// Give a place that the program has taken away its folder again.
static bool make_again(struct place *p) {
    int parent = places[p->parent].fd;
    if (mkdirat(parent, p->name, 0700)) return false;
    int fd = openat(parent, p->name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_NOATIME | O_CLOEXEC);
    if (fd < 0) return false;
    bool made = !fchmod(fd, p->was.st_mode & 07777) && dup3(fd, p->fd, O_CLOEXEC) >= 0 && !fstat(p->fd, &p->was);
    close(fd);
    p->ours = true;
    p->xattrs = flistxattr(p->fd, NULL, 0);
    return made;
}

// 0, or the errno of what could not be removed.
static int clean(struct place *p) {
    if (p->ours) fchmod(p->fd, p->was.st_mode & 07777);
    for (bool left = true; left;) {
        bool progress = false;
        int error = EIO;
        ssize_t n;
        left = false;
        if (lseek(p->fd, 0, SEEK_SET)) return errno;
        while ((n = getdents64(p->fd, listings[0], LISTING_BYTES)) > 0)
            for EACH_ENTRY(e, listings[0], n) {
                if (is_kept(p, e->d_name)) continue;
                left = true;
                if (remove_entry(p->fd, e->d_name)) progress = true;
                else error = errno;
            }
        if (n < 0) return errno;
        if (left && !progress) return error;
    }
    for (struct place *q = places; q < places + place_count; q++)
        if (q->parent == p - places && !is_kept(p, q->name) && !make_again(q)) return errno;
    if (p->items && !fill(p)) return errno;
    if (p->ours) {
        ssize_t n = flistxattr(p->fd, listings[1], LISTING_BYTES);
        if (n != p->xattrs)
            for (char *name = listings[1]; n > 0 && name < listings[1] + n; name += strlen(name) + 1) fremovexattr(p->fd, name);
        if (fchown(p->fd, (uid_t)-1, p->was.st_gid) || fchmod(p->fd, p->was.st_mode & 07777) || !put_times_back(p)) return errno;
    }
    // What the executor still holds open counts as an inode, yet is nowhere to be found.
    return is_empty(p) ? 0 : EIO;
}

bool all_clean(void) {
    if (!put_traits_back()) return false;
    for (int i = 0; i < place_count; i++)
        if (!is_clean(&places[i])) return false;
    return true;
}

// Places stand behind the place that holds them.
int clean_all(void) {
    int error = put_traits_back() ? 0 : EBUSY;
    for (int i = 0; i < place_count; i++)
        if (!is_clean(&places[i])) {
            int e = clean(&places[i]);
            if (e) error = e;
        }
    // The working directory may be one of those that were made again.
    return error || !chdir(start_cwd) ? error : errno;
}

int holder_of(const char *path) {
    int found = -1;
    for (int i = 0; i < place_count; i++) {
        size_t n = strlen(places[i].path);
        if (!strncmp(places[i].path, path, n) && path[n] == '/' && (found < 0 || n > strlen(places[found].path))) found = i;
    }
    return found;
}

// A folder that does not exist cannot be written to.
static void add_place(const char *path) {
    for (int i = 0; i < place_count; i++) if (!strcmp(places[i].path, path)) return;
    if (place_count == PLACES_COUNT) unusable(path, "too many places");
    struct stat above;
    struct place p = {.path = path, .name = strrchr(path, '/') + 1, .parent = holder_of(path)};
    p.fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (p.fd < 0 && errno == ENOENT) return;
    if (p.fd < 0 || fstat(p.fd, &p.was) || fstatat(p.fd, "..", &above, 0)) unusable(path, strerror(errno));
    p.ours = p.was.st_uid == geteuid();
    // runc before 1.1.8 gives a tmpfs the mode of the image's folder, which may keep even its owner from writing.
    if (p.ours && ~p.was.st_mode & S_IRWXU && !fchmod(p.fd, p.was.st_mode | S_IRWXU)) fstat(p.fd, &p.was);
    // Our own look at it must not change it.
    if (p.ours) fcntl(p.fd, F_SETFL, O_NOATIME);
    p.xattrs = flistxattr(p.fd, NULL, 0);
    p.counts = above.st_dev != p.was.st_dev;
    if (p.parent >= 0) {
        places[p.parent].keeps++;
        places[p.parent].counts = false;
    }
    places[place_count++] = p;
}

// Add a place and every folder between it and the place that holds it.
static void add_way(const char *path) {
    int holder = holder_of(path);
    if (holder >= 0)
        for (const char *slash = path + strlen(places[holder].path) + 1; (slash = strchr(slash, '/')); slash++) {
            char *between = strndup(path, (size_t)(slash - path));
            if (!between) unusable(path, "out of memory");
            add_place(between);
        }
    add_place(path);
}

// So a place comes before those that lie in it.
static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

void take_places(char **paths, int count) {
    struct stat st;
    for (int i = 0; i < count; i++) {
        for (size_t n = strlen(paths[i]); n && paths[i][n - 1] == '/'; n--) paths[i][n - 1] = 0;
        if (paths[i][0] != '/' || strstr(paths[i], "//")) unusable(paths[i], "a place is an absolute path");
    }
    qsort(paths, (size_t)count, sizeof *paths, by_name);
    for (int i = 0; i < count; i++) add_way(paths[i]);
    if (!getcwd(start_cwd, sizeof start_cwd)) strcpy(start_cwd, "/");
    if (holder_of(start_cwd) >= 0) add_way(start_cwd);
    if (stat("/", &st)) unusable("/", strerror(errno));
    root_device = st.st_dev;
    take_content();
    for (int i = 0; i < place_count; i++) {
        struct place *p = &places[i];
        struct statfs fs;
        int error = is_empty(p) ? 0 : clean(p);
        if (error || fstatfs(p->fd, &fs)) unusable(p->path, strerror(error ? error : errno));
        p->counts = p->counts && fs.f_type == TMPFS_MAGIC && fs.f_files;
        p->inodes = fs.f_files - fs.f_ffree;
        fstat(p->fd, &p->was);
    }
}
