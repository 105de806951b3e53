// The container's files, with its own ids as their owners: the layers of the engine's overlay, each idmapped, under an overlay
// of ours. All of it is mounted in a mount namespace that ends with runc's, so nothing is left to be unmounted.
#pragma once
#include "ids.h"

// Leave the engine's mount namespace, and prepare the mounts of a container with these ids.
void begin_mounts(const struct ids *ids);

// Mount the files of `root`, an overlay of the engine; returns the path of the mount.
const char *mount_root(const char *root);

// Mount a file or folder of the host, idmapped; returns the path of the mount, to be freed. NULL if its file system can't be.
char *mount_bind(const char *source);
