// The writable places: folders that the program may write to.
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <time.h>

#define PLACES_COUNT 64

// A folder that the program may write to, and its state when it is clean. Folders between two places, or between a place and the
// working directory, are places too, so that they stay.
struct place {
    const char *path, *name;  // name: the path's last part
    int fd, parent, keeps;    // parent: the place that holds this one, or -1; keeps: how many places this one holds
    int items, tops;          // entries of its content: in all, and right below it
    bool counts;              // its file system is its own tmpfs, so the number of inodes in use shows whether it is clean
    bool ours;                // the program, being us, may change the folder itself
    uint64_t inodes;
    struct stat was;
    ssize_t xattrs;
};

extern struct place places[PLACES_COUNT];
extern int place_count;
// The root's file system.
extern dev_t root_device;

static inline bool same_time(struct timespec a, struct timespec b) { return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec; }

// Learn the places. `cleaning.h` empties them.
void take_places(char **paths, int count);
// The innermost place that `path` lies in, or -1.
int holder_of(const char *path);
// Go to the working directory that we were started in; false with errno.
bool return_to_start(void);
