#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "files.h"
#include "places.h"

// True if files there are the program's or the image's. In /proc we could read files that the program cannot.
static bool is_storage(int folder) {
    struct stat st;
    if (fstat(folder, &st)) return false;
    bool found = st.st_dev == root_device;
    for (int i = 0; i < place_count && !found; i++) found = st.st_dev == places[i].was.st_dev;
    return found;
}

int open_file(char *path) {
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
