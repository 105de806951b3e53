// Bytes that we move between a pipe of the program's and one of the executor's.
#pragma once
#include <poll.h>
#include <stdbool.h>

// Both ends are ours, or both are -1 once either side has ended.
struct flow {
    int from, to;
    bool full;  // it waits for room, not for bytes
};

// The descriptor that it waits for.
struct pollfd wait_for(const struct flow *f);
// Move what there is, without waiting. Closes both ends when nobody writes any more, or nobody reads.
void move(struct flow *f);
void stop(struct flow *f);
