// The image's program: how it is started, and how it and all that it started are reaped.
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "protocol.h"

// The running task, or the program that waits for one.
struct run {
    uint32_t number;
    pid_t pid;
    int in;
    const unsigned char *in_data;
    uint32_t in_left;
    bool killed;
    bool handed_over, has_pipes, is_direct;  // its outputs are the executor's; their pipes have come; the program has them itself
    bool ended, alone;  // the program has been reaped; every other process has, too
    int status;
    uint64_t reaped_cpu_us, max_rss_kib;
};
extern struct run run;

// Its arguments; the container's environment, and the program's own.
extern char *argv[STRINGS_COUNT + 1], **base_env, **envp;
// The path of the program that was started last, and why it could not be.
extern const char *tried;
extern uint8_t why;
// A signalfd for SIGCHLD.
extern int children;

// Read the oom score that the launcher chose for us: the program gets a higher one, so that the kernel kills it first.
void take_oom_score(void);
// Read how many descriptors the program gets. Ends the guest if it may not have enough itself.
void take_descriptors(const char *of_program);
// Why a file cannot be executed, as far as its content shows; WHY_UNKNOWN also if it does not exist. `error` is execve's.
uint8_t why_not(const char *path, int error);
// Start the program with these as stdin, stdout and stderr. Returns 0; the errno of a failed exec; or, negative, the errno of a
// failure before it, which is the machine's fault and not the program's.
int spawn(int in, int o, int e);
// Reap the processes that have ended. True when no other process is left in the container: we are an ancestor of every one.
bool reap(int flags);
// Kill and reap everything else.
void kill_all(void);
