// The program that the guest runs in these tests: static, does one thing named by its first argument.
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/netlink.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

static char **args;
static int arg_count;

static long number(int i) { return i < arg_count ? atol(args[i]) : 0; }
static const char *text(int i) { return i < arg_count ? args[i] : ""; }

static void fail(const char *what) {
    perror(what);
    exit(99);
}

static void must(int ok, const char *what) {
    if (!ok) fail(what);
}

static void write_all(int fd, const void *data, size_t size) {
    for (const char *at = data; size;) {
        ssize_t n = write(fd, at, size);
        must(n > 0, "write");
        at += n;
        size -= (size_t)n;
    }
}

static void doze(long ms) {
    struct timespec t = {ms / 1000, ms % 1000 * 1000000};
    nanosleep(&t, NULL);
}

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
static void writing(void) {
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

static void copying(void) {
    static char data[65536];
    for (ssize_t n; (n = read(0, data, sizeof data));) {
        must(n > 0, "read");
        write_all(1, data, (size_t)n);
    }
}

static void descriptors(void) {
    for (int fd = 0; fd < 1024; fd++)
        if (fcntl(fd, F_GETFD) >= 0) printf("%d ", fd);
}

static void signals(void) {
    struct { void *handler; unsigned long flags; void *restorer; unsigned long mask; } action;
    unsigned long blocked = 0;
    syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, &blocked, 8);
    printf("blocked %lx;", blocked);
    for (int i = 1; i <= 64; i++)
        if (!syscall(SYS_rt_sigaction, i, NULL, &action, 8) && action.handler) printf(" %d", i);
    sigset_t pending;
    sigpending(&pending);
    printf("; pending");
    for (int i = 1; i <= 64; i++)
        if (sigismember(&pending, i) == 1) printf(" %d", i);
}

static void pour(void) {
    for (;;) write_all(1, "poured\n", 7);
}

// Fork N children that go on when this one exits.
static void orphans(void) {
    for (long i = number(1); i > 0; i--) {
        pid_t pid = fork();
        must(pid >= 0, "fork");
        if (!pid) pour();
    }
    doze(20);
}

// daemon FILE: a process far away that goes on writing into FILE.
static void daemonise(void) {
    int ready[2];
    char c;
    must(!pipe(ready), "pipe");
    if (!fork()) {
        setsid();
        if (fork()) _exit(0);
        signal(SIGHUP, SIG_IGN);
        signal(SIGTERM, SIG_IGN);
        int null = open("/dev/null", O_RDWR);
        for (int i = 0; i < 3; i++) dup2(null, i);
        int fd = open(text(1), O_WRONLY | O_CREAT | O_APPEND, 0600);
        write_all(ready[1], "x", 1);
        for (;;) {
            write_all(fd, "alive", 5);
            doze(1);
        }
    }
    must(read(ready[0], &c, 1) == 1, "read");
    printf("started");
}

// Fork as often as the kernel allows, and say how often.
static void crowd(void) {
    long count = 0, most = number(1);
    while (count < most) {
        pid_t pid = fork();
        if (pid < 0) break;
        if (!pid) for (;;) pause();
        count++;
    }
    printf("%ld", count);
}

// Processes that end without their parent waiting for them.
static void ignore_children(void) {
    signal(SIGCHLD, SIG_IGN);
    for (long i = number(1); i > 0; i--) {
        pid_t pid = fork();
        must(pid >= 0, "fork");
        if (!pid) {
            if (!fork()) doze(2);
            _exit(7);
        }
    }
    doze(20);
    printf("done");
}

// churn N: N orphans, one after the other, which end at once: they must be reaped while this one runs.
static void churn(void) {
    for (long i = number(1); i > 0; i--) {
        pid_t pid = fork();
        must(pid >= 0, "fork");
        if (!pid) {
            if (!fork()) _exit(0);
            _exit(0);
        }
        must(waitpid(pid, NULL, 0) == pid, "waitpid");
    }
    printf("done");
}

