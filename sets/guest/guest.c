// The guest: PID 1 of every slot. Runs the image's own program once per task and hands its bytes to the executor.
// PROTOCOL.md beside this file is the contract. The program is hostile and runs beside us as the same user. It cannot trace
// or read us (we are not dumpable), signals from within do nothing to PID 1, and a filter keeps our limits and priority ours.
#define _GNU_SOURCE
#include <dirent.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/magic.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#define MESSAGE_BYTES 131072
#define STRINGS_BYTES 69608
#define STRINGS_COUNT 8192
#define STDIN_BYTES 61440
#define OUTPUT_BYTES 61440
#define FILES_COUNT 64
#define PLACES_COUNT 64
#define ITEMS_COUNT 1024
#define TASK_FDS_MOST (FILES_COUNT + 16)
#define TOKEN_NAME "GENERAL_COMPUTE_SLOT_TOKEN"
#define TOKEN_BYTES 64
#define CONNECT_LIMIT_S 60
#define CONNECT_FIRST_MS 10
#define CONNECT_MOST_MS 500
#define SEND_LIMIT_S 60
// A write of this size into a fresh pipe never blocks, however little pipe memory our user has left.
#define PIPE_ALWAYS_HOLDS 4096
#define OOM_PREFERENCE 500
// Our own limit of descriptors is at least so many times the program's.
#define DESCRIPTORS_FACTOR 4
#define LISTING_BYTES 32768
// What unread messages of all netlink sockets together may take of the kernel's memory, and how much one may exceed its limit by.
#define NETLINK_BYTES (16 << 20)
#define NETLINK_EXCESS_BYTES 65536
#define NETLINK_SOCKETS_LEAST 4
#if defined(__x86_64__)
#define OWN_MACHINE EM_X86_64
#elif defined(__aarch64__)
#define OWN_MACHINE EM_AARCH64
#endif

enum { EXIT_RETIRED = 0, EXIT_USAGE = 2, EXIT_NO_EXECUTOR = 3, EXIT_MALFORMED = 4, EXIT_UNCLEAN = 5, EXIT_FEW_DESCRIPTORS = 6 };
enum { TASK = 1, KILL = 2, RETIRE = 3, HELLO = 16, OUTPUT = 17, EXITED = 18, CLEANED = 19, STDIN = 20, UNFIT = 21 };
enum { STDIN_FD = 1, STREAM = 2, PRESTART = 4, STDIN_ASKED = 8 };
enum { HANDED_OVER = 1, KILLED = 2, CLEANING = 4, PRESTARTED = 8 };
enum { HOW_EXITED = 0, HOW_SIGNALLED = 1, HOW_NOT_EXECUTED = 2, HOW_NOT_STARTED = 3 };

enum { WHY_UNKNOWN, WHY_FOLDER, WHY_NO_PERMISSION, WHY_CARRIAGE_RETURN, WHY_NO_INTERPRETER, WHY_NO_LOADER, WHY_NO_FORMAT, WHY_FOREIGN };

struct __attribute__((packed)) head { uint8_t type, flags; uint16_t reserved; uint32_t task; };
struct __attribute__((packed)) task_message { struct head head; uint16_t argc, envc, filec, reserved; uint32_t strings_len, stdin_len; };
struct __attribute__((packed)) hello_message { struct head head; uint8_t version, reserved[3]; char token[TOKEN_BYTES]; };
struct __attribute__((packed)) output_message { struct head head; uint32_t stdout_len, stderr_len; };
struct __attribute__((packed)) exit_message {
    struct head head;
    uint8_t how, why, reserved[2];
    int32_t code;
    uint64_t wall_us, reaped_cpu_us, guest_cpu_us, max_rss_kib;
    uint16_t filec, reserved2;
    uint32_t stdout_len, stderr_len;
};
struct __attribute__((packed)) cleaned_message { struct head head; uint8_t ok, reserved[3]; int32_t error; uint64_t guest_cpu_us; };

// One of the program's outputs: both ends of the pipe until they are handed over, and what was read so far. We hold the write
// end as well, so that its end is nothing to wake up for: an output ends with the task.
struct output { int fd, end; uint32_t len; unsigned char data[OUTPUT_BYTES]; };

// A folder that the program may write to, and what it is when it is clean. Folders on the way from one place to another, or
// to the working directory, are places too: they stay.
struct place {
    const char *path, *name;  // name: the path's last part
    int fd, parent, keeps;    // parent: the place that holds this one, or -1; keeps: how many places this one holds
    int items, tops;          // of its content: how many in all, and how many right below it
    bool counts;              // its file system is a tmpfs of its own: the number of inodes in use tells whether it is clean
    bool ours;                // the program, being us, may change the folder itself
    uint64_t inodes;
    struct stat was;
    ssize_t xattrs;
};

// A part of the content that a place begins with. A file is mapped, so that a look at its bytes takes no call: a program that
// has mapped it itself can change them without a trace in its times.
struct __attribute__((packed)) item_head { uint8_t kind, reserved; uint16_t mode; uint32_t path_len, reserved2; int64_t mtime_s; uint64_t size; };
enum { ITEM_FOLDER = 1, ITEM_FILE = 2, ITEM_LINK = 3 };
struct item {
    const char *name;  // below the place
    const unsigned char *data, *there;
    size_t size;
    int place, kind;
    mode_t mode;
    time_t mtime_s;
    struct stat was;
};

static int executor = -1, children = -1, oom_score = -1;
// Where the kernel asks us for netlink sockets, where it says how many there are, how many there may be, and the word by which our
// own calls pass the filter.
static int netlink_asked = -1, protocols = -1;
static long netlink_most;
static uint64_t netlink_word;
static struct rlimit program_descriptors;
static char oom_own[16], oom_program[16];
// What a program that is root may change about us in /proc, where the next one would read it.
static struct trait { const char *path, *form; int fd; char was[64]; } traits[] = {
    {"/proc/self/autogroup", "%s", -1, ""}, {"/proc/self/coredump_filter", "0x%s", -1, ""}};
// Every descriptor from here on belongs to the task.
static int first_task_fd = INT_MAX;
static uint32_t last_task;
static char token[TOKEN_BYTES];
static const char *socket_path;
static char **base_env;
static struct place places[PLACES_COUNT];
static int place_count;
static struct item items[ITEMS_COUNT];
static int item_count;
// The last change that we made to content. What changes it in the same tick of the clock would have the same time.
static struct timespec filled_at;
static char start_cwd[PATH_MAX];
static dev_t root_device;
static char listings[2][LISTING_BYTES] __attribute__((aligned(8)));

static unsigned char message[MESSAGE_BYTES];
static struct output out, err;
static char *argv[STRINGS_COUNT + 1], **envp, *files[FILES_COUNT];
static uint64_t reported_cpu_us;
// The path of the program that was started last, and why it could not be.
static const char *tried;
static uint8_t why;

// The running task, or the program that waits for one.
static struct {
    uint32_t number;
    pid_t pid;
    int in;
    const unsigned char *in_data;
    uint32_t in_left;
    bool killed, handed_over;
    bool ended, alone;  // the program has been reaped; so has everybody else
    int status;
    uint64_t reaped_cpu_us, max_rss_kib;
} run;

// A program that was started ahead of its task, and the strings that it was started with.
static struct {
    bool there;
    struct task_message like;
    char strings[STRINGS_BYTES];
} waiting;

static void __attribute__((noreturn)) malformed(void) { _exit(EXIT_MALFORMED); }

static void __attribute__((noreturn)) unusable(const char *what, const char *why) {
    fprintf(stderr, "guest: %s: %s\n", what, why);
    _exit(EXIT_USAGE);
}

static uint64_t now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static uint64_t cpu_us(const struct rusage *u) {
    return (uint64_t)(u->ru_utime.tv_sec + u->ru_stime.tv_sec) * 1000000 + (uint64_t)(u->ru_utime.tv_usec + u->ru_stime.tv_usec);
}

