// The guest itself: how it ends, its CPU time, its descriptors, and its files in /proc that others can write.
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <sys/resource.h>

enum { EXIT_RETIRED = 0, EXIT_USAGE = 2, EXIT_NO_EXECUTOR = 3, EXIT_MALFORMED = 4, EXIT_UNCLEAN = 5 };

void __attribute__((noreturn)) malformed(void);
void __attribute__((noreturn)) unusable(const char *what, const char *why);

uint64_t now_us(void);
uint64_t cpu_us(const struct rusage *usage);
// Our own CPU time since the last call.
uint64_t own_cpu_us(void);

// Close *fd, if it is open, and set it to -1.
void shut(int *fd);
// Close all from `first` on; `most` is how many there can be, for a kernel without close_range.
void close_from(int first, int most);

// Files in /proc by which a program that is root could change us, and leave a message for the next one.
void take_traits(void);
bool put_traits_back(void);
