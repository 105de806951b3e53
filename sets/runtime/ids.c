#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "failure.h"
#include "ids.h"

#define USER "gcompute-runc"
#define CLAIMS "/run/gcompute-runc/claims"
enum { LOCK_TRIES = 10000, LOCK_PAUSE_NS = 1000000 };

// The first range of the user in a table of `user:first:count`.
static void read_range(const char *table, uint32_t *first, uint32_t *count) {
    FILE *file = fopen(table, "re");
    char line[512];
    while (file && fgets(line, sizeof line, file)) {
        unsigned long long from, many;
        if (sscanf(line, USER ":%llu:%llu", &from, &many) != 2) continue;
        // Neither root's own ids nor the last one, which stands for none.
        if (from < MAPPED_IDS || many > UINT32_MAX || from + many > UINT32_MAX) fail("%s: the range of " USER " is out of bounds", table);
        *first = (uint32_t)from, *count = (uint32_t)many;
        fclose(file);
        return;
    }
    if (file) fclose(file);
    fail("%s gives the user " USER " no ids: add a line such as " USER ":3221225472:536870912", table);
}

// When a process began, in ticks since the boot; 0 if it is gone. With its pid that names a process for ever.
static unsigned long long start_of(int pid) {
    char path[64], stat[1024];
    snprintf(path, sizeof path, "/proc/%d/stat", pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return 0;
    ssize_t len = read(fd, stat, sizeof stat - 1);
    close(fd);
    stat[len > 0 ? len : 0] = 0;
    char *field = strrchr(stat, ')');
    for (int number = 2; field && number < 22; number++) field = strchr(field + 1, ' ');
    return field ? strtoull(field, NULL, 10) : 0;
}

static bool is_held(int claims, const char *name) {
    char claim[4096];
    ssize_t len = readlinkat(claims, name, claim, sizeof claim - 1);
    if (len < 0) return false;
    claim[len] = 0;
    int pid, state_at = 0;
    unsigned long long start;
    // Not ours, so somebody keeps it for a reason.
    if (sscanf(claim, "%d:%llu:%n", &pid, &start, &state_at) != 2 || !state_at) return true;
    // In this order: runc makes its state before it ends.
    return start_of(pid) == start || !access(claim + state_at, F_OK);
}

static int lock_claims(void) {
    if ((mkdir("/run/gcompute-runc", 0755) && errno != EEXIST) || (mkdir(CLAIMS, 0700) && errno != EEXIST))
        fail("can't make the folder " CLAIMS ": %s", strerror(errno));
    int claims = open(CLAIMS, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (claims < 0) fail("can't open the folder " CLAIMS ": %s", strerror(errno));
    for (int tries = 0; flock(claims, LOCK_EX | LOCK_NB); tries++) {
        if (tries == LOCK_TRIES) fail("the lock on " CLAIMS " was not free for 10 s");
        nanosleep(&(struct timespec){.tv_nsec = LOCK_PAUSE_NS}, NULL);
    }
    return claims;
}

struct ids claim_ids(const char *state) {
    struct ids ids = {0};
    uint32_t uids, gids, start;
    read_range("/etc/subuid", &ids.uids.first, &uids);
    read_range("/etc/subgid", &ids.gids.first, &gids);
    uint32_t blocks = (uids < gids ? uids : gids) / BLOCK_IDS;
    if (getrandom(&start, sizeof start, 0) != sizeof start) fail("getrandom: %s", strerror(errno));
    char *claim = text_of("%d:%llu:%s", getpid(), start_of(getpid()), state), name[16];
    int claims = lock_claims();
    // From anywhere, so that the ids of a container that has just ended are rarely those of the next.
    for (uint32_t tries = 0; tries < blocks; tries++) {
        uint32_t block = (uint32_t)((start + (uint64_t)tries) % blocks);
        snprintf(name, sizeof name, "%u", block);
        if (is_held(claims, name)) continue;
        unlinkat(claims, name, 0);
        if (symlinkat(claim, claims, name)) fail("can't write the claim " CLAIMS "/%s: %s", name, strerror(errno));
        // Closing it ends the lock.
        close(claims);
        free(claim);
        ids.uids.first += block * BLOCK_IDS, ids.gids.first += block * BLOCK_IDS;
        return ids;
    }
    fail("all %u blocks of host ids are taken: give the user " USER " more in /etc/subuid and /etc/subgid", blocks);
}

void map_more(struct id_map *map, uint32_t id) {
    if (id < MAPPED_IDS) return;
    for (int i = 0; i < map->more_count; i++)
        if (map->more[i] == id) return;
    if (map->more_count == MORE_IDS) fail("the USER has more than %d ids beyond %d", MORE_IDS, MAPPED_IDS - 1);
    map->more[map->more_count++] = id;
}

char *map_lines(const struct id_map *map) {
    char *lines = text_of("0 %u %d\n", map->first, MAPPED_IDS);
    for (int i = 0; i < map->more_count; i++) {
        char *shorter = lines;
        lines = text_of("%s%u %u 1\n", shorter, map->more[i], map->first + MAPPED_IDS + (uint32_t)i);
        free(shorter);
    }
    return lines;
}

char *map_json(const struct id_map *map) {
    static const char form[] = "{\"containerID\":%u,\"hostID\":%u,\"size\":%d}";
    char *all = text_of(form, 0u, map->first, MAPPED_IDS);
    for (int i = 0; i < map->more_count; i++) {
        char *shorter = all, *one = text_of(form, map->more[i], map->first + MAPPED_IDS + (uint32_t)i, 1);
        all = text_of("%s,%s", shorter, one);
        free(shorter), free(one);
    }
    char *array = text_of("[%s]", all);
    free(all);
    return array;
}