static uint64_t own_cpu_us(void) {
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    uint64_t all = cpu_us(&u), since = all - reported_cpu_us;
    reported_cpu_us = all;
    return since;
}

static void shut(int *fd) {
    if (*fd >= 0) close(*fd);
    *fd = -1;
}

// Close all from `first` on; `most` is how many there can be where the kernel does not help.
static void close_from(int first, int most) {
    if (syscall(SYS_close_range, first, ~0u, 0))
        for (int fd = first; fd < first + most; fd++) close(fd);
}

// ---- talking to the executor

// False when the executor is lost. The socket is blocking: a slow executor is waited for, up to a limit; a dead one is an error.
static bool tell(struct iovec *parts, size_t count, const int *fds, size_t fd_count) {
    union { char space[CMSG_SPACE(FILES_COUNT * sizeof(int))]; struct cmsghdr align; } control;
    struct msghdr m = {.msg_iov = parts, .msg_iovlen = count};
    if (fd_count) {
        m.msg_control = &control;
        m.msg_controllen = CMSG_SPACE(fd_count * sizeof(int));
        struct cmsghdr *c = CMSG_FIRSTHDR(&m);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(fd_count * sizeof(int));
        memcpy(CMSG_DATA(c), fds, fd_count * sizeof(int));
    }
    ssize_t n;
    do n = sendmsg(executor, &m, MSG_NOSIGNAL); while (n < 0 && errno == EINTR);
    return n >= 0;
}

// The next message: its length, 0 when the executor is lost, -1 when none is there. A descriptor goes to *fd.
static ssize_t hear(void *buffer, size_t size, int flags, int *fd) {
    union { char space[CMSG_SPACE(sizeof(int))]; struct cmsghdr align; } control;
    struct iovec part = {buffer, size};
    struct msghdr m = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    ssize_t n;
    do n = recvmsg(executor, &m, flags | MSG_CMSG_CLOEXEC); while (n < 0 && errno == EINTR);
    if (n < 0) return errno == EAGAIN ? -1 : 0;
    if (m.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) malformed();
    *fd = -1;
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    if (c) {
        if (!n || c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS || c->cmsg_len != CMSG_LEN(sizeof(int))) malformed();
        memcpy(fd, CMSG_DATA(c), sizeof(int));
    }
    return n;
}

