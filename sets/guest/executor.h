// The connection to the executor, and messages over it.
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "protocol.h"

extern int executor;
extern const char *socket_path;
extern char token[TOKEN_BYTES];
// The number of the last task of this connection.
extern uint32_t last_task;

#define CONNECT_FIRST_MS 10

// Connect, for up to a minute, and say HELLO. Ends the guest when that fails.
void connect_executor(void);
// Send a message. False when the executor is lost.
bool tell(struct iovec *parts, size_t count, const int *fds, size_t fd_count);
// Receive a message: its length, 0 when the executor is lost, -1 when there is none. A descriptor that comes with it goes to *fd.
ssize_t hear(void *buffer, size_t size, int flags, int *fd);
