// Burns CPU time in the ways that make accounting by wait4 go wrong: burner MODE MILLISECONDS.
// Or leaves its stdout in flight: burner flight 0; or a deep tree: burner deep 0
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static long each_ms;

static void burn(void) {
    struct timespec t;
    do clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    while (t.tv_sec * 1000 + t.tv_nsec / 1000000 < each_ms);
}

static void *burn_thread(void *unused) {
    burn();
    return unused;
}

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    int parts = 4, done[2];
    long all_ms = atol(argv[2]);
    each_ms = all_ms / parts;
    if (!strcmp(argv[1], "deep")) {
        // Folders within folders, for the guest to remove.
        for (int i = 0; i < 30000; i++)
            if (chdir(i ? "d" : "/tmp") || mkdir("d", 0700)) return 4;
    } else if (!strcmp(argv[1], "single")) {
        each_ms = all_ms;
        burn();
    } else if (!strcmp(argv[1], "threads")) {
        pthread_t threads[4];
        for (int i = 0; i < parts; i++) pthread_create(&threads[i], NULL, burn_thread, NULL);
        for (int i = 0; i < parts; i++) pthread_join(threads[i], NULL);
    } else if (!strcmp(argv[1], "processes")) {
        for (int i = 0; i < parts; i++)
            if (!fork()) {
                burn();
                _exit(0);
            }
        while (wait(NULL) > 0);
    } else if (!strcmp(argv[1], "ignored")) {
        // The kernel reaps them itself: nobody's wait4 hears of what they used.
        signal(SIGCHLD, SIG_IGN);
        for (int i = 0; i < parts; i++)
            if (!fork()) {
                burn();
                _exit(0);
            }
        while (wait(NULL) > 0);
    } else if (!strcmp(argv[1], "orphans")) {
        // Daemons that outlive their parents; the last writer's end tells that all are done.
        if (pipe(done)) return 3;
        for (int i = 0; i < parts; i++)
            if (!fork()) {
                setsid();
                if (!fork()) burn();
                _exit(0);
            }
        close(done[1]);
        while (wait(NULL) > 0);
        char c;
        while (read(done[0], &c, 1) > 0);
    } else if (!strcmp(argv[1], "left")) {
        // Still burning when the program ends: killed with it, and billed up to then.
        for (int i = 0; i < parts; i++)
            if (!fork()) {
                setsid();
                for (;;) burn();
            }
        struct timespec t = {all_ms / 1000, all_ms % 1000 * 1000000};
        nanosleep(&t, NULL);
    } else if (!strcmp(argv[1], "flight")) {
        // A socket that holds itself, and our stdout: only the kernel's collector of such rings can close it.
        char block[65536] = {0};
        for (int i = 0; i < 4; i++)
            if (write(1, block, sizeof block) != sizeof block) return 3;
        int ring[2];
        union { char space[CMSG_SPACE(3 * sizeof(int))]; struct cmsghdr align; } control = {0};
        struct iovec part = {block, 1};
        struct msghdr m = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
        if (socketpair(AF_UNIX, SOCK_STREAM, 0, ring)) return 4;
        int fds[3] = {ring[0], ring[1], 1};
        struct cmsghdr *c = CMSG_FIRSTHDR(&m);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof fds);
        memcpy(CMSG_DATA(c), fds, sizeof fds);
        if (sendmsg(ring[0], &m, 0) != 1) return 5;
    } else
        return 2;
    return write(1, "burnt\n", 6) != 6;
}