static void connect_executor(void) {
    uint64_t until = now_us() + CONNECT_LIMIT_S * 1000000ull;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    memcpy(address.sun_path, socket_path, strlen(socket_path));
    shut(&executor);
    last_task = 0;
    for (int wait_ms = CONNECT_FIRST_MS;; wait_ms = wait_ms * 2 < CONNECT_MOST_MS ? wait_ms * 2 : CONNECT_MOST_MS) {
        executor = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
        struct timeval limit = {.tv_sec = SEND_LIMIT_S};
        setsockopt(executor, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
        // Where the host's default is small, the kernel gives what it allows: a full EXIT must fit.
        int room = 2 * MESSAGE_BYTES;
        setsockopt(executor, SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
        if (executor >= 0 && !connect(executor, (struct sockaddr *)&address, sizeof address)) {
            struct hello_message hello = {.head = {.type = HELLO}, .version = 1};
            memcpy(hello.token, token, TOKEN_BYTES);
            if (tell(&(struct iovec){&hello, sizeof hello}, 1, NULL, 0)) {
                // What we used until now is in the cgroup's account before the executor first reads it.
                own_cpu_us();
                return;
            }
        }
        shut(&executor);
        if (now_us() > until) _exit(EXIT_NO_EXECUTOR);
        poll(NULL, 0, wait_ms);
    }
}

// ---- processes

static void reaped(const struct rusage *usage) {
    run.reaped_cpu_us += cpu_us(usage);
    if ((uint64_t)usage->ru_maxrss > run.max_rss_kib) run.max_rss_kib = (uint64_t)usage->ru_maxrss;
}

// Reap whoever has ended. True when nobody else is left in the container: every process has us for an ancestor.
static bool reap(int flags) {
    for (;;) {
        struct rusage usage;
        int status;
        pid_t pid = wait4(-1, &status, flags | __WALL, &usage);
        if (pid == 0) return false;
        if (pid < 0) {
            if (errno == EINTR) continue;
            return run.alone = true;
        }
        reaped(&usage);
        if (pid == run.pid) {
            run.ended = true;
            run.status = status;
        }
    }
}

// Kill and reap everything else. One sweep suffices: a process that is being killed can fork no more.
static void kill_all(void) {
    do kill(-1, SIGKILL); while (!reap(0));
}

static const char *value_of(char **env, const char *name) {
    size_t n = strlen(name);
    for (; *env; env++)
        if (!strncmp(*env, name, n) && (*env)[n] == '=') return *env + n + 1;
    return NULL;
}

// Why a file cannot be executed, as far as it tells itself: WHY_UNKNOWN also for one that does not exist. `error` is execve's.
static uint8_t why_not(const char *path, int error) {
    unsigned char head[256] __attribute__((aligned(8))) = "";
    struct stat st;
    if (stat(path, &st)) return WHY_UNKNOWN;
    if (S_ISDIR(st.st_mode)) return WHY_FOLDER;
    if (error == EACCES) return S_ISREG(st.st_mode) && access(path, X_OK) ? WHY_NO_PERMISSION : WHY_UNKNOWN;
    int fd = S_ISREG(st.st_mode) ? open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC) : -1;
    if (fd < 0) return WHY_UNKNOWN;
    ssize_t n = read(fd, head, sizeof head);
    close(fd);
    if (n >= (ssize_t)sizeof(Elf32_Ehdr) && !memcmp(head, ELFMAG, SELFMAG)) {
        // The field has the same place in headers of both classes.
        if (head[EI_CLASS] != ELFCLASS64 || ((Elf64_Ehdr *)head)->e_machine != OWN_MACHINE) return WHY_FOREIGN;
        return error == ENOENT ? WHY_NO_LOADER : WHY_UNKNOWN;
    }
    if (n >= 2 && !memcmp(head, "#!", 2)) {
        const unsigned char *end = memchr(head, '\n', (size_t)n);
        if (end && end[-1] == '\r') return WHY_CARRIAGE_RETURN;
        return error == ENOENT ? WHY_NO_INTERPRETER : WHY_UNKNOWN;
    }
    return n >= 0 && error == ENOEXEC ? WHY_NO_FORMAT : WHY_UNKNOWN;
}

// The next path that PATH gives for argv[0], or NULL; *at is where to go on.
static const char *candidate(const char **at) {
    static char full[PATH_MAX + 256];
    while (*at) {
        const char *end = strchrnul(*at, ':');
        int n = snprintf(full, sizeof full, "%.*s%s%s", (int)(end - *at), *at, end > *at ? "/" : "./", argv[0]);
        *at = *end ? end + 1 : NULL;
        if (n > 0 && (size_t)n < sizeof full) return full;
    }
    return NULL;
}

// Runs in the vforked child: execve with a search of PATH, and never a shell.
static int execute(char **env) {
    const char *path = value_of(env, "PATH"), *first = path ? path : "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    if (!*argv[0]) return ENOENT;
    if (strchr(argv[0], '/')) {
        tried = argv[0];
        execve(tried, argv, env);
        int error = errno;
        why = why_not(tried, error);
        return error;
    }
    int result = ENOENT;
    for (const char *at = first; (tried = candidate(&at));) {
        execve(tried, argv, env);
        int error = errno;
        if (error == EACCES) result = EACCES;
        else if (error != ENOENT && error != ENOTDIR) return why = why_not(tried, error), error;
    }
    for (const char *at = first; !why && (tried = candidate(&at));) why = why_not(tried, result);
    return result;
}

static bool later(struct timespec a, struct timespec b) { return a.tv_sec != b.tv_sec ? a.tv_sec > b.tv_sec : a.tv_nsec > b.tv_nsec; }

static void let_a_tick_pass(void) {
    struct timespec t;
    for (int tries = 0; tries < 100 && (clock_gettime(CLOCK_REALTIME_COARSE, &t), !later(t, filled_at)); tries++) poll(NULL, 0, 1);
    filled_at.tv_sec = 0;
}

// Start the program with these as stdin, stdout and stderr. Returns 0, the errno of a failed exec, or below 0 that of whatever
// failed before it: the machine's fault, not the program's.
static int spawn(int in, int o, int e) {
    volatile int failed = 0;
    why = WHY_UNKNOWN;
    if (filled_at.tv_sec) let_a_tick_pass();
    // The child inherits the score; ours goes back to what it was. So the kernel, short of memory, takes the program.
    if (oom_score >= 0 && pwrite(oom_score, oom_program, strlen(oom_program), 0) < 0) shut(&oom_score);
    pid_t pid = vfork();
    if (pid == 0) {
        sigset_t none;
        sigemptyset(&none);
        setsid();
        if (setrlimit(RLIMIT_NOFILE, &program_descriptors) || dup2(in, 0) < 0 || dup2(o, 1) < 0 || dup2(e, 2) < 0) failed = -errno;
        else {
            sigprocmask(SIG_SETMASK, &none, NULL);
            failed = execute(envp);
        }
        _exit(127);
    }
    if (pid < 0) failed = -errno;
    if (oom_score >= 0 && pwrite(oom_score, oom_own, strlen(oom_own), 0) < 0) shut(&oom_score);
    if (pid > 0) run.pid = pid;
    return failed;
}

// ---- netlink sockets. The kernel charges what waits in them to nobody, so that we see to it that there are few at a time: a filter
// has it ask us for each one. We make it and hand it over, so that the count is exact, however many ask at once.

static int make_netlink(int type, int protocol) { return (int)syscall(SYS_socket, AF_NETLINK, type | SOCK_CLOEXEC, protocol, netlink_word); }

// How many live. The kernel counts them for each network, those that are in flight in messages included.
static long count_netlink(void) {
    static const char name[] = "\nNETLINK ";
    char *text = listings[0], *end = text;
    if (lseek(protocols, 0, SEEK_SET)) return LONG_MAX;
    for (ssize_t n; end < text + LISTING_BYTES - 1 && (n = read(protocols, end, (size_t)(text + LISTING_BYTES - 1 - end))) > 0;) end += n;
    *end = 0;
    if (!(text = strstr(text, name))) return LONG_MAX;
    strtol(text + sizeof name - 1, &end, 10);  // the size of one
    return strtol(end, NULL, 10);
}

static void refuse_netlink(uint64_t id, int error) {
    struct seccomp_notif_resp answer = {.id = id, .error = -error};
    ioctl(netlink_asked, SECCOMP_IOCTL_NOTIF_SEND, &answer);
}

// Hand the socket to whoever asked. The kernel has us wait until that thread runs, which may take as long as the program likes; so a
// child of ours waits instead.
static void __attribute__((noreturn)) hand_netlink_over(const struct seccomp_notif *asked, int fd) {
    struct seccomp_notif_addfd added = {.id = asked->id, .flags = SECCOMP_ADDFD_FLAG_SEND, .srcfd = (uint32_t)fd,
                                        .newfd_flags = asked->data.args[1] & SOCK_CLOEXEC ? O_CLOEXEC : 0};
    if (ioctl(netlink_asked, SECCOMP_IOCTL_NOTIF_ADDFD, &added) < 0) refuse_netlink(asked->id, errno);
    _exit(0);
}

static void answer_netlink(void) {
    struct seccomp_notif asked;
    memset(&asked, 0, sizeof asked);
    // Fails where whoever asked has ended.
    if (ioctl(netlink_asked, SECCOMP_IOCTL_NOTIF_RECV, &asked)) return;
    if (count_netlink() >= netlink_most) return refuse_netlink(asked.id, ENOBUFS);
    int fd = make_netlink((int)asked.data.args[1], (int)asked.data.args[2]);
    pid_t pid = fd < 0 ? -1 : fork();
    if (pid == 0) hand_netlink_over(&asked, fd);
    if (pid < 0) refuse_netlink(asked.id, errno);
    shut(&fd);
}

// ---- writable places. Nobody else runs while we look at them.

// Walks over a listing that getdents64 has filled.
#define EACH_ENTRY(e, listing, n)                                                    \
    (struct dirent64 *e = (struct dirent64 *)(listing); (char *)e < (listing) + (n); \
     e = (struct dirent64 *)((char *)e + e->d_reclen)) if (strcmp(e->d_name, ".") && strcmp(e->d_name, ".."))

// Whether the entry of that name is a place itself, the one that it has been from the start.
static bool is_kept(const struct place *p, const char *name) {
    struct stat st;
    if (!p->keeps) return false;
    for (const struct place *q = places; q < places + place_count; q++)
        if (q->parent == p - places && !strcmp(q->name, name))
            return !fstatat(p->fd, name, &st, AT_SYMLINK_NOFOLLOW) && st.st_dev == q->was.st_dev && st.st_ino == q->was.st_ino;
    return false;
}

// Whether the place's content has an entry of that name right below it.
static bool is_item(const struct place *p, const char *name) {
    for (int i = 0; p->tops && i < item_count; i++)
        if (items[i].place == p - places && !strcmp(items[i].name, name)) return true;
    return false;
}

// Whether a place holds what it keeps and its content, and nothing else.
static bool is_empty(const struct place *p) {
    ssize_t n;
    int kept = 0;
    if (lseek(p->fd, 0, SEEK_SET)) return false;
    while ((n = getdents64(p->fd, listings[0], LISTING_BYTES)) > 0)
        for EACH_ENTRY(e, listings[0], n) {
            if (!is_kept(p, e->d_name) && !is_item(p, e->d_name)) return false;
            kept++;
        }
    return !n && kept == p->keeps + p->tops;
}

static bool same_time(struct timespec a, struct timespec b) { return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec; }

// Its owner could leave a word to the next task in its times, too.
static bool put_times_back(const struct place *p) { return !futimens(p->fd, (struct timespec[]){p->was.st_atim, p->was.st_mtim}); }

// The last page of a file keeps what is stored behind the file's end, and whoever maps it reads that.
static bool has_its_bytes(const struct item *i) {
    static const unsigned char zeros[65536];
    size_t page = (size_t)getpagesize(), behind = (page - i->size % page) % page;
    return !memcmp(i->there, i->data, i->size) && !memcmp(i->there + i->size, zeros, behind);
}

// Whether the content is what we made of it. No program can set a change's time back, and each is a change but one: a store into a
// mapped file.
static bool is_intact(const struct place *p) {
    struct stat st;
    for (const struct item *i = items; i < items + item_count; i++)
        if (i->place == p - places &&
            (fstatat(p->fd, i->name, &st, AT_SYMLINK_NOFOLLOW) || st.st_dev != i->was.st_dev || st.st_ino != i->was.st_ino ||
             !same_time(st.st_ctim, i->was.st_ctim) || st.st_size != i->was.st_size || (i->there && !has_its_bytes(i))))
            return false;
    return true;
}

static bool is_clean(const struct place *p) {
    struct statfs fs;
    struct stat st;
    const bool ours = p->ours;
    if (ours && (fstat(p->fd, &st) || st.st_mode != p->was.st_mode || st.st_gid != p->was.st_gid ||
                    flistxattr(p->fd, NULL, 0) != p->xattrs))
        return false;
    if (!(p->counts ? !fstatfs(p->fd, &fs) && fs.f_files - fs.f_ffree == p->inodes : is_empty(p))) return false;
    if (p->items && !is_intact(p)) return false;
    return !ours || (same_time(st.st_mtim, p->was.st_mtim) && same_time(st.st_atim, p->was.st_atim)) || put_times_back(p);
}

// Move a folder up to the place itself.
static bool lift(int root, int parent, const char *name) {
    static unsigned serial;
    char moved[32];
    fchmodat(parent, name, 0700, 0);
    for (;;) {
        snprintf(moved, sizeof moved, ".gc-%u", ++serial);
        if (!renameat2(parent, name, root, moved, RENAME_NOREPLACE)) return true;
        if (errno != EEXIST) return false;
    }
}

// Remove an entry of a place. The folders within a folder are lifted, so that depth never matters and each is looked at in its
// turn. False, with errno, when nothing could be done.
static bool remove_entry(int root, const char *name) {
    if (!unlinkat(root, name, 0)) return true;
    if (errno != EISDIR) return false;
    if (!unlinkat(root, name, AT_REMOVEDIR)) return true;
    fchmodat(root, name, 0700, 0);
    int fd = openat(root, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), error = 0;
    if (fd < 0) return false;
    bool progress = false;
    ssize_t n;
    while ((n = getdents64(fd, listings[1], LISTING_BYTES)) > 0)
        for EACH_ENTRY(e, listings[1], n) {
            if (!unlinkat(fd, e->d_name, 0) ||
                (errno == EISDIR && (!unlinkat(fd, e->d_name, AT_REMOVEDIR) || lift(root, fd, e->d_name))))
                progress = true;
            else error = errno;
        }
    close(fd);
    if (!unlinkat(root, name, AT_REMOVEDIR) || progress) return true;
    errno = error ? error : errno;
    return false;
}

// Give a place that the program has taken away its folder again.
static bool make_again(struct place *p) {
    int parent = places[p->parent].fd;
    if (mkdirat(parent, p->name, 0700)) return false;
    int fd = openat(parent, p->name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_NOATIME | O_CLOEXEC);
    if (fd < 0) return false;
    bool made = !fchmod(fd, p->was.st_mode & 07777) && dup3(fd, p->fd, O_CLOEXEC) >= 0 && !fstat(p->fd, &p->was);
    close(fd);
    p->ours = true;
    p->xattrs = flistxattr(p->fd, NULL, 0);
    return made;
}

static bool make_file(const struct place *p, struct item *i) {
    int fd = openat(p->fd, i->name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0) return false;
    for (size_t at = 0; at < i->size;) {
        ssize_t n = write(fd, i->data + at, i->size - at);
        if (n <= 0) return close(fd), false;
        at += (size_t)n;
    }
    close(fd);
    if (!i->size) return true;
    // Opened again: what is mapped by a descriptor that can write cannot be executed.
    if ((fd = openat(p->fd, i->name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC)) < 0) return false;
    void *there = mmap(NULL, i->size, PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
    if (there != MAP_FAILED) i->there = there;
    return i->there;
}

// Write the content of a place that is empty. False with errno. Folders get their mode and time last, after what is in them.
static bool fill(const struct place *p) {
    for (struct item *i = items; i < items + item_count; i++) {
        if (i->place != p - places) continue;
        if (i->there) munmap((void *)(uintptr_t)i->there, i->size);
        i->there = NULL;
        if (i->kind == ITEM_FOLDER ? mkdirat(p->fd, i->name, 0700) : i->kind == ITEM_LINK ? symlinkat((const char *)i->data, p->fd, i->name) : !make_file(p, i))
            return false;
    }
    for (struct item *i = items + item_count; i-- > items;) {
        if (i->place != p - places) continue;
        struct timespec times[2] = {{i->mtime_s, 0}, {i->mtime_s, 0}};
        if ((i->kind != ITEM_LINK && fchmodat(p->fd, i->name, i->mode, 0)) || utimensat(p->fd, i->name, times, AT_SYMLINK_NOFOLLOW) ||
            fstatat(p->fd, i->name, &i->was, AT_SYMLINK_NOFOLLOW))
            return false;
        if (later(i->was.st_ctim, filled_at)) filled_at = i->was.st_ctim;
    }
    return true;
}

// 0, or the errno of what could not be removed.
static int clean(struct place *p) {
    if (p->ours) fchmod(p->fd, p->was.st_mode & 07777);
    for (bool left = true; left;) {
        bool progress = false;
        int error = EIO;
        ssize_t n;
        left = false;
        if (lseek(p->fd, 0, SEEK_SET)) return errno;
        while ((n = getdents64(p->fd, listings[0], LISTING_BYTES)) > 0)
            for EACH_ENTRY(e, listings[0], n) {
                if (is_kept(p, e->d_name)) continue;
                left = true;
                if (remove_entry(p->fd, e->d_name)) progress = true;
                else error = errno;
            }
        if (n < 0) return errno;
        if (left && !progress) return error;
    }
    for (struct place *q = places; q < places + place_count; q++)
        if (q->parent == p - places && !is_kept(p, q->name) && !make_again(q)) return errno;
    if (p->items && !fill(p)) return errno;
    if (p->ours) {
        ssize_t n = flistxattr(p->fd, listings[1], LISTING_BYTES);
        if (n != p->xattrs)
            for (char *name = listings[1]; n > 0 && name < listings[1] + n; name += strlen(name) + 1) fremovexattr(p->fd, name);
        if (fchown(p->fd, (uid_t)-1, p->was.st_gid) || fchmod(p->fd, p->was.st_mode & 07777) || !put_times_back(p)) return errno;
    }
    // What the executor still holds open counts as an inode, yet is nowhere to be found.
    return is_empty(p) ? 0 : EIO;
}

static bool put_traits_back(void) {
    for (struct trait *t = traits; t < traits + sizeof traits / sizeof *traits; t++)
        for (int tries = 0; t->fd >= 0; tries++) {
            char text[sizeof t->was] = "", *last = strrchr(t->was, ' ');
            if (pread(t->fd, text, sizeof text - 1, 0) > 0 && !strcmp(text, t->was)) break;
            int n = snprintf(text, sizeof text, t->form, last ? last + 1 : t->was);
            // The kernel changes autogroups ten times a second at most, whoever asks.
            if (tries == 100 || (write(t->fd, text, (size_t)n) < 0 && (errno != EAGAIN || poll(NULL, 0, 20)))) return false;
        }
    return true;
}

static bool all_clean(void) {
    if (!put_traits_back()) return false;
    for (int i = 0; i < place_count; i++)
        if (!is_clean(&places[i])) return false;
    return true;
}

// Places stand behind the place that holds them.
static int clean_all(void) {
    int error = put_traits_back() ? 0 : EBUSY;
    for (int i = 0; i < place_count; i++)
        if (!is_clean(&places[i])) {
            int e = clean(&places[i]);
            if (e) error = e;
        }
    // The working directory may be one of those that were made again.
    return error || !chdir(start_cwd) ? error : errno;
}

// The innermost place that `path` lies in, or -1.
static int holder_of(const char *path) {
    int found = -1;
    for (int i = 0; i < place_count; i++) {
        size_t n = strlen(places[i].path);
        if (!strncmp(places[i].path, path, n) && path[n] == '/' && (found < 0 || n > strlen(places[found].path))) found = i;
    }
    return found;
}

// A folder that does not exist cannot be written to.
static void add_place(const char *path) {
    for (int i = 0; i < place_count; i++) if (!strcmp(places[i].path, path)) return;
    if (place_count == PLACES_COUNT) unusable(path, "too many places");
    struct stat above;
    struct place p = {.path = path, .name = strrchr(path, '/') + 1, .parent = holder_of(path)};
    p.fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (p.fd < 0 && errno == ENOENT) return;
    if (p.fd < 0 || fstat(p.fd, &p.was) || fstatat(p.fd, "..", &above, 0)) unusable(path, strerror(errno));
    p.ours = p.was.st_uid == geteuid();
    // runc before 1.1.8 gives a tmpfs the mode of the image's folder, which may keep even its owner from writing.
    if (p.ours && ~p.was.st_mode & S_IRWXU && !fchmod(p.fd, p.was.st_mode | S_IRWXU)) fstat(p.fd, &p.was);
    // Our own look at it must not change it.
    if (p.ours) fcntl(p.fd, F_SETFL, O_NOATIME);
    p.xattrs = flistxattr(p.fd, NULL, 0);
    p.counts = above.st_dev != p.was.st_dev;
    if (p.parent >= 0) {
        places[p.parent].keeps++;
        places[p.parent].counts = false;
    }
    places[place_count++] = p;
}

// Add a place and every folder between it and the place that holds it.
static void add_way(const char *path) {
    int holder = holder_of(path);
    if (holder >= 0)
        for (const char *slash = path + strlen(places[holder].path) + 1; (slash = strchr(slash, '/')); slash++) {
            char *between = strndup(path, (size_t)(slash - path));
            if (!between) unusable(path, "out of memory");
            add_place(between);
        }
    add_place(path);
}

// Learn what places begin with: the file beside the executor's socket, if there is one. Its entries stand behind their folders.
static void take_content(void) {
    char path[sizeof ((struct sockaddr_un *)0)->sun_path + 8];
    snprintf(path, sizeof path, "%.*s/content", (int)(strrchr(socket_path, '/') ? strrchr(socket_path, '/') - socket_path : 0), socket_path);
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT) return;
    if (fd < 0 || fstat(fd, &st)) unusable(path, strerror(errno));
    if (!st.st_size) return;
    const unsigned char *at = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0), *end = at + st.st_size;
    if (at == MAP_FAILED) unusable(path, strerror(errno));
    close(fd);
    while (at < end) {
        struct item_head head;
        if ((size_t)(end - at) < sizeof head) unusable(path, "it is cut off");
        memcpy(&head, at, sizeof head);
        at += sizeof head;
        if (head.path_len >= PATH_MAX || (size_t)(end - at) < head.path_len + 2 || head.size > (size_t)(end - at) - head.path_len - 2 ||
            at[head.path_len] || at[head.path_len + 1 + head.size] || *at != '/' || strlen((const char *)at) != head.path_len)
            unusable(path, "it is malformed");
        struct item i = {.name = (const char *)at, .data = at + head.path_len + 1, .size = head.size, .kind = head.kind,
                         .mode = head.mode, .mtime_s = head.mtime_s, .place = holder_of((const char *)at)};
        at = i.data + i.size + 1;
        // A place itself is there already, and has its mode.
        bool is_place = false;
        for (struct place *p = places; p < places + place_count && !is_place; p++) {
            is_place = !strcmp(p->path, i.name);
            if (is_place && p->ours && !fchmod(p->fd, i.mode | S_IRWXU)) fstat(p->fd, &p->was);
        }
        if (is_place) continue;
        if (i.place < 0 || item_count == ITEMS_COUNT || i.kind < ITEM_FOLDER || i.kind > ITEM_LINK) unusable(i.name, "cannot be content of a place");
        if (i.kind == ITEM_FOLDER) i.mode |= S_IRWXU;
        struct place *p = &places[i.place];
        i.name += strlen(p->path) + 1;
        p->items++;
        if (!strchr(i.name, '/')) p->tops++;
        items[item_count++] = i;
    }
}