// ---- making a mess of FOLDER

static void enter(const char *folder) { must(!chdir(folder), folder); }

// deep FOLDER DEPTH
static void deep(void) {
    enter(text(1));
    for (long i = number(2); i > 0; i--) {
        must(!mkdir("d", 0700) && !chdir("d"), "mkdir");
        if (i % 1000 == 0) must(open("file", O_CREAT | O_WRONLY, 0600) >= 0, "file");
    }
}

// many FOLDER COUNT
static void many(void) {
    char name[32];
    enter(text(1));
    for (long i = number(2); i > 0; i--) {
        snprintf(name, sizeof name, "%ld", i);
        int fd = open(name, O_CREAT | O_WRONLY, 0);
        must(fd >= 0, name);
        close(fd);
    }
}

// closed FOLDER: folders that their owner may neither read nor enter nor write to.
static void closed(void) {
    enter(text(1));
    must(!mkdir("a", 0700) && !mkdir("a/b", 0700) && !mkdir("a/b/c", 0700) && !mkdir("e", 0), "mkdir");
    must(close(open("a/b/c/file", O_CREAT | O_WRONLY, 0)) == 0, "file");
    must(!symlink("/", "a/b/root") && !symlink("nowhere", "link") && !mkfifo("fifo", 0), "symlink");
    must(!link("a/b/c/file", "a/hard"), "link");
    must(!chmod("a/b/c", 0) && !chmod("a/b", 0100) && !chmod("a", 0), "chmod");
}

// names FOLDER: files and folders of 255 arbitrary bytes, nested, and the names that the guest itself would choose.
static void names(void) {
    char name[256];
    enter(text(1));
    for (int round = 0; round < 3; round++) {
        for (int first = 1; first < 256; first++) {
            if (first == '/') continue;
            memset(name, first, 255);
            name[255] = 0;
            for (int i = 1; i < 255; i++) name[i] = (char)(i * first % 255 + 1 == '/' ? 'x' : i * first % 255 + 1);
            must(first % 2 ? !mkdir(name, 0700) : !close(open(name, O_CREAT | O_WRONLY, 0600)), "name");
        }
        for (int i = 0; i < 64; i++) {
            snprintf(name, sizeof name, ".gc-%d", i);
            must(i % 2 ? !mkdir(name, 0700) : !close(open(name, O_CREAT | O_WRONLY, 0600)), name);
        }
        must(!mkdir("...", 0700) && !mkdir("..x", 0700) && !mkdir("-rf", 0700), "mkdir");
        must(!mkdir("nested", 0700) && !chdir("nested"), "nested");
    }
}

// spoil FOLDER: change the folder itself.
static void spoil(void) {
    const struct timespec times[2] = {{123, 456}, {789, 12}};
    // A tmpfs keeps them from Linux 6.6 on.
    must(!setxattr(text(1), "user.left", "behind", 6, 0) || errno == EOPNOTSUPP, "setxattr");
    must(!utimensat(AT_FDCWD, text(1), times, 0), "utimensat");
    must(!chmod(text(1), 0), "chmod");
}

static void look(void) {
    struct stat st;
    char list[256];
    must(!stat(text(1), &st), text(1));
    printf("%o %u:%u %zd %ld", st.st_mode, st.st_uid, st.st_gid, listxattr(text(1), list, sizeof list), (long)st.st_mtime);
    DIR *dir = opendir(text(1));
    must(dir != NULL, text(1));
    for (struct dirent *entry; (entry = readdir(dir));)
        if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, "..")) printf(" %s", entry->d_name);
}

