// What the guest does about itself: how it ends, its time, its descriptors, and what others could write of it in /proc.
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <sys/resource.h>

enum { EXIT_RETIRED = 0, EXIT_USAGE = 2, EXIT_NO_EXECUTOR = 3, EXIT_MALFORMED = 4, EXIT_UNCLEAN = 5, EXIT_FEW_DESCRIPTORS = 6 };

void __attribute__((noreturn)) malformed(void);
void __attribute__((noreturn)) unusable(const char *what, const char *why);

uint64_t now_us(void);
uint64_t cpu_us(const struct rusage *usage);
// Our own CPU time since the last call.
uint64_t own_cpu_us(void);

// Close *fd, if it is open, and set it to -1.
void shut(int *fd);
// Close all from `first` on; `most` is how many there can be where the kernel does not help.
void close_from(int first, int most);

// What a program that is root may change about us in /proc, where the next one would read it.
void take_traits(void);
bool put_traits_back(void);