// So a place comes before those that lie in it.
static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static void take_places(char **paths, int count) {
    struct stat st;
    for (int i = 0; i < count; i++) {
        for (size_t n = strlen(paths[i]); n && paths[i][n - 1] == '/'; n--) paths[i][n - 1] = 0;
        if (paths[i][0] != '/' || strstr(paths[i], "//")) unusable(paths[i], "a place is an absolute path");
    }
    qsort(paths, (size_t)count, sizeof *paths, by_name);
    for (int i = 0; i < count; i++) add_way(paths[i]);
    if (!getcwd(start_cwd, sizeof start_cwd)) strcpy(start_cwd, "/");
    if (holder_of(start_cwd) >= 0) add_way(start_cwd);
    if (stat("/", &st)) unusable("/", strerror(errno));
    root_device = st.st_dev;
    take_content();
    for (int i = 0; i < place_count; i++) {
        struct place *p = &places[i];
        struct statfs fs;
        int error = is_empty(p) ? 0 : clean(p);
        if (error || fstatfs(p->fd, &fs)) unusable(p->path, strerror(error ? error : errno));
        p->counts = p->counts && fs.f_type == TMPFS_MAGIC && fs.f_files;
        p->inodes = fs.f_files - fs.f_ffree;
        fstat(p->fd, &p->was);
    }
}