// outputs FOLDER: everything that an output file may turn out to be.
static void outputs(void) {
    enter(text(1));
    int fd = open("regular", O_CREAT | O_WRONLY, 0600);
    write_all(fd, "content", 7);
    must(!symlink("regular", "link") && !mkfifo("fifo", 0600) && !mkdir("folder", 0700), "outputs");
    must(!symlink("folder", "linked") && !close(open("folder/inner", O_CREAT | O_WRONLY, 0600)), "outputs");
    must(!close(open("secret", O_CREAT | O_WRONLY, 0)), "outputs");
}

// Change what later programs would inherit of process 1, and send it what signals there are.
static void tamper(void) {
    struct rlimit none = {0, 0};
    struct sched_param idle = {0};
    cpu_set_t cpus;
    CPU_ZERO(&cpus);
    CPU_SET(0, &cpus);
    printf("%d", syscall(SYS_prlimit64, 1, RLIMIT_NOFILE, &none, NULL) == 0);
    printf("%d", syscall(SYS_prlimit64, 1, RLIMIT_CPU, &none, NULL) == 0);
    printf("%d", setpriority(PRIO_PROCESS, 1, 19) == 0);
    printf("%d", setpriority(PRIO_PGRP, 1, 19) == 0);
    printf("%d", setpriority(PRIO_USER, getuid(), 19) == 0);
    printf("%d", sched_setaffinity(1, sizeof cpus, &cpus) == 0);
    printf("%d", sched_setscheduler(1, SCHED_IDLE, &idle) == 0);
    printf("%d", syscall(SYS_ioprio_set, 1, 1, 3 << 13) == 0);
    printf("%d", syscall(SYS_ioprio_set, 3, getuid(), 3 << 13) == 0);
    printf("%d", open("/proc/1/mem", O_RDWR) >= 0 || open("/proc/1/environ", O_RDONLY) >= 0);
    for (int i = 1; i <= 64; i++)
        if (i != SIGKILL && i != SIGSTOP) kill(1, i);
}

// What process 1 bears that a program which is root may write to; not every kernel has each, and a process in whose
// session nobody ever called setsid has an empty autogroup.
static const char *const TRAITS[] = {"/proc/1/autogroup", "/proc/1/coredump_filter"};

static void print_traits(void) {
    for (size_t i = 0; i < 2; i++) {
        char line[128] = "none\n";
        FILE *trait = fopen(TRAITS[i], "r");
        if (trait && !fgets(line, sizeof line, trait)) must(!ferror(trait), TRAITS[i]);
        if (trait) fclose(trait);
        printf("%s", line);
    }
}

// Leave a word there.
static void mark(void) {
    for (size_t i = 0; i < 2; i++) {
        int fd = open(TRAITS[i], O_WRONLY);
        // The kernel changes autogroups ten times a second at most.
        while (fd >= 0 && write(fd, "7", 1) < 0 && errno == EAGAIN) doze(10);
    }
    print_traits();
}

// How many descriptors it may have, soft and hard, and whether it could have one more.
static void limit(void) {
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    struct rlimit more = {files.rlim_max + 1, files.rlim_max + 1};
    printf("%lu %lu %d", files.rlim_cur, files.rlim_max, !setrlimit(RLIMIT_NOFILE, &more));
}

static void inherited(void) {
    struct rlimit files, cpu;
    cpu_set_t cpus;
    CPU_ZERO(&cpus);
    getrlimit(RLIMIT_NOFILE, &files);
    getrlimit(RLIMIT_CPU, &cpu);
    sched_getaffinity(0, sizeof cpus, &cpus);
    printf("%ld %ld %d %d %d %ld\n", (long)files.rlim_cur, (long)cpu.rlim_cur, getpriority(PRIO_PROCESS, 0),
           CPU_COUNT(&cpus), sched_getscheduler(0), syscall(SYS_ioprio_get, 1, 0));
    char line[256];
    FILE *status = fopen("/proc/1/status", "r");
    must(status != NULL, "/proc/1/status");
    while (fgets(line, sizeof line, status))
        if (!strncmp(line, "SigPnd", 6) || !strncmp(line, "ShdPnd", 6)) printf("%s", line);
    fclose(status);
    print_traits();
    FILE *filter = fopen("/proc/self/coredump_filter", "r");
    if (filter && fgets(line, sizeof line, filter)) printf("%s", line);
}

