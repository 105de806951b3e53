// The filter that the guest and every program bear.
#pragma once

// Keep programs from our limits and priority, and have the kernel ask us for netlink sockets.
void guard(void);
