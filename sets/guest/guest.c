// The guest: PID 1 of every slot. Runs the image's own program once per task and hands its bytes to the executor.
// PROTOCOL.md beside this file is the contract. The program is hostile: it runs beside us as the same user, and can
// do nothing to us that the kernel lets only root or the tracer of a process do (we are not dumpable, and PID 1).
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
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
#define STRINGS_BYTES 69632
#define STRINGS_COUNT 8192
#define STDIN_BYTES 61440
#define OUTPUT_BYTES 61440
#define FILES_COUNT 64
#define PLACES_COUNT 64
#define TOKEN_BYTES 64
#define CONNECT_LIMIT_S 60
#define CONNECT_FIRST_MS 10
#define CONNECT_MOST_MS 500
// A write of this size into a fresh pipe never blocks, however little pipe memory our user has left.
#define PIPE_ALWAYS_HOLDS 4096

enum { EXIT_RETIRED = 0, EXIT_USAGE = 2, EXIT_NO_EXECUTOR = 3, EXIT_MALFORMED = 4 };
enum { TASK = 1, KILL = 2, RETIRE = 3, HELLO = 16, OUTPUT = 17, EXITED = 18, CLEANED = 19 };
enum { STDIN_FD = 1, STREAM = 2 };
enum { HANDED_OVER = 1, KILLED = 2, CLEANING = 4 };
enum { HOW_EXITED = 0, HOW_SIGNALLED = 1, HOW_NOT_EXECUTED = 2 };
// What a look at the executor's socket found.
enum { NOTHING, LOST };

struct __attribute__((packed)) head { uint8_t type, flags; uint16_t reserved; uint32_t task; };
struct __attribute__((packed)) task_message {
    struct head head;
    uint16_t argc, envc, filec, reserved;
    uint32_t strings_len, stdin_len;
};
struct __attribute__((packed)) hello_message { struct head head; uint8_t version, reserved[3]; char token[TOKEN_BYTES]; };
struct __attribute__((packed)) output_message { struct head head; uint32_t stdout_len, stderr_len; };
struct __attribute__((packed)) exit_message {
    struct head head;
    uint8_t how, reserved[3];
    int32_t code;
    uint64_t wall_us, reaped_cpu_us, guest_cpu_us, max_rss_kib;
    uint16_t filec, reserved2;
    uint32_t stdout_len, stderr_len;
};
struct __attribute__((packed)) cleaned_message { struct head head; uint8_t ok, reserved[3]; int32_t error; uint64_t guest_cpu_us; };

// One of the program's outputs: the pipe's read end until it ends or is handed over, and what was read so far.
struct output { int fd; uint32_t len; unsigned char data[OUTPUT_BYTES]; };

// A place that the program may write to, and how it looks when it is clean.
struct place {
    const char *path;
    int fd;
    bool counts;   // the file system tells how many inodes are in use
    bool ours;     // the program, being us, may change the folder itself
    bool holds_cwd;
    uint64_t inodes;
    mode_t mode;
    ssize_t xattrs;
};

static int executor = -1, children = -1, oom_score = -1;
static char token[TOKEN_BYTES];
static const char *socket_path;
static char **base_env;
static size_t base_env_count;
static struct place places[PLACES_COUNT];
static int place_count;
static char start_cwd[PATH_MAX];
static mode_t start_cwd_mode;

static unsigned char message[MESSAGE_BYTES];
static struct output out, err;
static char *argv[STRINGS_COUNT + 1], **envp, *files[FILES_COUNT];
static uint64_t reported_cpu_us;

// The running task.
static struct {
    uint32_t number;
    pid_t pid;
    int in;
    const unsigned char *in_data;
    uint32_t in_left;
    bool killed, handed_over, ended;
    int status;
    uint64_t reaped_cpu_us, max_rss_kib;
} run;

static void __attribute__((noreturn)) malformed(void) { _exit(EXIT_MALFORMED); }

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

// ---- talking to the executor

// False when the executor is lost. The socket is blocking: a slow executor is waited for, a dead one is an error.
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
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS || c->cmsg_len != CMSG_LEN(sizeof(int))) malformed();
        memcpy(fd, CMSG_DATA(c), sizeof(int));
    }
    return n;
}

