// What the next task looks for: anything that a task before it may have left.
#include "hostile.h"
#include <dirent.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/xattr.h>
#include <sys/inotify.h>

static void must_be_empty(const char *path) {
    DIR *dir = opendir(path);
    if (!dir) {
        if (errno == ENOENT) return;
        breach("%s cannot be opened: %s", path, strerror(errno));
    }
    for (struct dirent *e; (e = readdir(dir));)
        if (strcmp(e->d_name, ".") && strcmp(e->d_name, "..")) breach("%s holds %s", path, e->d_name);
    closedir(dir);
}

CASE(residue, "looks for whatever an earlier task left", "contained", "nothing of one task is seen by the next") {
    char text[256];
    must_be_empty("/tmp");
    must_be_empty("/dev/shm");
    must_be_empty("/dev/mqueue");
    DIR *proc = opendir("/proc");
    for (struct dirent *e; proc && (e = readdir(proc));) {
        long pid = strtol(e->d_name, NULL, 10);
        if (pid > 1 && pid != getpid()) breach("process %ld lives", pid);
    }
    const char *places[] = {"/tmp", "/dev/shm"};
    for (size_t i = 0; i < 2; i++) {
        struct stat st;
        if (stat(places[i], &st) || (st.st_mode & 07777) != 01777) breach("%s has mode %o", places[i], st.st_mode & 07777);
        if (getxattr(places[i], "user.message", text, sizeof text) >= 0) breach("%s bears an attribute", places[i]);
        snprintf(text, sizeof text, "%s/probe", places[i]);
        int fd = open(text, O_CREAT | O_EXCL | O_RDWR, 0666);
        if (fd < 0) breach("%s cannot be written: %s", places[i], strerror(errno));
        static char block[1 << 20];
        if (write(fd, block, sizeof block) != sizeof block) breach("%s has no room", places[i]);
        if (flock(fd, LOCK_EX | LOCK_NB)) breach("a lock is held");
    }
    if (syscall(SYS_keyctl, 11 /* read */, -3, text, sizeof text) > 0) breach("the session keyring holds keys");
    const char *tables[] = {"/proc/sysvipc/shm", "/proc/sysvipc/sem", "/proc/sysvipc/msg", "/proc/net/unix",
                            "/proc/net/tcp", "/proc/net/tcp6", "/proc/net/udp", "/proc/net/udp6"};
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++) {
        FILE *table = fopen(tables[i], "re");
        int lines = 0;
        while (table && fgets(text, sizeof text, table)) {
            if (lines++ && i != 3) breach("%s: %s", tables[i], text);
            if (i == 3 && strchr(text, '@')) breach("an abstract socket: %s", text);
        }
        if (table) fclose(table);
    }
    int watcher = inotify_init1(IN_CLOEXEC);
    // Slots have no inotify at all (seccomp): what is not there cannot be used up.
    if ((watcher >= 0 || errno != ENOSYS) && inotify_add_watch(watcher, "/tmp", IN_CREATE) < 0)
        breach("no inotify watch is left: %s", strerror(errno));
    int p[2];
    if (pipe(p) || write(p[1], "x", 1) != 1) breach("no pipe is left: %s", strerror(errno));
    pid_t pid = fork();
    if (pid == 0) _exit(0);
    if (pid < 0 || waitpid(pid, NULL, 0) != pid) breach("no process is left: %s", strerror(errno));
    sigset_t pending;
    sigpending(&pending);
    for (int s = 1; s < 65; s++)
        if (sigismember(&pending, s) > 0) breach("signal %d is pending", s);
}

