/* recorder: a library to preload, which records what a process does to the files of one folder, in the order in which it
 * happened.
 *
 *     RECORDER_FOLDER=/path RECORDER_LOG=/file LD_PRELOAD=recorder.so program
 *
 * With RECORDER_DIES_IN_SYNC=N the process ends at once in place of its Nth sync. With RECORDER_FAILS_SYNC_EVERY=N each Nth
 * sync of a file fails with EIO, and does nothing; so does the next one of each other descriptor that the file has then, as Linux tells
 * each of them once. With RECORDER_FAILS_WHILE=/file each sync of a file fails while that file exists.
 *
 * The log has a record for each change of a file or of a folder, for each sync, and for each write to standard output, by
 * which the program says what was acknowledged. See log.py for the format. A call and its record are one step: where two
 * threads call, the log has the order of their calls. Memory mappings are not seen: SQLite maps only its shared index, which
 * no process reads after a crash.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { CREATE = 1, MKDIR, WRITE, TRUNCATE, SYNC, RENAME, UNLINK, RMDIR, SAY, SYNC_FAILED };
enum { FDS = 4096 };

struct record {
    uint32_t what, name_bytes, to_bytes, data_bytes;
    uint64_t file, offset;
};

static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;
static char ours[FDS];
static char folder[4096];
static size_t folder_bytes;
static int log_fd = -1;
static long syncs_left = -1;
static long fails_every, syncs;
static const char *fails_while;
static char owed[FDS];

/* The next function of this name: the C library's own. */
#define REAL(name, ...)                                                                                                  \
    static __typeof__(name) *real;                                                                                       \
    if (!real) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

static void record(int what, uint64_t file, uint64_t offset, const char *name, const char *to, const void *data, size_t size)
{
    struct record head = {what, name ? strlen(name) : 0, to ? strlen(to) : 0, size, file, offset};
    struct iovec parts[] = {
        {&head, sizeof head}, {(void *)name, head.name_bytes}, {(void *)to, head.to_bytes}, {(void *)data, size}};
    if (writev(log_fd, parts, 4) != (ssize_t)(sizeof head + head.name_bytes + head.to_bytes + size)) abort();
}

static uint64_t file_at(const char *path)
{
    struct stat found;
    return stat(path, &found) ? 0 : found.st_ino;
}

__attribute__((constructor)) static void begin(void)
{
    const char *where = getenv("RECORDER_FOLDER"), *log = getenv("RECORDER_LOG");
    if (!where || !log) return;
    snprintf(folder, sizeof folder, "%s", where);
    folder_bytes = strlen(folder);
    log_fd = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (log_fd < 0) abort();
    if (getenv("RECORDER_DIES_IN_SYNC")) syncs_left = atol(getenv("RECORDER_DIES_IN_SYNC"));
    if (getenv("RECORDER_FAILS_SYNC_EVERY")) fails_every = atol(getenv("RECORDER_FAILS_SYNC_EVERY"));
    fails_while = getenv("RECORDER_FAILS_WHILE");
    record(MKDIR, file_at(folder), 0, "", NULL, NULL, 0);
}

/* A path below the folder, or NULL. Paths relative to a descriptor of a folder are not recorded: nobody uses them here. */
static const char *below(const char *path)
{
    if (log_fd < 0 || strncmp(path, folder, folder_bytes)) return NULL;
    if (path[folder_bytes] == '/') return path + folder_bytes + 1;
    return path[folder_bytes] ? NULL : path + folder_bytes;
}

static int is_ours(int fd)
{
    return fd >= 0 && fd < FDS && ours[fd];
}

static uint64_t file_of(int fd)
{
    struct stat found;
    if (fstat(fd, &found)) abort();
    return found.st_ino;
}

static int opened(const char *path, int flags, int existed, int fd)
{
    const char *name = below(path);
    if (fd < 0 || fd >= FDS || !name) return fd;
    ours[fd] = 1;
    owed[fd] = 0;
    if (flags & O_CREAT && !existed) record(CREATE, file_of(fd), 0, name, NULL, NULL, 0);
    else if (flags & O_TRUNC) record(TRUNCATE, file_of(fd), 0, NULL, NULL, NULL, 0);
    return fd;
}

