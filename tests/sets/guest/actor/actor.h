// The program that the guest runs in these tests: static, does one thing named by its first argument. `actor.c` lists the names.
#pragma once
#include <stddef.h>

extern char **args;
extern int arg_count;

// The argument at this place, as a number; 0 without it.
long number(int i);
// The argument at this place; "" without it.
const char *text(int i);
// Say which call failed, and end with 99.
void fail(const char *what);
void must(int ok, const char *what);
void write_all(int fd, const void *data, size_t size);
void doze(long ms);

// streams.c
void writing(void);
void copying(void);
void pour(void);
void steal(void);

// processes.c
void orphans(void);
void daemonise(void);
void crowd(void);
void ignore_children(void);
void churn(void);
void eat(void);
void fill(void);

// folders.c
void deep(void);
void many(void);
void closed(void);
void names(void);
void spoil(void);
void look(void);
void outputs(void);
void store(void);
void stored(void);

// init.c
void descriptors(void);
void signals(void);
void tamper(void);
void mark(void);
void limit(void);
void inherited(void);
void facts(void);

// netlink.c
void netlink(void);
void listen_first(void);
