#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/statfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "cleaning.h"
#include "content.h"
#include "places.h"
#include "self.h"

#define LISTING_BYTES 32768

static char listings[2][LISTING_BYTES] __attribute__((aligned(8)));

// Walks over a listing that getdents64 has filled.
#define EACH_ENTRY(e, listing, n)                                                    \
    (struct dirent64 *e = (struct dirent64 *)(listing); (char *)e < (listing) + (n); \
     e = (struct dirent64 *)((char *)e + e->d_reclen)) if (strcmp(e->d_name, ".") && strcmp(e->d_name, ".."))

// True if the entry of that name is a place itself, and the same one as at the start.
static bool is_kept(const struct place *p, const char *name) {
    struct stat st;
    if (!p->keeps) return false;
    for (const struct place *q = places; q < places + place_count; q++)
        if (q->parent == p - places && !strcmp(q->name, name))
            return !fstatat(p->fd, name, &st, AT_SYMLINK_NOFOLLOW) && st.st_dev == q->was.st_dev && st.st_ino == q->was.st_ino;
    return false;
}

// True if a place holds only what it keeps and its content.
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

// The owner of a place could also leave a message for the next task in its times.
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

// Remove an entry of a place. Folders within a folder are lifted up to the place and removed in their turn, so that depth never
// matters. False, with errno, if nothing was removed or lifted.
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

// Make the folder of a place again that the program has removed.
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
    // A file that the executor still holds open counts as an inode but has no entry.
    return is_empty(p) ? 0 : EIO;
}

bool all_clean(void) {
    if (!put_traits_back()) return false;
    for (int i = 0; i < place_count; i++)
        if (!is_clean(&places[i])) return false;
    return true;
}

// A place comes after the place that holds it.
int clean_all(void) {
    int error = put_traits_back() ? 0 : EBUSY;
    for (int i = 0; i < place_count; i++)
        if (!is_clean(&places[i])) {
            int e = clean(&places[i]);
            if (e) error = e;
        }
    // The working directory may be one of those that were made again.
    return error || return_to_start() ? error : errno;
}

void empty_all(void) {
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