#define OPEN(function)                                                                                                   \
    int function(const char *path, int flags, ...)                                                                       \
    {                                                                                                                    \
        va_list more;                                                                                                    \
        va_start(more, flags);                                                                                           \
        int mode = flags & O_CREAT ? va_arg(more, int) : 0;                                                              \
        va_end(more);                                                                                                    \
        REAL(function);                                                                                                  \
        if (!below(path)) return real(path, flags, mode);                                                                \
        pthread_mutex_lock(&turn);                                                                                       \
        int existed = !access(path, F_OK);                                                                               \
        int fd = opened(path, flags, existed, real(path, flags, mode));                                                  \
        pthread_mutex_unlock(&turn);                                                                                     \
        return fd;                                                                                                       \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(function)                                                                                                 \
    int function(int at, const char *path, int flags, ...)                                                               \
    {                                                                                                                    \
        va_list more;                                                                                                    \
        va_start(more, flags);                                                                                           \
        int mode = flags & O_CREAT ? va_arg(more, int) : 0;                                                              \
        va_end(more);                                                                                                    \
        REAL(function);                                                                                                  \
        if (!below(path)) return real(at, path, flags, mode);                                                            \
        pthread_mutex_lock(&turn);                                                                                       \
        int existed = !access(path, F_OK);                                                                               \
        int fd = opened(path, flags, existed, real(at, path, flags, mode));                                              \
        pthread_mutex_unlock(&turn);                                                                                     \
        return fd;                                                                                                       \
    }
OPENAT(openat)
OPENAT(openat64)

int close(int fd)
{
    REAL(close);
    if (fd >= 0 && fd < FDS) ours[fd] = 0;
    return real(fd);
}

ssize_t write(int fd, const void *data, size_t size)
{
    REAL(write);
    if (log_fd < 0 || (fd != 1 && !is_ours(fd))) return real(fd, data, size);
    pthread_mutex_lock(&turn);
    off_t at = fd == 1 ? 0 : lseek(fd, 0, fcntl(fd, F_GETFL) & O_APPEND ? SEEK_END : SEEK_CUR);
    ssize_t done = real(fd, data, size);
    if (done > 0) record(fd == 1 ? SAY : WRITE, fd == 1 ? 0 : file_of(fd), at, NULL, NULL, data, done);
    pthread_mutex_unlock(&turn);
    return done;
}

#define PWRITE(function, offset_type)                                                                                    \
    ssize_t function(int fd, const void *data, size_t size, offset_type at)                                              \
    {                                                                                                                    \
        REAL(function);                                                                                                  \
        if (!is_ours(fd)) return real(fd, data, size, at);                                                               \
        pthread_mutex_lock(&turn);                                                                                       \
        ssize_t done = real(fd, data, size, at);                                                                         \
        if (done > 0) record(WRITE, file_of(fd), at, NULL, NULL, data, done);                                            \
        pthread_mutex_unlock(&turn);                                                                                     \
        return done;                                                                                                     \
    }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

#define FTRUNCATE(function, size_type)                                                                                   \
    int function(int fd, size_type size)                                                                                 \
    {                                                                                                                    \
        REAL(function);                                                                                                  \
        if (!is_ours(fd)) return real(fd, size);                                                                         \
        pthread_mutex_lock(&turn);                                                                                       \
        int failed = real(fd, size);                                                                                     \
        if (!failed) record(TRUNCATE, file_of(fd), size, NULL, NULL, NULL, 0);                                           \
        pthread_mutex_unlock(&turn);                                                                                     \
        return failed;                                                                                                   \
    }
FTRUNCATE(ftruncate, off_t)
FTRUNCATE(ftruncate64, off64_t)

/* Whether this sync fails. A folder's never does alone: its file system then takes no more changes at all. */
static int fails(int fd)
{
    struct stat found;
    if (!fstat(fd, &found) && S_ISDIR(found.st_mode)) return 0;
    if (owed[fd]) {
        owed[fd] = 0;
        return 1;
    }
    if (fails_while && !access(fails_while, F_OK)) return 1;
    if (!fails_every || ++syncs % fails_every) return 0;
    for (int other = 0; other < FDS; other++) owed[other] = other != fd && ours[other] && file_of(other) == file_of(fd);
    return 1;
}

#define SYNCS(function)                                                                                                  \
    int function(int fd)                                                                                                 \
    {                                                                                                                    \
        REAL(function);                                                                                                  \
        if (!is_ours(fd)) return real(fd);                                                                               \
        pthread_mutex_lock(&turn);                                                                                       \
        if (!--syncs_left) _exit(0);                                                                                     \
        int injected = fails(fd);                                                                                        \
        int failed = injected ? -1 : real(fd);                                                                           \
        if (injected || !failed) record(injected ? SYNC_FAILED : SYNC, file_of(fd), 0, NULL, NULL, NULL, 0);             \
        pthread_mutex_unlock(&turn);                                                                                     \
        if (injected) errno = EIO;                                                                                       \
        return failed;                                                                                                   \
    }
SYNCS(fsync)
SYNCS(fdatasync)

int mkdir(const char *path, mode_t mode)
{
    REAL(mkdir);
    const char *name = below(path);
    pthread_mutex_lock(&turn);
    int failed = real(path, mode);
    int error = errno;
    if (!failed && name) record(MKDIR, file_at(path), 0, name, NULL, NULL, 0);
    pthread_mutex_unlock(&turn);
    errno = error;
    return failed;
}

int rename(const char *from, const char *to)
{
    REAL(rename);
    const char *name = below(from), *new = below(to);
    pthread_mutex_lock(&turn);
    int failed = real(from, to);
    int error = errno;
    if (!failed && name && new) record(RENAME, file_at(to), 0, name, new, NULL, 0);
    pthread_mutex_unlock(&turn);
    errno = error;
    return failed;
}

#define REMOVES(function, what)                                                                                          \
    int function(const char *path)                                                                                       \
    {                                                                                                                    \
        REAL(function);                                                                                                  \
        const char *name = below(path);                                                                                  \
        pthread_mutex_lock(&turn);                                                                                       \
        int failed = real(path);                                                                                         \
        int error = errno;                                                                                               \
        if (!failed && name) record(what, 0, 0, name, NULL, NULL, 0);                                                    \
        pthread_mutex_unlock(&turn);                                                                                     \
        errno = error;                                                                                                   \
        return failed;                                                                                                   \
    }
REMOVES(unlink, UNLINK)
REMOVES(rmdir, RMDIR)