// ---- a task

// Whether files there are the program's or the image's. What lies in /proc we could read and the program could not.
static bool is_storage(int folder) {
    struct stat st;
    if (fstat(folder, &st)) return false;
    bool found = st.st_dev == root_device;
    for (int i = 0; i < place_count && !found; i++) found = st.st_dev == places[i].was.st_dev;
    return found;
}

// Open an output file: no link anywhere on its path, and nothing but a regular file. A negative errno otherwise. Nobody runs
// meanwhile, so a look before the open is as good as one after.
static int open_file(char *path) {
    struct stat st;
    int at = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC), error = errno;
    for (char *name = path + 1, *slash; at >= 0 && (slash = strchr(name, '/')); name = slash + 1) {
        *slash = 0;
        int next = openat(at, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        error = errno;
        struct stat link;
        if (next < 0 && !fstatat(at, name, &link, AT_SYMLINK_NOFOLLOW) && S_ISLNK(link.st_mode)) error = ELOOP;
        close(at);
        at = next;
        *slash = '/';
        path = slash;
    }
    if (at < 0) return -error;
    const char *name = strrchr(path, '/') + 1;
    int fd = -1;
    if (fstatat(at, name, &st, AT_SYMLINK_NOFOLLOW)) error = errno;
    else if (S_ISLNK(st.st_mode)) error = ELOOP;
    else if (!S_ISREG(st.st_mode) || !is_storage(at)) error = EINVAL;
    else if ((fd = openat(at, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC)) < 0) error = errno;
    close(at);
    return fd < 0 ? -error : fd;
}

// Give the outputs' read ends to the executor, with what was read so far before them.
static bool hand_over(void) {
    struct output_message m = {
        .head = {.type = OUTPUT, .task = run.number}, .stdout_len = out.len, .stderr_len = err.len};
    struct iovec parts[] = {{&m, sizeof m}, {out.data, out.len}, {err.data, err.len}};
    int fds[2] = {out.fd, err.fd};
    bool told = tell(parts, 3, fds, 2);
    shut(&out.fd);
    shut(&out.end);
    shut(&err.fd);
    shut(&err.end);
    out.len = err.len = 0;
    run.handed_over = true;
    return told;
}

// There is something to read. False when the executor is lost.
static bool read_output(struct output *o) {
    if (o->len == OUTPUT_BYTES) return hand_over();
    ssize_t n = read(o->fd, o->data + o->len, OUTPUT_BYTES - o->len);
    if (n > 0) o->len += (uint32_t)n;
    return true;
}

static void feed(void) {
    while (run.in_left) {
        ssize_t n = write(run.in, run.in_data, run.in_left);
        if (n < 0 && errno == EAGAIN) return;
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) break;
        run.in_data += n;
        run.in_left -= (uint32_t)n;
    }
    shut(&run.in);
}

