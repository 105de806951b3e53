// The host ids of a container: a block of its own out of those that /etc/subuid and /etc/subgid give the user
// `gcompute-runc`.
#pragma once
#include <stdint.h>

// The container's ids from 0 to 65535 are the first half of its block. Ids beyond that its USER has take one each of the second.
enum { BLOCK_IDS = 131072, MAPPED_IDS = 65536, MORE_IDS = 64 };

struct id_map { uint32_t first, more[MORE_IDS]; int more_count; };
struct ids { struct id_map uids, gids; };

// Claim a block for the container whose state runc keeps in `state`. The claim holds while this process (and runc, which
// takes its place) lives, and then for as long as `state` exists. So nothing has to free it.
struct ids claim_ids(const char *state);

// Have an id of the container be mapped, too, if it is beyond MAPPED_IDS. Fails if there are too many.
void map_more(struct id_map *map, uint32_t id);

// The map in the form of /proc/PID/uid_map, to be freed.
char *map_lines(const struct id_map *map);
// The map as `linux.uidMappings` has it, to be freed.
char *map_json(const struct id_map *map);