// Needs what others may have used up, and says which; it runs while a program of another account holds all it can.
CASE(neighbour, "needs a little of everything while another slot holds all it can get", "contained", "limits per user of the host reach across slots") {
    static char block[60000];
    int p[2];
    for (int i = 0; i < 8; i++) {
        if (pipe(p)) breach("pipe: %s", strerror(errno));
        if (write(p[1], block, 4096) != 4096) breach("a pipe holds less than a page");
    }
    // Queued signals are counted per user of the host with one limit for all: SECURITY.md says what that leaves. Only where
    // slots have user namespaces (`signals`) has each its own. The others, which are not queued, must arrive.
    signal(SIGUSR1, SIG_IGN);
    if (kill(getpid(), SIGUSR1)) breach("kill: %s", strerror(errno));
    sigset_t queued;
    sigemptyset(&queued);
    sigaddset(&queued, SIGRTMIN + 1);
    sigprocmask(SIG_BLOCK, &queued, NULL);
    for (int i = 0; argc > 0 && !strcmp(argv[0], "signals") && i < 1000; i++)
        if (sigqueue(getpid(), SIGRTMIN + 1, (union sigval){0})) breach("%d signals queued: %s", i, strerror(errno));
    int watcher = inotify_init1(IN_CLOEXEC);
    if ((watcher >= 0 || errno != ENOSYS) && inotify_add_watch(watcher, "/tmp", IN_CREATE) < 0)
        breach("inotify: %s", strerror(errno));
    for (int i = 0; i < 8; i++) {
        pid_t pid = fork();
        if (pid == 0) _exit(0);
        if (pid < 0) breach("fork: %s", strerror(errno));
        waitpid(pid, NULL, 0);
    }
    int fd = open("/tmp/mine", O_CREAT | O_RDWR, 0666);
    if (fd < 0 || write(fd, block, sizeof block) != sizeof block) breach("/tmp: %s", strerror(errno));
    struct flock lock = {.l_type = F_WRLCK, .l_len = 1};
    if (fcntl(fd, F_SETLK, &lock)) breach("a lock: %s", strerror(errno));
}

// Sends itself descriptors until it may send no more; how many it sent.
static long park(void) {
    int pair[2], fds[253], room = 1 << 24;
    long parked = 0;
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair)) return 0;
    setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
    for (int i = 0; i < 253; i++) fds[i] = pair[0];
    for (;;) {
        static union { char space[CMSG_SPACE(sizeof fds)]; struct cmsghdr align; } control;
        struct iovec part = {"x", 1};
        struct msghdr m = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
        struct cmsghdr *c = CMSG_FIRSTHDR(&m);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof fds);
        memcpy(CMSG_DATA(c), fds, sizeof fds);
        if (sendmsg(pair[0], &m, MSG_DONTWAIT) == 1) parked += 253;
        else if (errno != EAGAIN || socketpair(AF_UNIX, SOCK_STREAM, 0, pair)) return parked;
    }
}

CASE(parker, "parks descriptors in flight, from many processes at once, and stays", "timed_out", "the kernel counts them per user of the host") {
    int begin[2], done[2];
    char byte;
    long parked;
    if (pipe(begin) || pipe(done)) broken("pipe");
    for (int i = 0; i < 64; i++)
        if (fork() == 0) {
            close(begin[1]);
            if (read(begin[0], &byte, 1) < 0) _exit(1);
            parked = park();
            if (write(done[1], &parked, sizeof parked) < 0) _exit(1);
            for (;;) pause();
        }
    close(begin[1]);
    long all = 0;
    for (int i = 0; i < 64 && read(done[0], &parked, sizeof parked) == sizeof parked; i++) all += parked;
    if (all < 4000) broken("parked only %ld", all);
    printf("holding %ld\n", all);
    fflush(stdout);
    for (;;) pause();
}

OUTPUTS(carrier, "/tmp/kept /tmp/other", "mine", "brings a large input, has files kept and writes much, beside a parker", "contained", "see parker") {
    static char block[65536];
    size_t size = 0;
    for (ssize_t n; (n = read(0, block, sizeof block)); size += (size_t)n)
        if (n < 0) broken("read");
    const char *paths[] = {"/tmp/kept", "/tmp/other"};
    for (int i = 0; i < 2; i++) {
        int fd = open(paths[i], O_CREAT | O_WRONLY | O_CLOEXEC, 0666);
        if (fd < 0 || write(fd, "mine\n", 5) != 5) broken("%s", paths[i]);
        close(fd);
    }
    for (size_t n = 0; n < size; n += sizeof block)
        if (write(1, block, sizeof block) != sizeof block) broken("write");
}