// A message while a task runs. False when the executor is lost.
static bool obey(void) {
    struct head head;
    int fd;
    ssize_t n = hear(&head, sizeof head, MSG_DONTWAIT, &fd);
    if (n <= 0) return n < 0;
    if (n != sizeof head || fd >= 0 || head.flags || head.reserved) malformed();
    if (head.type == RETIRE) _exit(EXIT_RETIRED);
    if (head.type != KILL) malformed();
    if (head.task == run.number) {
        run.killed = true;
        kill(-1, SIGKILL);
    }
    return true;
}

// Until the program has ended. False when the executor is lost.
static bool attend(void) {
    // Not to block, for the program can open its own pipes and read what we are about to.
    if (!run.handed_over && (fcntl(out.fd, F_SETFL, O_NONBLOCK) || fcntl(err.fd, F_SETFL, O_NONBLOCK))) return false;
    while (!run.ended) {
        struct pollfd p[6] = {{executor, POLLIN, 0}, {children, POLLIN, 0}, {run.in, POLLOUT, 0}, {out.fd, POLLIN, 0}, {err.fd, POLLIN, 0}, {netlink_asked, POLLIN, 0}};
        if (poll(p, 6, -1) < 0) continue;
        if (p[3].revents && out.fd >= 0 && !read_output(&out)) return false;
        if (p[4].revents && err.fd >= 0 && !read_output(&err)) return false;
        if (p[2].revents) feed();
        if (p[0].revents && !obey()) return false;
        if (p[5].revents) answer_netlink();
        if (p[1].revents) {
            struct signalfd_siginfo info;
            if (read(children, &info, sizeof info) < 0 && errno != EAGAIN) return false;
            reap(WNOHANG);
        }
    }
    return true;
}

// What the pipes still hold, now that nobody is left who could write, or take away what poll has seen.
static bool drain(void) {
    while (!run.handed_over && out.fd >= 0) {
        struct pollfd p[2] = {{out.fd, POLLIN, 0}, {err.fd, POLLIN, 0}};
        if (poll(p, 2, 0) <= 0) break;
        if ((p[0].revents && !read_output(&out)) || (p[1].revents && err.fd >= 0 && !read_output(&err))) return false;
    }
    return true;
}

// Read the strings of a TASK message into argv, envp and files.
static void parse_strings(const struct task_message *m, char *at, char *end) {
    static char *merged[2 * STRINGS_COUNT];
    uint32_t total = (uint32_t)m->argc + m->envc + m->filec;
    size_t extra = 0;
    for (uint32_t i = 0; i < total; i++) {
        char *next = at < end ? memchr(at, 0, (size_t)(end - at)) : NULL;
        if (!next) malformed();
        if (i < m->argc) argv[i] = at;
        else if (i < (uint32_t)m->argc + m->envc) {
            if (*at == '=' || !strchr(at, '=')) malformed();
            merged[extra++] = at;
        } else {
            if (at[0] != '/') malformed();
            files[i - m->argc - m->envc] = at;
        }
        at = next + 1;
    }
    if (at != end) malformed();
    argv[m->argc] = NULL;
    envp = base_env;
    if (!m->envc) return;
    merged[extra] = NULL;
    size_t count = extra;
    for (char **e = base_env; *e && count < 2 * STRINGS_COUNT - 1; e++) {
        size_t name = (size_t)(strchrnul(*e, '=') - *e);
        bool replaced = false;
        for (size_t i = 0; i < extra && !replaced; i++) replaced = !strncmp(merged[i], *e, name) && merged[i][name] == '=';
        if (!replaced) merged[count++] = *e;
    }
    merged[count] = NULL;
    envp = merged;
}

static void reset_run(uint32_t number) {
    memset(&run, 0, sizeof run);
    run.number = number;
    run.in = out.fd = out.end = err.fd = err.end = -1;
    out.len = err.len = 0;
}

// Begin to feed what the task brought. A program that waited for it may have filled the pipe itself.
static void feed_inline(const unsigned char *data, uint32_t len) {
    run.in_data = data;
    run.in_left = len;
    if (run.pid || len > PIPE_ALWAYS_HOLDS) fcntl(run.in, F_SETFL, O_NONBLOCK);
    feed();
}

// Make the pipes and start the program. Returns what spawn does; all descriptors are the task's. Without `data` stdin stays open.
static int start(int stdin_fd, const unsigned char *data, uint32_t len) {
    int in[2] = {stdin_fd, -1}, o[2] = {-1, -1}, e[2] = {-1, -1};
    if ((stdin_fd < 0 && pipe2(in, O_CLOEXEC)) || pipe2(o, O_CLOEXEC) || pipe2(e, O_CLOEXEC)) return -errno;
    out.fd = o[0];
    out.end = o[1];
    err.fd = e[0];
    err.end = e[1];
    if (stdin_fd < 0) {
        run.in = in[1];
        if (data) feed_inline(data, len);
    }
    int failed = spawn(in[0], o[1], e[1]);
    // Whoever feeds the program must learn when it stops reading.
    if (stdin_fd >= 0 || !data) close(in[0]);
    return failed;
}

// Give the write end of the program's stdin to the executor.
static bool hand_stdin_over(void) {
    struct head m = {.type = STDIN, .task = run.number};
    bool told = tell(&(struct iovec){&m, sizeof m}, 1, &run.in, 1);
    shut(&run.in);
    return told;
}

// ---- a program that waits for its task

// End it, with all that it left. A descriptor that came with a message is not its.
static void dismiss(void) {
    int *ends[] = {&run.in, &out.fd, &out.end, &err.fd, &err.end};
    if (!run.alone && !reap(WNOHANG)) kill_all();
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) shut(ends[i]);
    waiting.there = false;
    if (clean_all()) _exit(EXIT_UNCLEAN);
}

// Whether it does what it must: neither write nor end before its input comes.
static bool is_fit(int timeout_ms, bool *message_there) {
    struct pollfd p[5] = {{children, POLLIN, 0}, {out.fd, POLLIN, 0}, {err.fd, POLLIN, 0}, {netlink_asked, POLLIN, 0}, {executor, POLLIN, 0}};
    if (poll(p, message_there ? 5 : 4, timeout_ms) < 0) return true;
    if (p[3].revents) answer_netlink();
    if (p[0].revents) {
        struct signalfd_siginfo info;
        if (read(children, &info, sizeof info) > 0) reap(WNOHANG);
    }
    if (message_there) *message_there = p[4].revents;
    return !run.ended && !p[1].revents && !p[2].revents;
}

// Start the program once more, with the arguments of the task that has ended, unless the next task is there already.
static void prestart(const struct task_message *m) {
    struct pollfd p = {executor, POLLIN, 0};
    if (poll(&p, 1, 0) > 0) return;
    waiting.like = *m;
    memcpy(waiting.strings, m + 1, m->strings_len);
    parse_strings(m, waiting.strings, waiting.strings + m->strings_len);
    reset_run(0);
    waiting.there = true;
    // The next task tells what is wrong, if anything is. There may be one pipe, and not the others.
    if (start(-1, NULL, 0)) {
        dismiss();
        close_from(first_task_fd, TASK_FDS_MOST);
    }
}

static bool matches(const struct task_message *m) {
    const struct task_message *w = &waiting.like;
    return m->argc == w->argc && m->envc == w->envc && m->filec == w->filec && m->strings_len == w->strings_len &&
           !memcmp(m + 1, waiting.strings, m->strings_len);
}

static void report_unfit(void) {
    struct head m = {.type = UNFIT, .task = last_task};
    dismiss();
    tell(&(struct iovec){&m, sizeof m}, 1, NULL, 0);
}

// Wait for the next message beside the waiting program.
static void wait_beside(void) {
    for (bool there = false; !there && waiting.there;)
        if (!is_fit(-1, &there)) report_unfit();
}