// Take the output's bytes away from its reader, for a while.
static void steal(void) {
    char data[4096];
    int own = open("/proc/self/fd/1", O_RDONLY | O_NONBLOCK);
    must(own >= 0, "own pipe");
    for (int i = 0; i < 20000; i++) {
        write_all(1, "x", 1);
        if (read(own, data, sizeof data) < 0 && errno != EAGAIN) fail("read");
    }
}

// Take memory until the kernel objects.
static void eat(void) {
    for (;;) {
        char *page = malloc(1 << 20);
        must(page != NULL, "malloc");
        memset(page, 1, 1 << 20);
    }
}

// fill FILE CHILDREN: memory that lies in a file, while the processes themselves are small.
static void fill(void) {
    static char block[1 << 16];
    for (long i = number(2); i > 0; i--)
        if (!fork()) break;
    int fd = open(text(1), O_WRONLY | O_CREAT | O_APPEND, 0600);
    must(fd >= 0, text(1));
    for (;;) write_all(fd, block, sizeof block);
}

static int score_of(const char *file) {
    char score[32] = "";
    int fd = open(file, O_RDONLY);
    must(fd >= 0 && read(fd, score, sizeof score - 1) > 0, file);
    close(fd);
    return atoi(score);
}

static void facts(void) {
    char cwd[4096];
    int own = score_of("/proc/self/oom_score_adj");
    // The guest sets its own back while this runs already.
    for (int i = 0; i < 1000 && score_of("/proc/1/oom_score_adj") == own; i++) doze(1);
    printf("sid %d of %d; parent %d; uid %u; cwd %s; oom %d %d; umask %o", getsid(0) == getpid(), getpid() > 1, getppid(),
           getuid(), getcwd(cwd, sizeof cwd) ? cwd : "?", own, score_of("/proc/1/oom_score_adj"), umask(0));
}

static volatile char *first_page(int flags, int protection) {
    int fd = open(text(1), flags | O_NOATIME);
    must(fd >= 0, text(1));
    volatile char *bytes = mmap(NULL, 1, protection, MAP_SHARED, fd, 0);
    must(bytes != MAP_FAILED, "mmap");
    return bytes;
}

// store FILE: change a byte of its first page in memory, whether or not the file is that long. A store into a page that was not
// there yet is a fault, which changes the file's times; one into a page that was read before is not.
static void store(void) {
    volatile char *bytes = first_page(O_RDWR, PROT_READ | PROT_WRITE);
    char was = bytes[4000];
    bytes[4000] = was ^ 1;
}

// stored FILE: print the byte that `store` changes.
static void stored(void) { printf("%d", first_page(O_RDONLY, PROT_READ)[4000]); }

