/* tool: the algorithm of the API's tests. Each word says what to do next, so that a test reads as what its program does.
 *
 *   cat          copy standard input to standard output
 *   sink         read all of standard input and print how many bytes it was
 *   take N       read N bytes of standard input, or less at its end
 *   reopen       copy as cat does, but open /dev/stdin and /dev/stdout again and again, and tell on /dev/stderr how many bytes it was
 *   print N      N bytes of output
 *   grumble N    N bytes on standard error
 *   say TEXT     TEXT and a line end on standard output
 *   warn TEXT    TEXT on standard error
 *   args ...     print the arguments that follow, each ended by a NUL, and stop
 *   env NAME     print a variable
 *   file P TEXT  write a file
 *   hole P N     a file of N bytes that begins with "mine" and is all hole from there on
 *   fill P MIB   a file of so many MiB that are no hole
 *   sleep S      sleep; S may be a fraction
 *   burn MS      use that much CPU time
 *   eat MIB      touch that much memory
 *   child MIB    have a child touch that much memory, wait for its end, and go on
 *   children N   leave N processes behind that hold all descriptors and sleep
 *   mute         close standard output
 *   exit N       end with that status
 *   signal N     end by that signal
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static char buffer[1 << 17];

static void put(int fd, const char *data, size_t size)
{
    while (size) {
        ssize_t n = write(fd, data, size);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) exit(74);
        data += n;
        size -= n;
    }
}

static void rest(double seconds)
{
    struct timespec t = {(time_t)seconds, (long)((seconds - (time_t)seconds) * 1e9)};
    while (nanosleep(&t, &t)) {}
}

static long long drain(int copy, long long most)
{
    long long total = 0;
    while (total < most) {
        size_t want = most - total < (long long)sizeof buffer ? (size_t)(most - total) : sizeof buffer;
        ssize_t n = read(0, buffer, want);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) exit(74);
        if (!n) break;
        if (copy) put(1, buffer, n);
        total += n;
    }
    return total;
}

/* Each piece by descriptors opened for it: by every name that they have, in every way that programs open them. */
static int reopen(void)
{
    static const char *in[] = {"/dev/stdin", "/proc/self/fd/0", "/dev/fd/0", "/proc/thread-self/fd/0"};
    static const char *out[] = {"/dev/stdout", "/proc/self/fd/1", "/dev/fd/1", "/log"};
    static const int how[] = {O_WRONLY, O_WRONLY | O_CREAT | O_TRUNC, O_WRONLY | O_CREAT | O_APPEND, O_RDWR | O_NOCTTY};
    long long total = 0;
    struct stat st;
    for (unsigned i = 0;; i++) {
        int from = open(in[i % 4], O_RDONLY | O_CLOEXEC), to = open(out[i % 4], how[i / 4 % 4] | O_CLOEXEC, 0666);
        if (from < 0 || to < 0 || fstat(from, &st) || !S_ISFIFO(st.st_mode)) return 66;
        ssize_t n = read(from, buffer, sizeof buffer);
        if (n < 0) return 74;
        put(to, buffer, n);
        close(from);
        close(to);
        if (!n) break;
        total += n;
    }
    int to = open("/dev/stderr", O_WRONLY | O_APPEND);
    if (to < 0) return 66;
    dprintf(to, "%lld", total);
    return 0;
}

static void print(int fd, long long size)
{
    memset(buffer, 'x', sizeof buffer);
    while (size > 0) {
        size_t n = size < (long long)sizeof buffer ? (size_t)size : sizeof buffer;
        put(fd, buffer, n);
        size -= n;
    }
}

static void burn(long ms)
{
    while (clock() < ms * (CLOCKS_PER_SEC / 1000)) {}
}

static void eat(long mib)
{
    for (long i = 0; i < mib; i++) {
        char *block = malloc(1 << 20);
        if (!block) exit(12);
        memset(block, 1, 1 << 20);
    }
}

static void child(long mib)
{
    pid_t pid = fork();
    if (!pid) {
        eat(mib);
        _exit(0);
    }
    waitpid(pid, NULL, 0);
}

static void children(int count)
{
    for (int i = 0; i < count; i++)
        if (!fork()) {
            setsid();
            for (;;) pause();
        }
}

static int write_file(const char *path, const char *text, long long size, long mib)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    if (fd < 0) return 73;
    put(fd, text, strlen(text));
    if (size && ftruncate(fd, size)) return 74;
    memset(buffer, 'x', sizeof buffer);
    for (long n = 0; n < mib * 8; n++) put(fd, buffer, sizeof buffer);
    close(fd);
    return 0;
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        const char *word = argv[i];
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        if (!strcmp(word, "cat")) drain(1, 1LL << 60);
        else if (!strcmp(word, "sink")) dprintf(1, "%lld", drain(0, 1LL << 60));
        else if (!strcmp(word, "mute")) close(1);
        else if (!strcmp(word, "reopen")) {
            int failed = reopen();
            if (failed) return failed;
        }
        else if (!strcmp(word, "args")) {
            while (++i < argc) put(1, argv[i], strlen(argv[i]) + 1);
        } else {
            i++;
            if (!strcmp(word, "take")) drain(0, atoll(value));
            else if (!strcmp(word, "print")) print(1, atoll(value));
            else if (!strcmp(word, "grumble")) print(2, atoll(value));
            else if (!strcmp(word, "say")) dprintf(1, "%s\n", value);
            else if (!strcmp(word, "warn")) put(2, value, strlen(value));
            else if (!strcmp(word, "env")) dprintf(1, "%s", getenv(value) ? getenv(value) : "(unset)");
            else if (!strcmp(word, "file") || !strcmp(word, "hole") || !strcmp(word, "fill")) {
                const char *more = ++i < argc ? argv[i] : "";
                int failed = !strcmp(word, "file")   ? write_file(value, more, 0, 0)
                             : !strcmp(word, "hole") ? write_file(value, "mine", atoll(more), 0)
                                                     : write_file(value, "", 0, atol(more));
                if (failed) return failed;
            } else if (!strcmp(word, "sleep")) rest(atof(value));
            else if (!strcmp(word, "burn")) burn(atol(value));
            else if (!strcmp(word, "eat")) eat(atol(value));
            else if (!strcmp(word, "child")) child(atol(value));
            else if (!strcmp(word, "children")) children(atoi(value));
            else if (!strcmp(word, "exit")) return atoi(value);
            else if (!strcmp(word, "signal")) {
                raise(atoi(value));
            } else {
                fprintf(stderr, "tool: %s?", word);
                return 64;
            }
        }
    }
    return 0;
}