// A file of the content that the executor is to read: it gets this one for itself, and the place another. A program that waits for
// the next task runs while it reads.
static void give_away(int fd) {
    struct stat st;
    if (!item_count || fstat(fd, &st)) return;
    for (struct item *i = items; i < items + item_count; i++)
        if (i->was.st_dev == st.st_dev && i->was.st_ino == st.st_ino) i->was.st_ino = 0;
}

// Report the end. False when the executor is lost.
static bool report(const struct task_message *m, int failed, uint64_t wall_us, bool prestarted) {
    int32_t errnos[FILES_COUNT];
    int fds[FILES_COUNT];
    size_t fd_count = 0;
    for (int i = 0; i < m->filec; i++) {
        int fd = open_file(files[i]);
        errnos[i] = fd < 0 ? -fd : 0;
        if (fd >= 0) give_away(fds[fd_count++] = fd);
    }
    bool dirty = !all_clean();
    struct exit_message x = {
        .head = {.type = EXITED, .task = run.number,
                 .flags = (uint8_t)((run.handed_over ? HANDED_OVER : 0) | (run.killed ? KILLED : 0) | (dirty ? CLEANING : 0) | (prestarted ? PRESTARTED : 0))},
        .how = failed < 0 ? HOW_NOT_STARTED : failed ? HOW_NOT_EXECUTED : WIFSIGNALED(run.status) ? HOW_SIGNALLED : HOW_EXITED,
        // The profile kills nobody but who makes another architecture's calls.
        .why = failed || !WIFSIGNALED(run.status) || WTERMSIG(run.status) != SIGSYS || !tried ? why : why_not(tried, 0),
        .code = failed ? abs(failed) : WIFSIGNALED(run.status) ? WTERMSIG(run.status) : WEXITSTATUS(run.status),
        .wall_us = wall_us,
        .reaped_cpu_us = run.reaped_cpu_us,
        .guest_cpu_us = own_cpu_us(),
        .max_rss_kib = run.max_rss_kib,
        .filec = m->filec,
        .stdout_len = out.len,
        .stderr_len = err.len,
    };
    struct iovec parts[] = {
        {&x, sizeof x}, {errnos, m->filec * sizeof errnos[0]}, {out.data, out.len}, {err.data, err.len}};
    bool told = tell(parts, 4, fds, fd_count);
    close_from(first_task_fd, TASK_FDS_MOST);
    if (!dirty || !told) return told;
    int error = clean_all();
    struct cleaned_message c = {
        .head = {.type = CLEANED, .task = run.number}, .ok = !error, .error = error, .guest_cpu_us = own_cpu_us()};
    told = tell(&(struct iovec){&c, sizeof c}, 1, NULL, 0);
    if (error) _exit(EXIT_UNCLEAN);
    return told;
}

static bool carry_out(struct task_message *m, size_t size, int stdin_fd) {
    if (size < sizeof *m || m->head.reserved || m->reserved || m->head.flags & ~(STDIN_FD | STREAM | PRESTART | STDIN_ASKED) || m->head.task != last_task + 1 ||
        !m->argc || m->argc + m->envc > STRINGS_COUNT || m->filec > FILES_COUNT || m->strings_len > STRINGS_BYTES ||
        m->stdin_len > STDIN_BYTES || size != sizeof *m + m->strings_len + m->stdin_len ||
        (stdin_fd >= 0) != !!(m->head.flags & STDIN_FD) || (m->head.flags & (STDIN_FD | STDIN_ASKED) && m->stdin_len) ||
        (m->head.flags & STDIN_FD && m->head.flags & STDIN_ASKED))
        malformed();
    char *strings = (char *)(m + 1);
    const unsigned char *data = m->head.flags & STDIN_ASKED ? NULL : (unsigned char *)strings + m->strings_len;
    if (waiting.there && !is_fit(0, NULL)) report_unfit();
    bool prestarted = waiting.there && stdin_fd < 0 && matches(m);
    if (waiting.there && !prestarted) dismiss();
    waiting.there = false;
    parse_strings(m, strings, strings + m->strings_len);
    uint64_t began = now_us();
    int failed = 0;
    if (prestarted) {
        run.number = m->head.task;
        if (data) feed_inline(data, m->stdin_len);
    } else {
        reset_run(m->head.task);
        failed = start(stdin_fd, data, m->stdin_len);
    }
    last_task = m->head.task;
    bool there = failed || ((data || hand_stdin_over()) && (!(m->head.flags & STREAM) || hand_over()) && attend());
    uint64_t wall_us = now_us() - began;
    // A lost executor and a program that ended leave nobody behind.
    if (!run.alone && !reap(WNOHANG)) kill_all();
    there = there && drain() && report(m, failed, wall_us, prestarted);
    if (there && m->head.flags & PRESTART && !failed) prestart(m);
    if (there) return true;
    close_from(first_task_fd, TASK_FDS_MOST);
    if (clean_all()) _exit(EXIT_UNCLEAN);
    return false;
}

static void __attribute__((noreturn)) serve(void) {
    for (;;) {
        int fd;
        wait_beside();
        ssize_t n = hear(message, sizeof message, 0, &fd);
        struct head *head = (struct head *)message;
        if (n == 0) {
            if (waiting.there) dismiss();
            poll(NULL, 0, CONNECT_FIRST_MS);
            connect_executor();
            continue;
        }
        if (n < (ssize_t)sizeof *head) malformed();
        if (head->type != TASK && (n != sizeof *head || fd >= 0 || head->flags || head->reserved)) malformed();
        if (head->type == RETIRE) _exit(EXIT_RETIRED);
        // A KILL on its way while its task ended is late, not wrong.
        if (head->type == KILL) continue;
        if (head->type != TASK) malformed();
        if (!carry_out((struct task_message *)message, (size_t)n, fd)) connect_executor();
    }
}

static bool is_named(const char *variable, size_t name_len, char **names) {
    for (; *names; names++)
        if (strlen(*names) == name_len && !memcmp(*names, variable, name_len)) return true;
    return false;
}

// The program gets no token, and where there are `names` nothing but those: what an orchestrator adds is not the image's.
static void take_environment(char **names) {
    char **kept = base_env = environ;
    for (char **e = environ; *e; e++) {
        size_t name_len = (size_t)(strchrnul(*e, '=') - *e);
        if (name_len == sizeof TOKEN_NAME - 1 && !memcmp(*e, TOKEN_NAME, name_len)) {
            char *value = *e + name_len + !!(*e)[name_len];
            if (strlen(value) == TOKEN_BYTES) memcpy(token, value, TOKEN_BYTES);
            memset(value, 'x', strlen(value));
        } else if (!names || is_named(*e, name_len, names)) *kept++ = *e;
    }
    *kept = NULL;
}

// ---- the start

// Refuse a call that names process 1, be it in its first argument or, for calls that take (which, who), in its second; of those,
// also the wider kinds of `which`, up to all processes of the user.
static struct sock_filter *refuse(struct sock_filter *at, unsigned call, bool takes_which) {
    const unsigned x32_bit = 0x40000000, user = 2;
    const struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_STMT(BPF_ALU | BPF_AND | BPF_K, ~x32_bit),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 6),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[0])),
        BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, takes_which ? user : UINT32_MAX, 2, 0),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, takes_which ? offsetof(struct seccomp_data, args[1]) : offsetof(struct seccomp_data, args[0])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 1, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    memcpy(at, code, sizeof code);
    return at + sizeof code / sizeof *code;
}

// Ask us, by `ask`, for a netlink socket; our own calls bear the word. What a socket may hold unread stays the machine's default: what
// a program says of it is answered as by a machine where that is the most.
static struct sock_filter *bound_netlink(struct sock_filter *at, unsigned socket_call, unsigned option_call, unsigned ask) {
    const unsigned x32_bit = 0x40000000;
    const struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_STMT(BPF_ALU | BPF_AND | BPF_K, ~x32_bit),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, socket_call, 0, 7),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[0])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AF_NETLINK, 0, 11),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[3])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)netlink_word, 0, 2),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[3]) + 4),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)(netlink_word >> 32), 7, 0),
        BPF_STMT(BPF_RET | BPF_K, ask),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, option_call, 0, 5),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[1])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SOL_SOCKET, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[2])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SO_RCVBUF, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    memcpy(at, code, sizeof code);
    return at + sizeof code / sizeof *code;
}