// netlink take: as many sockets as there are; again COUNT: one after the other; flags: what becomes of flags and options; ahead: one,
// then as cat.
static void netlink(void) {
    const char *how = text(1);
    long count = 0, most = !strcmp(how, "again") ? number(2) : 1000;
    if (!strcmp(how, "flags")) {
        int large = 1 << 20, yes = 1;
        int held[2];
        int plain = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE), marked = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE);
        must(!getsockopt(plain, SOL_SOCKET, SO_RCVBUF, &held[0], &(socklen_t){sizeof held[0]}), "getsockopt");
        must(!setsockopt(plain, SOL_SOCKET, SO_RCVBUF, &large, sizeof large) && !setsockopt(plain, SOL_SOCKET, SO_PASSCRED, &yes, sizeof yes), "setsockopt");
        must(!getsockopt(plain, SOL_SOCKET, SO_RCVBUF, &held[1], &(socklen_t){sizeof held[1]}), "getsockopt");
        must(!getsockopt(plain, SOL_SOCKET, SO_PASSCRED, &yes, &(socklen_t){sizeof yes}), "getsockopt");
        printf("cloexec %d %d nonblock %d %d passcred %d rcvbuf %s", fcntl(plain, F_GETFD), fcntl(marked, F_GETFD), !!(fcntl(plain, F_GETFL) & O_NONBLOCK),
               !!(fcntl(marked, F_GETFL) & O_NONBLOCK), yes, held[0] == held[1] ? "kept" : "changed");
        return;
    }
    if (!strcmp(how, "ahead")) must(socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE) >= 0, "socket"), copying();
    else {
        for (int s; count < most && (s = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE)) >= 0; count++)
            if (!strcmp(how, "again")) close(s);
        printf("%ld %s", count, count == most ? "" : strerrorname_np(errno));
    }
}

// listen COMMAND…: run it under a filter that asks this program's child.
static void listen_first(void) {
    struct sock_filter allow = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    struct sock_fprog program = {1, &allow};
    must(!prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs");
    must(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program) >= 0, "seccomp");
    if (fork() == 0) for (;;) pause();
    execv(args[1], args + 1);
    fail("execv");
}

int main(int argc, char **argv, char **env) {
    args = argv + 1;
    arg_count = argc - 1;
    const char *what = text(0);
    if (!strcmp(what, "argv")) for (int i = 1; i < argc; i++) write_all(1, argv[i], strlen(argv[i]) + 1);
    else if (!strcmp(what, "env")) for (; *env; env++) write_all(1, *env, strlen(*env) + 1);
    else if (!strcmp(what, "exit")) return (int)number(1);
    else if (!strcmp(what, "raise")) raise((int)number(1));
    else if (!strcmp(what, "write")) writing();
    else if (!strcmp(what, "cat")) copying();
    else if (!strcmp(what, "fds")) descriptors();
    else if (!strcmp(what, "signals")) signals();
    else if (!strcmp(what, "facts")) facts();
    else if (!strcmp(what, "pause")) for (write_all(1, "ready", 5);;) pause();
    else if (!strcmp(what, "doze")) doze(number(1));
    else if (!strcmp(what, "pour")) pour();
    else if (!strcmp(what, "half")) write_all(1, "before", 6), close(0), close(1), doze(number(1)), write_all(2, "after", 5);
    else if (!strcmp(what, "orphans")) orphans();
    else if (!strcmp(what, "daemon")) daemonise();
    else if (!strcmp(what, "crowd")) crowd();
    else if (!strcmp(what, "nochld")) ignore_children();
    else if (!strcmp(what, "churn")) churn();
    else if (!strcmp(what, "deep")) deep();
    else if (!strcmp(what, "many")) many();
    else if (!strcmp(what, "closed")) closed();
    else if (!strcmp(what, "names")) names();
    else if (!strcmp(what, "spoil")) spoil();
    else if (!strcmp(what, "look")) look();
    else if (!strcmp(what, "outputs")) outputs();
    else if (!strcmp(what, "tamper")) tamper();
    else if (!strcmp(what, "limit")) limit();
    else if (!strcmp(what, "inherited")) inherited();
    else if (!strcmp(what, "mark")) mark();
    else if (!strcmp(what, "steal")) steal();
    else if (!strcmp(what, "eat")) eat();
    else if (!strcmp(what, "fill")) fill();
    else if (!strcmp(what, "store")) store();
    else if (!strcmp(what, "stored")) stored();
    else if (!strcmp(what, "netlink")) netlink();
    else if (!strcmp(what, "listen")) listen_first();
    else if (!strcmp(what, "rmdir")) must(!rmdir(text(1)) && !mkdir(text(2), 0700), "rmdir");
    else return 98;
    return fflush(stdout) ? 97 : 0;
}
