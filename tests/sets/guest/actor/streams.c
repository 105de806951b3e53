// Streams: what the program reads and writes.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "actor.h"

// Byte i of the pattern is a byte of the number i / 4, counted from `from`.
static void write_pattern(int fd, unsigned from, size_t at, size_t size) {
    static unsigned char data[65536];
    for (size_t i = 0; i < size; i++) {
        unsigned n = from + (unsigned)((at + i) / 4);
        data[i] = (unsigned char)(n >> (at + i) % 4 * 8);
    }
    write_all(fd, data, size);
}

// write SEED STDOUT_BYTES STDERR_BYTES: in pieces of random sizes, in random order.
void writing(void) {
    size_t left[2] = {(size_t)number(2), (size_t)number(3)}, at[2] = {0, 0};
    srandom((unsigned)number(1));
    while (left[0] || left[1]) {
        int which = !left[0] ? 1 : !left[1] ? 0 : random() & 1;
        size_t size = random() & 3 ? (size_t)random() % 65536 + 1 : (size_t)random() % 16 + 1;
        if (size > left[which]) size = left[which];
        write_pattern(which + 1, which ? 1u << 24 : 0, at[which], size);
        at[which] += size;
        left[which] -= size;
    }
}

void copying(void) {
    static char data[65536];
    for (ssize_t n; (n = read(0, data, sizeof data));) {
        must(n > 0, "read");
        write_all(1, data, (size_t)n);
    }
}

void pour(void) {
    for (;;) write_all(1, "poured\n", 7);
}

// Take the output's bytes away from its reader, for a while.
void steal(void) {
    char data[4096];
    int own = open("/proc/self/fd/1", O_RDONLY | O_NONBLOCK);
    must(own >= 0, "own pipe");
    for (int i = 0; i < 20000; i++) {
        write_all(1, "x", 1);
        if (read(own, data, sizeof data) < 0 && errno != EAGAIN) fail("read");
    }
}
