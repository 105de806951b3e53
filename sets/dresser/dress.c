// Dresses one slot of a cluster, before its first task: gives its places what an orchestrator's docker driver cannot say, and
// uncovers the image's files in VOLUMEs. Runs as root, for a moment, and is never run again for the same slot.
//
//     dress PIDFD INODES PLACE... [-- COVER...]
//
// PIDFD is a descriptor of the slot's init, whose mount namespace this process enters. Everything in there was arranged by a
// stranger's image: its folders, its links, its USER. Therefore nothing is taken from a path: the mounts are those that the kernel
// lists, each is opened without following any link, and must then be the one that was listed. Nothing of the slot is run, and no
// descriptor of this process can be reached from within, because this process stays in the host's PID namespace.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <linux/openat2.h>
#include <poll.h>
#include <sched.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef STATX_ATTR_MOUNT_ROOT
#define STATX_ATTR_MOUNT_ROOT 0x2000
#endif
#define UMOUNT_DETACH 2
#define UMOUNT_NO_LINK 8
#define MOUNTS_COUNT 512
#define TEXT_BYTES (1 << 20)

static const char shm[] = "/dev/shm", nomad[] = "/gc/nomad";
// Mounts of the platform's own job below /gc. Nobody can reach anything that lies in the last of them.
static const char *const platform[] = {"/gc/bin", "/gc/run", nomad};

struct mount {
    uint64_t id;
    const char *target;
    bool ours;     // a tmpfs that the engine made for this slot
    bool matched;  // named by the order
    bool cover;    // hides a VOLUME of the image, whose files the slot is to see
    int fd;        // its root, -1 if another mount hides it
    int copy;      // a copy to be mounted again, -1
};
static struct mount mounts[MOUNTS_COUNT];
static int mount_count;
static char text[TEXT_BYTES];

static void __attribute__((noreturn, format(printf, 1, 2))) fail(const char *form, ...) {
    va_list values;
    va_start(values, form);
    vfprintf(stderr, form, values);
    va_end(values);
    _exit(1);
}

static void check(bool fine, const char *what, const char *path) {
    if (!fine) fail("%s%s%s: %s", path, *path ? ": " : "", what, strerror(errno));
}