// Takes epoll watches until there are no more; the errno that says so.
static int watch(void) {
    enum { TARGETS = 2000 };
    static int targets[TARGETS];
    struct epoll_event event = {.events = EPOLLIN};
    for (int i = 0; i < TARGETS; i++)
        if ((targets[i] = eventfd(0, 0)) < 0) return errno;
    for (int loop; (loop = epoll_create1(0)) >= 0;)
        for (int i = 0; i < TARGETS; i++)
            if (epoll_ctl(loop, EPOLL_CTL_ADD, targets[i], &event)) return errno;
    return errno;
}

CASE(watcher, "takes all epoll watches that its user may have, and stays", "timed_out", "the kernel counts them per user of the host") {
    int done[2], error = 0, ends = 0;
    if (pipe(done)) broken("pipe");
    for (int i = 0; i < 4; i++)
        if (fork() == 0) {
            error = watch();
            if (write(done[1], &error, sizeof error) < 0) _exit(1);
            for (;;) pause();
        }
    while (ends < 4 && error != ENOSPC && read(done[0], &error, sizeof error) == sizeof error) ends++;
    errno = error;
    if (error != ENOSPC) broken("not all watches");
    printf("holding\n");
    fflush(stdout);
    for (;;) pause();
}

static long queue_signals(void) {
    long count = 0;
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, NULL);
    while (!sigqueue(getpid(), SIGRTMIN, (union sigval){0})) count++;
    return count;
}

// A user who has no pages left gets smaller pipes.
static long take_whole_pipes(void) {
    long count = 0;
    for (int p[2]; !pipe(p) && fcntl(p[0], F_GETPIPE_SZ) == 65536;) count++;
    return count;
}

static long take_watches(void) {
    enum { LOOPS = 20, TARGETS = 400 };
    struct epoll_event event = {.events = EPOLLIN};
    int targets[TARGETS];
    long count = 0;
    for (int i = 0; i < TARGETS; i++)
        if ((targets[i] = eventfd(0, 0)) < 0) return count;
    for (int k = 0, loop; k < LOOPS && (loop = epoll_create1(0)) >= 0; k++)
        for (int i = 0; i < TARGETS; i++, count++)
            if (epoll_ctl(loop, EPOLL_CTL_ADD, targets[i], &event)) return count;
    return count;
}

CASE(counters, "counts what it gets of that which the kernel counts per user; with `hold` it stays", "contained", "slots with host ids of their own share none of it") {
    static const struct { const char *name; long (*take)(void); } all[] = {{"signals", queue_signals}, {"in_flight", park}, {"pipes", take_whole_pipes}, {"watches", take_watches}};
    bool stays = argc > 0 && !strcmp(argv[0], "hold");
    if (stays) printf("holding\n");
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        int done[2];
        long count;
        if (pipe(done)) broken("pipe");
        pid_t pid = fork();
        if (pid == 0) {
            count = all[i].take();
            if (write(done[1], &count, sizeof count) < 0) _exit(1);
            for (;;) pause();
        }
        if (pid < 0 || read(done[0], &count, sizeof count) != sizeof count) broken("%s", all[i].name);
        printf("%s %ld\n", all[i].name, count);
    }
    if (!stays) exit(0);
    fflush(stdout);
    for (;;) pause();
}

// Holds whatever it can get of one thing, says so, and stays until it is ended.
CASE(holder, "takes all it can of everything that the kernel counts per user, and stays", "timed_out", "see neighbour") {
    static char block[65536];
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, NULL);
    union sigval value = {0};
    while (!sigqueue(getpid(), SIGRTMIN, value)) {}
    while (inotify_init1(0) >= 0) {}
    for (int i = 0; i < 60; i++) lingering_child();
    for (int p[2]; !pipe(p);) {
        fcntl(p[1], F_SETPIPE_SZ, 1 << 20);
        fcntl(p[1], F_SETFL, O_NONBLOCK);
        while (write(p[1], block, sizeof block) > 0) {}
    }
    if (write(1, "holding\n", 8) != 8) _exit(1);
    for (;;) pause();
}
