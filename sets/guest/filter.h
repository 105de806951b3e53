// The seccomp filter of the guest and of every program.
#pragma once

// Keep programs from our limits and priority, and have the kernel ask us for netlink sockets.
void guard(void);