static void connect_executor(void) {
    uint64_t until = now_us() + CONNECT_LIMIT_S * 1000000ull;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    memcpy(address.sun_path, socket_path, strlen(socket_path));
    shut(&executor);
    for (int wait_ms = CONNECT_FIRST_MS;; wait_ms = wait_ms * 2 < CONNECT_MOST_MS ? wait_ms * 2 : CONNECT_MOST_MS) {
        executor = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
        if (executor >= 0 && !connect(executor, (struct sockaddr *)&address, sizeof address)) {
            struct hello_message hello = {.head = {.type = HELLO}, .version = 1};
            memcpy(hello.token, token, TOKEN_BYTES);
            struct iovec part = {&hello, sizeof hello};
            if (tell(&part, 1, NULL, 0)) {
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
            return true;
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

static bool has_prefix(const char *s, const char *prefix) { return !strncmp(s, prefix, strlen(prefix)); }

static const char *value_of(char **env, const char *name) {
    size_t n = strlen(name);
    for (; *env; env++)
        if (!strncmp(*env, name, n) && (*env)[n] == '=') return *env + n + 1;
    return NULL;
}

// Runs in the vforked child: execve with a search of PATH, and never a shell.
static int execute(char **env) {
    static char full[PATH_MAX + 256];
    const char *path = value_of(env, "PATH");
    if (strchr(argv[0], '/')) {
        execve(argv[0], argv, env);
        return errno;
    }
    int result = ENOENT;
    for (const char *at = path ? path : "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";; at++) {
        const char *end = strchrnul(at, ':');
        int n = snprintf(full, sizeof full, "%.*s%s%s", (int)(end - at), at, end > at ? "/" : "./", argv[0]);
        if (n > 0 && (size_t)n < sizeof full) {
            execve(full, argv, env);
            if (errno == EACCES) result = EACCES;
            else if (errno != ENOENT && errno != ENOTDIR) return errno;
        }
        at = end;
        if (!*at) return result;
    }
}

// Start the program with these as stdin, stdout and stderr. Returns 0 or the errno of the failed start.
static int spawn(int in, int o, int e) {
    volatile int failed = 0;
    // The child inherits the score; ours goes back to what it was. So the kernel, short of memory, takes the program.
    if (oom_score >= 0 && pwrite(oom_score, "500", 3, 0) < 0) shut(&oom_score);
    pid_t pid = vfork();
    if (pid == 0) {
        sigset_t none;
        sigemptyset(&none);
        setsid();
        if (dup2(in, 0) < 0 || dup2(o, 1) < 0 || dup2(e, 2) < 0) failed = errno;
        else {
            sigprocmask(SIG_SETMASK, &none, NULL);
            failed = execute(envp);
        }
        _exit(127);
    }
    int forked = pid < 0 ? errno : 0;
    if (oom_score >= 0 && pwrite(oom_score, "0", 1, 0) < 0) shut(&oom_score);
    if (forked) return forked;
    run.pid = pid;
    return failed;
}

// ---- writable places

static bool entry_is_real(const char *name) {
    return name[0] != '.' || (name[1] && (name[1] != '.' || name[2]));
}

static DIR *reopen(int fd) {
    int copy = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = copy < 0 ? NULL : fdopendir(copy);
    if (!dir && copy >= 0) close(copy);
    return dir;
}

static bool is_empty(int fd) {
    DIR *dir = reopen(fd);
    if (!dir) return false;
    struct dirent *entry;
    while ((entry = readdir(dir)) && !entry_is_real(entry->d_name)) {}
    closedir(dir);
    return !entry;
}

static bool is_clean(const struct place *p) {
    struct statfs fs;
    struct stat st;
    if (p->holds_cwd) return false;
    if (p->ours && (fstat(p->fd, &st) || st.st_mode != p->mode || flistxattr(p->fd, NULL, 0) != p->xattrs)) return false;
    if (!p->counts) return is_empty(p->fd);
    return !fstatfs(p->fd, &fs) && fs.f_files - fs.f_ffree == p->inodes;
}

// Remove one entry of `parent`; what a folder holds of folders moves up to `root` first, so that depth never matters.
static bool remove_entry(int root, int parent, const char *name) {
    static unsigned serial;
    if (!unlinkat(parent, name, 0) || errno == ENOENT) return true;
    if (errno != EISDIR && errno != EPERM && errno != EACCES) return false;
    if (!unlinkat(parent, name, AT_REMOVEDIR)) return true;
    fchmodat(parent, name, 0700, 0);
    if (parent != root) {
        char moved[32];
        do snprintf(moved, sizeof moved, ".gc-%u", ++serial);
        while (syscall(SYS_renameat2, parent, name, root, moved, 1 /* RENAME_NOREPLACE */) && errno == EEXIST);
        return !faccessat(root, moved, F_OK, AT_SYMLINK_NOFOLLOW);
    }
    int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) return false;
    DIR *dir = fdopendir(fd);
    if (!dir) {
        close(fd);
        return false;
    }
    bool progress = false;
    for (struct dirent *entry; (entry = readdir(dir));)
        if (entry_is_real(entry->d_name)) progress |= remove_entry(root, dirfd(dir), entry->d_name);
    closedir(dir);
    return !unlinkat(parent, name, AT_REMOVEDIR) || progress;
}

// 0, or the errno of what could not be removed.
static int clean(struct place *p) {
    struct stat st;
    if (p->ours && !fstat(p->fd, &st)) {
        if (st.st_mode != p->mode) fchmod(p->fd, p->mode & 07777);
        if (flistxattr(p->fd, NULL, 0) != p->xattrs) {
            static char names[65536];
            ssize_t n = flistxattr(p->fd, names, sizeof names);
            for (char *name = names; n > 0 && name < names + n; name += strlen(name) + 1) fremovexattr(p->fd, name);
        }
    }
    while (!is_empty(p->fd)) {
        DIR *dir = reopen(p->fd);
        if (!dir) return errno;
        bool progress = false;
        for (struct dirent *entry; (entry = readdir(dir));)
            if (entry_is_real(entry->d_name)) progress |= remove_entry(dirfd(dir), dirfd(dir), entry->d_name);
        int error = errno;
        closedir(dir);
        if (!progress) return error ? error : EIO;
    }
    if (p->holds_cwd) {
        // The image's WORKDIR lies in here: make it anew.
        for (char *at = start_cwd + strlen(p->path) + 1; *at; at++) {
            char *slash = strchrnul(at, '/'), kept = *slash;
            *slash = 0;
            mkdir(start_cwd, start_cwd_mode & 07777);
            chmod(start_cwd, start_cwd_mode & 07777);
            *slash = kept;
            at = slash;
            if (!kept) break;
        }
        if (chdir(start_cwd)) return errno;
    }
    return 0;
}

static bool all_clean(void) {
    for (int i = 0; i < place_count; i++)
        if (!is_clean(&places[i])) return false;
    return true;
}

static int clean_all(void) {
    int error = 0;
    for (int i = 0; i < place_count; i++)
        if (!is_clean(&places[i])) {
            int e = clean(&places[i]);
            if (e) error = e;
        }
    return error;
}

static void add_place(const char *path) {
    struct statfs fs;
    struct stat st;
    size_t n = strlen(path);
    if (place_count == PLACES_COUNT || path[0] != '/') _exit(EXIT_USAGE);
    struct place p = {.path = path, .fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
    if (p.fd < 0 || fstat(p.fd, &st) || fstatfs(p.fd, &fs)) {
        shut(&p.fd);
        return;
    }
    p.mode = st.st_mode;
    p.ours = st.st_uid == geteuid();
    p.xattrs = flistxattr(p.fd, NULL, 0);
    p.counts = fs.f_files > 0;
    p.inodes = fs.f_files - fs.f_ffree;
    p.holds_cwd = !strncmp(start_cwd, path, n) && start_cwd[n] == '/';
    places[place_count++] = p;
}

// ---- a task

// Open an output file: no link anywhere on its path, and nothing but a regular file. A negative errno otherwise. Nobody runs
// meanwhile, so a look before the open is as good as one after.
static int open_file(char *path) {
    struct stat st;
    int at = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC), error = 0;
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
    else if (!S_ISREG(st.st_mode)) error = EINVAL;
    else if ((fd = openat(at, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC)) < 0) error = errno;
    close(at);
    return fd < 0 ? -error : fd;
}

// Give the outputs' read ends to the executor, with what was read so far before them.
static bool hand_over(void) {
    struct output_message m = {
        .head = {.type = OUTPUT, .task = run.number}, .stdout_len = out.len, .stderr_len = err.len};
    struct iovec parts[] = {{&m, sizeof m}, {out.data, out.len}, {err.data, err.len}};
    int ended[2] = {-1, -1}, fds[2] = {out.fd, err.fd};
    // An output that has ended already is handed over as a pipe at its end.
    for (int i = 0; i < 2; i++)
        if (fds[i] < 0) {
            if (pipe2(ended, O_CLOEXEC)) return false;
            close(ended[1]);
            fds[i] = ended[0];
        }
    bool told = tell(parts, 3, fds, 2);
    shut(&ended[0]);
    shut(&out.fd);
    shut(&err.fd);
    out.len = err.len = 0;
    run.handed_over = true;
    return told;
}

// Read once. False when the executor is lost.
static bool read_output(struct output *o) {
    ssize_t n = read(o->fd, o->data + o->len, OUTPUT_BYTES - o->len);
    if (n > 0) {
        o->len += (uint32_t)n;
        return o->len < OUTPUT_BYTES || hand_over();
    }
    if (n == 0 || (errno != EAGAIN && errno != EINTR)) shut(&o->fd);
    return true;
}

static void feed(void) {
    while (run.in_left) {
        ssize_t n = write(run.in, run.in_data, run.in_left);
        if (n < 0) {
            if (errno == EAGAIN) return;
            if (errno == EINTR) continue;
            break;
        }
        run.in_data += n;
        run.in_left -= (uint32_t)n;
    }
    shut(&run.in);
}

// A message while a task runs. Returns LOST when the executor is gone.
static int obey(void) {
    struct head head;
    int fd;
    ssize_t n = hear(&head, sizeof head, MSG_DONTWAIT, &fd);
    if (n == 0) return LOST;
    if (n < 0) return NOTHING;
    if (n != sizeof head || fd >= 0) malformed();
    if (head.type == RETIRE) _exit(EXIT_RETIRED);
    if (head.type != KILL) malformed();
    if (head.task == run.number) {
        run.killed = true;
        kill(-1, SIGKILL);
    }
    return NOTHING;
}

// Until the program has ended. False when the executor is lost.
static bool attend(void) {
    while (!run.ended) {
        struct pollfd p[5] = {{executor, POLLIN, 0}, {children, POLLIN, 0}, {run.in, POLLOUT, 0}, {out.fd, POLLIN, 0}, {err.fd, POLLIN, 0}};
        if (poll(p, 5, -1) < 0) continue;
        if (p[3].revents && out.fd >= 0 && !read_output(&out)) return false;
        if (p[4].revents && err.fd >= 0 && !read_output(&err)) return false;
        if (p[2].revents) feed();
        if (p[0].revents && obey() == LOST) return false;
        if (p[1].revents) {
            struct signalfd_siginfo info[8];
            if (read(children, info, sizeof info) < 0 && errno != EAGAIN) return false;
            if (reap(WNOHANG)) return true;
        }
    }
    return true;
}

// What the pipes still hold, now that nobody can write any more.
static bool drain(struct output *o) {
    while (o->fd >= 0) {
        uint32_t before = o->len;
        if (!read_output(o)) return false;
        if (o->fd >= 0 && o->len == before) shut(&o->fd);
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
            if (!strchr(at, '=')) malformed();
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

// Make the pipes and start the program. Returns 0 or an errno; the outputs' read ends and stdin's write end are ours.
static int start(const struct task_message *m, int stdin_fd, const unsigned char *data) {
    int in[2] = {-1, -1}, o[2] = {-1, -1}, e[2] = {-1, -1}, failed = 0;
    if (stdin_fd >= 0) in[0] = stdin_fd;
    else if (pipe2(in, O_CLOEXEC)) failed = errno;
    if (!failed && (pipe2(o, O_CLOEXEC) || pipe2(e, O_CLOEXEC))) failed = errno;
    if (!failed) {
        fcntl(o[0], F_SETFL, O_NONBLOCK);
        fcntl(e[0], F_SETFL, O_NONBLOCK);
        run.in = in[1];
        run.in_data = data;
        run.in_left = m->stdin_len;
        if (run.in >= 0) {
            if (run.in_left > PIPE_ALWAYS_HOLDS) fcntl(run.in, F_SETFL, O_NONBLOCK);
            feed();
        }
        failed = spawn(in[0], o[1], e[1]);
    }
    shut(&in[0]);
    shut(&o[1]);
    shut(&e[1]);
    out.fd = o[0];
    err.fd = e[0];
    return failed;
}

// Report the end. False when the executor is lost.
static bool report(const struct task_message *m, int failed, uint64_t wall_us) {
    int32_t errnos[FILES_COUNT];
    int fds[FILES_COUNT];
    size_t fd_count = 0;
    for (int i = 0; i < m->filec; i++) {
        int fd = open_file(files[i]);
        errnos[i] = fd < 0 ? -fd : 0;
        if (fd >= 0) fds[fd_count++] = fd;
    }
    bool dirty = !all_clean();
    struct exit_message x = {
        .head = {.type = EXITED, .task = run.number,
                 .flags = (uint8_t)((run.handed_over ? HANDED_OVER : 0) | (run.killed ? KILLED : 0) | (dirty ? CLEANING : 0))},
        .how = failed ? HOW_NOT_EXECUTED : WIFSIGNALED(run.status) ? HOW_SIGNALLED : HOW_EXITED,
        .code = failed ? failed : WIFSIGNALED(run.status) ? WTERMSIG(run.status) : WEXITSTATUS(run.status),
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
    for (size_t i = 0; i < fd_count; i++) close(fds[i]);
    if (!dirty || !told) return told;
    int error = clean_all();
    struct cleaned_message c = {
        .head = {.type = CLEANED, .task = run.number}, .ok = !error, .error = error, .guest_cpu_us = own_cpu_us()};
    struct iovec part = {&c, sizeof c};
    return tell(&part, 1, NULL, 0);
}

static bool carry_out(struct task_message *m, size_t size, int stdin_fd) {
    if (size < sizeof *m || !m->argc || m->argc + m->envc > STRINGS_COUNT || m->filec > FILES_COUNT ||
        m->strings_len > STRINGS_BYTES || m->stdin_len > STDIN_BYTES || size != sizeof *m + m->strings_len + m->stdin_len ||
        (stdin_fd >= 0) != !!(m->head.flags & STDIN_FD) || (stdin_fd >= 0 && m->stdin_len))
        malformed();
    char *strings = (char *)(m + 1);
    parse_strings(m, strings, strings + m->strings_len);
    memset(&run, 0, sizeof run);
    run.number = m->head.task;
    run.in = -1;
    out.len = err.len = 0;
    uint64_t began = now_us();
    int failed = start(m, stdin_fd, (unsigned char *)strings + m->strings_len);
    bool there = true;
    if (!failed) {
        if (m->head.flags & STREAM) there = hand_over();
        there = there && attend();
    }
    uint64_t wall_us = now_us() - began;
    shut(&run.in);
    // A lost executor and a program that ended leave nobody behind.
    if (!reap(WNOHANG)) kill_all();
    there = there && drain(&out) && drain(&err) && report(m, failed, wall_us);
    shut(&out.fd);
    shut(&err.fd);
    if (!there) clean_all();
    return there;
}

static void __attribute__((noreturn)) serve(void) {
    for (;;) {
        int fd;
        ssize_t n = hear(message, sizeof message, 0, &fd);
        struct head *head = (struct head *)message;
        if (n == 0) {
            connect_executor();
            continue;
        }
        if (n < (ssize_t)sizeof *head) malformed();
        if (head->type == RETIRE && n == sizeof *head && fd < 0) _exit(EXIT_RETIRED);
        // A KILL on its way while its task ended is late, not wrong.
        if (head->type == KILL && n == sizeof *head && fd < 0) continue;
        if (head->type != TASK) malformed();
        if (!carry_out((struct task_message *)message, (size_t)n, fd)) connect_executor();
    }
}

static void take_environment(void) {
    extern char **environ;
    size_t count = 0;
    while (environ[count]) count++;
    base_env = calloc(count + 1, sizeof *base_env);
    if (!base_env) _exit(EXIT_USAGE);
    for (char **e = environ; *e; e++) {
        if (has_prefix(*e, "GC_TOKEN=") && strlen(*e) == 9 + TOKEN_BYTES) {
            memcpy(token, *e + 9, TOKEN_BYTES);
            memset(*e + 9, 'x', TOKEN_BYTES);
        }
        if (!has_prefix(*e, "GC_") && !has_prefix(*e, "NOMAD_")) base_env[base_env_count++] = *e;
    }
}

int main(int argc, char **args) {
    struct stat st;
    sigset_t all, child;
    if (getpid() != 1) {
        fprintf(stderr, "guest: runs as PID 1 of a slot only: it kills every process that it can reach\n");
        return EXIT_USAGE;
    }
    if (argc < 2 || strlen(args[1]) >= sizeof ((struct sockaddr_un *)0)->sun_path) {
        fprintf(stderr, "usage: guest SOCKET PLACE...\n");
        return EXIT_USAGE;
    }
    socket_path = args[1];
    syscall(SYS_close_range, 3, ~0u, 0);
    oom_score = open("/proc/self/oom_score_adj", O_RDWR | O_CLOEXEC);
    prctl(PR_SET_DUMPABLE, 0);
    take_environment();
    // All signals are blocked: SIGPIPE does nothing, SIGCHLD comes by descriptor. The program starts with none blocked.
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, NULL);
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    children = signalfd(-1, &child, SFD_NONBLOCK | SFD_CLOEXEC);
    if (children < 0) return EXIT_USAGE;
    out.fd = err.fd = -1;
    umask(022);
    if (!getcwd(start_cwd, sizeof start_cwd)) strcpy(start_cwd, "/");
    if (!stat(start_cwd, &st)) start_cwd_mode = st.st_mode;
    for (int i = 2; i < argc; i++) add_place(args[i]);
    connect_executor();
    serve();
}
