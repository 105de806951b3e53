/* attempt: the algorithm of the crash rig. Its output proves that one attempt, and only one, made it.
 *
 *     attempt MARK BURN_MS REST_MS
 *
 * Prints the line "ATTEMPT MARK", where ATTEMPT is a random name; copies standard input; uses BURN_MS of CPU
 * time; sleeps for REST_MS; and ends with the line "ATTEMPT CPU_US END_US": the CPU time that it used, and the time since
 * the machine's start. A mixture of two attempts has two different names in it.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

static char buffer[1 << 16];

static void put(const char *data, ssize_t size)
{
    while (size > 0) {
        ssize_t n = write(1, data, size);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) exit(74);
        data += n;
        size -= n;
    }
}

static long long now_us(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return t.tv_sec * 1000000LL + t.tv_nsec / 1000;
}

int main(int argc, char **argv)
{
    unsigned long long name;
    if (argc != 4 || getrandom(&name, sizeof name, 0) != sizeof name) return 64;
    put(buffer, snprintf(buffer, sizeof buffer, "%016llx %s\n", name, argv[1]));
    for (;;) {
        ssize_t n = read(0, buffer, sizeof buffer);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return 74;
        if (!n) break;
        put(buffer, n);
    }
    while (now_us(CLOCK_PROCESS_CPUTIME_ID) < atoll(argv[2]) * 1000) {}
    long long rest_ms = atoll(argv[3]);
    struct timespec rest = {rest_ms / 1000, rest_ms % 1000 * 1000000};
    while (nanosleep(&rest, &rest)) {}
    long long cpu_us = now_us(CLOCK_PROCESS_CPUTIME_ID);
    put(buffer, snprintf(buffer, sizeof buffer, "\n%016llx %lld %lld\n", name, cpu_us, now_us(CLOCK_BOOTTIME)));
    return 0;
}
