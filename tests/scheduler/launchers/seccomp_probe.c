/* A stand-in for the guest that makes system calls: connects to the socket that it is given as first argument and answers
 * "HOW NUMBER ARGUMENT...", numbers in decimal or hex. HOW is native, int80 or x32. The call is made in a child; the answer
 * is "ok", "errno NAME" or "signal NAME". */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static long call(const char *how, long number, const unsigned long *a) {
#if defined(__x86_64__)
    if (!strcmp(how, "int80")) {
        long result;
        __asm__ volatile("int $0x80" : "=a"(result) : "a"(number), "b"(a[0]), "c"(a[1]), "d"(a[2]) : "memory", "r8", "r9", "r10", "r11");
        if (result >= 0) return result;
        errno = (int)-result;
        return -1;
    }
    if (!strcmp(how, "x32")) number |= 0x40000000;
#else
    (void)how;
#endif
    return syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

static void attempt(const char *how, long number, const unsigned long *arguments, char *answer, size_t size) {
    int result[2], failure = 0, status = 0;
    if (pipe(result)) abort();
    pid_t child = fork();
    if (!child) {
        struct rlimit none = {0, 0};
        setrlimit(RLIMIT_CORE, &none);
        pid_t self = getpid();
        failure = call(how, number, arguments) < 0 ? errno : 0;
        // Where a clone went through there are two of us now.
        if (getpid() == self && write(result[1], &failure, sizeof failure) < 0) abort();
        _exit(0);
    }
    close(result[1]);
    ssize_t got = read(result[0], &failure, sizeof failure);
    close(result[0]);
    waitpid(child, &status, 0);
    if (got != sizeof failure) snprintf(answer, size, "signal %s", sigabbrev_np(WTERMSIG(status)));
    else if (failure) snprintf(answer, size, "errno %s", strerrorname_np(failure));
    else snprintf(answer, size, "ok");
}

int main(int argc, char **argv) {
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    char question[512], answer[64];
    int executor = socket(AF_UNIX, SOCK_SEQPACKET, 0);
    if (argc < 2) return 90;
    strncpy(at.sun_path, argv[1], sizeof at.sun_path - 1);
    if (connect(executor, (void *)&at, sizeof at)) return 91;
    for (;;) {
        unsigned long words[7] = {0};
        ssize_t got = recv(executor, question, sizeof question - 1, 0);
        if (got <= 0) return 0;
        question[got] = 0;
        char *how = strtok(question, " "), *word;
        for (int i = 0; i < 7 && (word = strtok(NULL, " ")); i++) words[i] = strtoul(word, NULL, 0);
        attempt(how, (long)words[0], words + 1, answer, sizeof answer);
        send(executor, answer, strlen(answer), 0);
    }
}