// Read a file below the host's /proc into `text`; false if there is none.
static bool read_text(int proc, const char *path) {
    int fd = openat(proc, path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return false;
    size_t size = 0;
    ssize_t n;
    while ((n = read(fd, text + size, TEXT_BYTES - 1 - size)) > 0) size += (size_t)n;
    if (n < 0 || size == TEXT_BYTES - 1) fail("%s cannot be read, or is too long", path);
    text[size] = 0;
    close(fd);
    return true;
}

// The text of the line that begins with `name`.
static const char *line(const char *name) {
    for (const char *at = text; at; at = strchr(at, '\n') ? strchr(at, '\n') + 1 : NULL)
        if (!strncmp(at, name, strlen(name))) return at + strlen(name);
    fail("the kernel does not tell %s of the slot's init", name);
}

static void must_live(int pidfd) {
    struct pollfd p = {pidfd, POLLIN, 0};
    if (poll(&p, 1, 0)) fail("the slot's init has ended");
}

static bool same_namespace(int proc, const char *one, const char *other) {
    struct stat a, b;
    check(!fstatat(proc, one, &a, 0) && !fstatat(proc, other, &b, 0), "its mount namespace cannot be seen", "");
    return a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

// ---- the slot's init

struct init { char folder[32]; uid_t uid; gid_t gid; };

// Describe a pidfd's process. Numbers of processes are used again, so each look is followed by `must_live`.
static struct init look(int proc, int pidfd) {
    struct init init;
    char path[96], *end;
    snprintf(path, sizeof path, "self/fdinfo/%d", pidfd);
    if (!read_text(proc, path) || !strstr(text, "\nPid:")) fail("descriptor %d is not a process", pidfd);
    long pid = strtol(line("Pid:"), NULL, 10);
    if (pid <= 0) fail("the slot's init has ended");
    snprintf(init.folder, sizeof init.folder, "%ld", pid);
    snprintf(path, sizeof path, "%s/status", init.folder);
    if (!read_text(proc, path)) fail("the slot's init has ended");
    // In its own namespace it is process 1, and alone: a slot that has run a task has had more, and is not touched.
    long number = strtol(line("NSpid:"), &end, 10), outermost = number;
    while (*end == '\t') number = strtol(end, &end, 10);
    if (number != 1 || outermost == 1) fail("process %ld is not the init of a container", pid);
    strtol(line("Uid:"), &end, 10);
    init.uid = (uid_t)strtoul(end, NULL, 10);
    strtol(line("Gid:"), &end, 10);
    init.gid = (gid_t)strtoul(end, NULL, 10);
    if (strtol(line("Threads:"), NULL, 10) != 1) fail("the slot's init has threads: it is not the guest");
    snprintf(path, sizeof path, "%s/task/%s/children", init.folder, init.folder);
    if (read_text(proc, path) && *text) fail("the slot runs a program already");
    must_live(pidfd);
    return init;
}

static void enter(int proc, int pidfd, const struct init *init) {
    char theirs[48];
    snprintf(theirs, sizeof theirs, "%s/ns/mnt", init->folder);
    if (same_namespace(proc, theirs, "self/ns/mnt")) fail("the slot has no mount namespace of its own");
    check(!setns(pidfd, CLONE_NEWNS), "its mount namespace cannot be entered", "");
    if (!same_namespace(proc, theirs, "self/ns/mnt")) fail("the slot's init has left its mount namespace");
    must_live(pidfd);
}

// ---- its mounts

static bool is_below(const char *path, const char *folder) {
    size_t n = strlen(folder);
    return !strncmp(path, folder, n) && path[n] == '/';
}

static bool is_in(const char *path, const char *folder) { return !strcmp(path, folder) || is_below(path, folder); }

// mountinfo writes blanks, tabs, newlines and backslashes as \040.
static void unescape(char *path) {
    char *to = path;
    for (; *path; path++) {
        if (*path == '\\' && path[1] && path[2] && path[3]) {
            *to++ = (char)((path[1] - '0') << 6 | (path[2] - '0') << 3 | (path[3] - '0'));
            path += 3;
        } else *to++ = *path;
    }
    *to = 0;
}

// Open a folder of the slot without following any link.
static int open_folder(const char *path) {
    struct open_how how = {.flags = O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, .resolve = RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS};
    return (int)syscall(SYS_openat2, AT_FDCWD, path, &how, sizeof how);
}

static uint64_t mount_of(int fd, const char *path) {
    struct statx st;
    check(!statx(fd, "", AT_EMPTY_PATH, STATX_MNT_ID, &st) && st.stx_mask & STATX_MNT_ID, "its mount cannot be seen", path);
    return st.stx_mnt_id;
}

// The root of a mount, or -1 if another mount hides it.
static int open_root(const struct mount *m) {
    int fd = open_folder(m->target);
    if (fd >= 0 && mount_of(fd, m->target) == m->id) return fd;
    if (fd >= 0) close(fd);
    return -1;
}

static bool may_be_place(const char *target) {
    return !strcmp(target, shm) || !(is_in(target, "/proc") || is_in(target, "/sys") || is_in(target, "/dev") || is_in(target, "/gc"));
}

static void list_mounts(int proc) {
    if (!read_text(proc, "self/mountinfo")) fail("the slot's mounts cannot be listed");
    for (char *at = text, *next; *at; at = next) {
        next = strchr(at, '\n');
        if (!next) fail("the slot's mounts are listed in an unknown form");
        *next++ = 0;
        char *type = strstr(at, " - "), *field[5], *rest = NULL;
        if (type) *type = 0, type += 3;
        for (int i = 0; i < 5; i++) field[i] = strtok_r(i ? NULL : at, " ", &rest);
        if (!type || !field[4]) fail("the slot's mounts are listed in an unknown form");
        if (mount_count == MOUNTS_COUNT) fail("the slot has more than %d mounts", MOUNTS_COUNT);
        unescape(field[4]);
        bool tmpfs = !strncmp(type, "tmpfs ", 6) && !strcmp(field[3], "/");
        mounts[mount_count++] = (struct mount){.id = strtoull(field[0], NULL, 10), .target = field[4], .copy = -1,
                                               .ours = tmpfs && may_be_place(field[4])};
    }
    for (struct mount *m = mounts; m < mounts + mount_count; m++) m->fd = m->ours ? open_root(m) : -1;
}

// The image must not have had anything mounted among the platform's own, by a VOLUME behind a link: there lie Nomad's API and the
// directories on the host's disk, in a folder that nobody can enter.
static void check_platform(void) {
    for (size_t i = 0; i < sizeof platform / sizeof *platform; i++) {
        const struct mount *found = NULL;
        for (const struct mount *m = mounts; m < mounts + mount_count; m++)
            if (!strcmp(m->target, platform[i])) {
                if (found) fail("%s: the image had something mounted there", platform[i]);
                found = m;
            }
        if (!found) fail("%s: the slot's job has mounted nothing there", platform[i]);
        int fd = open_root(found);
        struct stat st;
        struct statvfs fs;
        check(fd >= 0 && !fstat(fd, &st) && !fstatvfs(fd, &fs), "it is hidden", platform[i]);
        if (!(fs.f_flag & ST_RDONLY)) fail("%s: it can be written to", platform[i]);
        // A slot's root has no capability to enter it nevertheless, and cannot change it.
        if (!strcmp(platform[i], nomad) && st.st_mode & 07777) fail("%s: it can be entered", nomad);
        close(fd);
    }
    for (const struct mount *m = mounts; m < mounts + mount_count; m++) {
        bool known = !is_in(m->target, "/gc") || is_below(m->target, nomad);
        for (size_t i = 0; i < sizeof platform / sizeof *platform; i++) known |= !strcmp(m->target, platform[i]);
        if (!known) fail("%s: the image had something mounted there", m->target);
    }
}

static struct mount *visible(const char *path) {
    for (struct mount *m = mounts; m < mounts + mount_count; m++)
        if (m->ours && m->fd >= 0 && !strcmp(m->target, path)) return m;
    return NULL;
}

// Find the mounts that the order names. The engine has followed the image's links to some places, so these lie elsewhere: there
// must be as many others.
static void match(char **places, char **covers) {
    int elsewhere = 0, others = 0;
    for (; *covers; covers++) {
        struct mount *m = visible(*covers);
        if (!m) fail("%s: nothing covers this VOLUME", *covers);
        m->matched = m->cover = true;
    }
    const char *missing = NULL;
    for (; *places; places++) {
        struct mount *m = visible(*places);
        if (m && m->cover) fail("%s: it is ordered as a place and as a VOLUME", *places);
        if (m && !m->matched) m->matched = true;
        else elsewhere++, missing = *places;
    }
    for (const struct mount *m = mounts; m < mounts + mount_count; m++)
        if (m->ours && !m->matched) others++;
    if (others < elsewhere) fail("%s: the engine has mounted no place there, nor where a link of the image leads", missing);
    for (const struct mount *m = mounts; others > elsewhere && m < mounts + mount_count; m++)
        if (m->ours && !m->matched) fail("%s: a tmpfs that nobody ordered", m->target);
}

// ---- dressing

static void set_inodes(const struct mount *m, const char *inodes) {
    int fs = (int)syscall(SYS_fspick, m->fd, "", FSPICK_EMPTY_PATH | FSPICK_CLOEXEC);
    check(fs >= 0, "its file system cannot be changed", m->target);
    check(!syscall(SYS_fsconfig, fs, FSCONFIG_SET_STRING, "nr_inodes", inodes, 0), "its inodes cannot be limited", m->target);
    check(!syscall(SYS_fsconfig, fs, FSCONFIG_CMD_RECONFIGURE, NULL, NULL, 0), "its inodes cannot be limited", m->target);
    close(fs);
}

static void dress(const struct mount *m, const struct init *init, const char *inodes) {
    struct mount_attr attributes = {.attr_set = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOATIME,
                                    .attr_clr = MOUNT_ATTR_NOEXEC | MOUNT_ATTR__ATIME};
    struct statvfs fs;
    set_inodes(m, inodes);
    if (strcmp(m->target, shm)) check(!fchownat(m->fd, "", init->uid, init->gid, AT_EMPTY_PATH), "it cannot be given to the USER", m->target);
    check(!syscall(SYS_mount_setattr, m->fd, "", AT_EMPTY_PATH, &attributes, sizeof attributes), "its mount cannot be changed", m->target);
    check(!fstatvfs(m->fd, &fs), "it cannot be looked at", m->target);
    unsigned long flags = fs.f_flag & (ST_NOSUID | ST_NODEV | ST_NOEXEC | ST_NOATIME | ST_RDONLY);
    if (flags != (ST_NOSUID | ST_NODEV | ST_NOATIME) || fs.f_files != strtoull(inodes, NULL, 10)) fail("%s: it was not changed as ordered", m->target);
}

static const struct mount *topmost_cover(const char *path) {
    const struct mount *found = NULL;
    for (const struct mount *m = mounts; m < mounts + mount_count; m++)
        if (m->cover && is_below(path, m->target) && (!found || strlen(m->target) < strlen(found->target))) found = m;
    return found;
}

// Places below a cover go with it, so they are copied first, and the copies are mounted in the image's own folders.
static void copy_places(void) {
    for (struct mount *m = mounts; m < mounts + mount_count; m++) {
        if (m->cover || !topmost_cover(m->target)) continue;
        if (!m->ours) fail("%s: it lies in a VOLUME of the image", m->target);
        if (m->fd < 0) continue;
        m->copy = (int)syscall(SYS_open_tree, m->fd, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH);
        check(m->copy >= 0, "it cannot be moved", m->target);
    }
}

static void uncover(const struct mount *cover) {
    // Through the open root: whatever lies at the path by now, nothing else is unmounted.
    check(!fchdir(cover->fd) && !syscall(SYS_umount2, ".", UMOUNT_DETACH | UMOUNT_NO_LINK) && !chdir("/"), "it cannot be uncovered", cover->target);
}

static void check_uncovered(const struct mount *cover) {
    struct statvfs fs;
    int fd = open_folder(cover->target), root = open_folder("/");
    check(fd >= 0 && root >= 0 && !fstatvfs(fd, &fs), "the image has no such folder", cover->target);
    if (mount_of(fd, cover->target) != mount_of(root, "/")) fail("%s: something else than the image's files lies there", cover->target);
    if (!(fs.f_flag & ST_RDONLY)) fail("%s: the image's files can be written to", cover->target);
    close(fd);
    close(root);
}

static int by_length(const void *a, const void *b) {
    size_t one = strlen((*(const struct mount *const *)a)->target), other = strlen((*(const struct mount *const *)b)->target);
    return (one > other) - (one < other);
}

static void put_back(void) {
    const struct mount *sorted[MOUNTS_COUNT];
    size_t count = 0;
    for (const struct mount *m = mounts; m < mounts + mount_count; m++)
        if (m->copy >= 0) sorted[count++] = m;
    // A place comes before the places within it.
    qsort(sorted, count, sizeof *sorted, by_length);
    for (size_t i = 0; i < count; i++) {
        int fd = open_folder(sorted[i]->target);
        check(fd >= 0, "the image has no such folder", sorted[i]->target);
        check(!syscall(SYS_move_mount, sorted[i]->copy, "", fd, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH), "it cannot be mounted again", sorted[i]->target);
        close(fd);
    }
}

int main(int argc, char **args) {
    if (argc < 4) fail("usage: dress PIDFD INODES PLACE... [-- COVER...]");
    int pidfd = atoi(args[1]), proc = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
    check(proc >= 0, "it cannot be opened", "/proc");
    char **places = args + 3, **covers = places;
    while (*covers && strcmp(*covers, "--")) covers++;
    if (*covers) *covers++ = NULL;
    struct init init = look(proc, pidfd);
    enter(proc, pidfd, &init);
    list_mounts(proc);
    check_platform();
    match(places, covers);
    for (const struct mount *m = mounts; m < mounts + mount_count; m++)
        if (m->ours && !m->cover && m->fd >= 0) dress(m, &init, args[2]);
    copy_places();
    for (const struct mount *m = mounts; m < mounts + mount_count; m++)
        if (m->cover && !topmost_cover(m->target)) uncover(m);
    for (const struct mount *m = mounts; m < mounts + mount_count; m++)
        if (m->cover) check_uncovered(m);
    put_back();
    must_live(pidfd);
}
