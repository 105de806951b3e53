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

// Descriptors that came with a message: those of a TASK are the most.
struct riders { int fds[5]; int count; };

// The path of a file beside the executor's socket.
const char *beside_socket(const char *name);
// Connect, for up to a minute, and say HELLO. Ends the guest when that fails.
void connect_executor(void);
// Connect, and wait until the executor has dressed the slot. Ends the guest when that fails.
void await_dressing(void);
// Report that the slot is clean after that. The connection becomes the last of our descriptors.
void report_dressed(void);
// Send a message. False when the executor is lost. None has a descriptor: they go inwards only.
bool tell(struct iovec *parts, size_t count);
// Receive a message: its length, 0 when the executor is lost, -1 when there is none.
ssize_t hear(void *buffer, size_t size, int flags, struct riders *riders);
