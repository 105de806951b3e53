#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "places.h"
#include "self.h"

struct place places[PLACES_COUNT];
int place_count;
dev_t root_device;
static char start_cwd[PATH_MAX];

int holder_of(const char *path) {
    int found = -1;
    for (int i = 0; i < place_count; i++) {
        size_t n = strlen(places[i].path);
        if (!strncmp(places[i].path, path, n) && path[n] == '/' && (found < 0 || n > strlen(places[found].path))) found = i;
    }
    return found;
}

// Add a place; a folder that does not exist is none, as nothing can be written there.
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
    // Reading it must not change its times.
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

// In this order a place comes before the places within it.
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
}

bool return_to_start(void) { return !chdir(start_cwd); }
