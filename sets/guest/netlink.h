// Netlink sockets. The kernel charges unread messages in them to no cgroup, so the guest bounds their number. A filter makes the
// kernel ask the guest for each one; the guest makes it and hands it over. So the count is exact, however many threads ask at once.
#pragma once
#include <stdbool.h>
#include <stdint.h>

// The descriptor by which the kernel asks, or -1 if it cannot; and the secret that lets the guest's own calls pass the filter.
extern int netlink_asked;
extern uint64_t netlink_word;

// Open the kernel's count of these sockets, and choose the secret; before the filter is installed. False if there is no count.
bool prepare_netlink(void);
// Compute how many sockets may live; after the filter is installed.
void measure_netlink(void);
// Answer one thread that asks for a socket.
void answer_netlink(void);