// The program is our user, so the kernel would let it lower our limits and our priority, and every later task inherits both. This
// filter, which it inherits, forbids that, and bounds netlink sockets. Other calls cost nothing more: the kernel remembers that they
// always pass. `flags` as of seccomp; the descriptor by which it asks, 0 where it does not, or below 0 when it cannot.
static int filter(unsigned flags, unsigned netlink_answer) {
    enum { CALLS = 7, TAKE_WHICH = 5, CODE_EACH = 9, CODE_NETLINK = 17 };  // the calls from TAKE_WHICH on take (which, who)
    static const struct { unsigned arch, calls[CALLS], socket, setsockopt; } tables[] = {
#if defined(__x86_64__)
        {AUDIT_ARCH_X86_64, {302, 142, 144, 203, 314, 141, 251}, 41, 54},
        {AUDIT_ARCH_I386, {340, 154, 156, 241, 351, 97, 289}, 359, 366},
#elif defined(__aarch64__)
        {AUDIT_ARCH_AARCH64, {261, 118, 119, 122, 274, 140, 30}, 198, 208},
        {AUDIT_ARCH_ARM, {369, 154, 156, 241, 380, 97, 314}, 281, 294},
#endif
        // in this order: prlimit64, sched_setparam, sched_setscheduler, sched_setaffinity, sched_setattr, setpriority, ioprio_set
    };
    static struct sock_filter code[256];
    struct sock_filter *at = code;
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++) {
        *at++ = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch));
        *at++ = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, tables[i].arch, 0, CALLS * CODE_EACH + CODE_NETLINK);
        for (int j = 0; j < CALLS; j++) at = refuse(at, tables[i].calls[j], j >= TAKE_WHICH);
        at = bound_netlink(at, tables[i].socket, tables[i].setsockopt, netlink_answer);
    }
    *at++ = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    struct sock_fprog program = {(unsigned short)(at - code), code};
    return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);
}

// Kernels before 5.14 cannot ask as we need it, and one filter may ask at most: there nobody gets a netlink socket.
static void guard(void) {
    // Who asks is not to be interrupted once we have heard of it, where the kernel knows that (5.19).
    const unsigned asking = SECCOMP_FILTER_FLAG_NEW_LISTENER, patient = asking | SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
    socklen_t size = sizeof (int);
    int held = 0, probe;
    if (getrandom(&netlink_word, sizeof netlink_word, 0) != sizeof netlink_word) unusable("getrandom", strerror(errno));
    protocols = open("/proc/self/net/protocols", O_RDONLY | O_CLOEXEC);
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) unusable("no_new_privs", strerror(errno));
    if (protocols >= 0 && (netlink_asked = filter(patient, SECCOMP_RET_USER_NOTIF)) < 0) netlink_asked = filter(asking, SECCOMP_RET_USER_NOTIF);
    if (netlink_asked < 0 && filter(0, SECCOMP_RET_ERRNO | ENOBUFS)) unusable("seccomp", strerror(errno));
    if ((probe = make_netlink(SOCK_RAW, 0)) >= 0 && !getsockopt(probe, SOL_SOCKET, SO_RCVBUF, &held, &size)) netlink_most = NETLINK_BYTES / (held + NETLINK_EXCESS_BYTES);
    if (netlink_most < NETLINK_SOCKETS_LEAST) netlink_most = NETLINK_SOCKETS_LEAST;
    shut(&probe);
}

// Between the guest and the program, whom the kernel should kill for memory: read what the launcher chose for us.
static void take_oom_score(void) {
    char text[16] = "";
    oom_score = open("/proc/self/oom_score_adj", O_RDWR | O_CLOEXEC);
    if (oom_score < 0) return;
    int own = pread(oom_score, text, sizeof text - 1, 0) > 0 ? atoi(text) : 0;
    snprintf(oom_own, sizeof oom_own, "%d", own);
    snprintf(oom_program, sizeof oom_program, "%d", own > 1000 - OOM_PREFERENCE ? 1000 : own + OOM_PREFERENCE);
}

// The kernel counts descriptors in flight, in messages that nobody has received yet, per user of the host over all slots, and
// compares the sum with the limit of whoever sends. So programs, each with its lower limit, cannot use up what we need for our own messages.
static void take_descriptors(const char *of_program) {
    struct rlimit own;
    char *end;
    program_descriptors.rlim_cur = program_descriptors.rlim_max = strtoul(of_program, &end, 10);
    if (*end || program_descriptors.rlim_cur < 3 || program_descriptors.rlim_cur > INT_MAX) unusable(of_program, "no number of descriptors");
    if (!getrlimit(RLIMIT_NOFILE, &own) && own.rlim_max / DESCRIPTORS_FACTOR >= program_descriptors.rlim_cur) {
        own.rlim_cur = own.rlim_max;
        if (!setrlimit(RLIMIT_NOFILE, &own)) return;
    }
    fprintf(stderr, "guest: may have %lu descriptors at most, and needs %d times the program's %s\n", (unsigned long)own.rlim_max, DESCRIPTORS_FACTOR, of_program);
    _exit(EXIT_FEW_DESCRIPTORS);
}

static void take_traits(void) {
    for (struct trait *t = traits; t < traits + sizeof traits / sizeof *traits; t++) {
        t->fd = open(t->path, O_RDWR | O_CLOEXEC);
        if (t->fd >= 0 && pread(t->fd, t->was, sizeof t->was - 1, 0) <= 0) shut(&t->fd);
    }
}

int main(int argc, char **args) {
    if (getpid() != 1) unusable("runs as PID 1 of a slot only", "it kills every process that it can reach");
    if (argc < 3 || strlen(args[1]) >= sizeof ((struct sockaddr_un *)0)->sun_path) {
        fprintf(stderr, "usage: guest SOCKET DESCRIPTORS PLACE... [-- VARIABLE...]\n");
        return EXIT_USAGE;
    }
    socket_path = args[1];
    char **places_end = args + 3;
    while (*places_end && strcmp(*places_end, "--")) places_end++;
    // Descriptors 0, 1 and 2 are taken, so that no pipe's end is one of them; nothing else is inherited.
    while (open("/dev/null", O_RDWR) >= 0 && fcntl(2, F_GETFD) < 0) {}
    close_from(3, 65536);
    take_descriptors(args[2]);
    take_oom_score();
    // We are not dumpable, so only root owns our files there.
    if (!geteuid()) take_traits();
    prctl(PR_SET_DUMPABLE, 0);
    take_environment(*places_end ? places_end + 1 : NULL);
    // From within, a signal with its default disposition does nothing to PID 1; blocked it would pile up. SIGCHLD we fetch.
    static const unsigned long by_default[4];
    for (int i = 1; i <= 64; i++) syscall(SYS_rt_sigaction, i, by_default, NULL, 8);
    sigset_t child_signal;
    sigemptyset(&child_signal);
    sigaddset(&child_signal, SIGCHLD);
    sigprocmask(SIG_SETMASK, &child_signal, NULL);
    children = signalfd(-1, &child_signal, SFD_NONBLOCK | SFD_CLOEXEC);
    if (children < 0) unusable("signalfd", strerror(errno));
    umask(022);
    take_places(args + 3, (int)(places_end - args) - 3);
    guard();
    connect_executor();
    // The connection is the last descriptor that is ours; a later one gets its number again.
    first_task_fd = executor + 1;
    serve();
}
