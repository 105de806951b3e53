// The kernel and the executor as the guest meets them, played from the fuzzer's input: descriptors, pipes, one program, one
// connection. It is exact where the guest's promises depend on it: a call that would block, a descriptor that stays open, one
// that a program would inherit, a process that is left, a malformed message that passes: each is `broken`, a finding.
//
// The input is a list of records, an operation and its operands (see `step`). One is taken whenever the guest would wait.
#pragma once

enum { FIRST_FD = 1000, FDS = 256, PIPE_MODELS = 64, QUEUE = 8, INBOX_BYTES = 300000, PIPE_PAGE = 4096, PIPE_BYTES = 65536 };
enum { OUTS = 64, FILE_BYTES = 100000, INPUT_BYTES = 150000 };
enum { SPINS_MOST = 100000, DESCRIPTORS = 4096, NETLINK_MOST = 60, NETLINK_ID = 77 };
enum kind { FREE, CONNECTION, SIGNALS, READ_END, WRITE_END, GIVEN, TO_EXECUTOR, FOLDER, REGULAR, ASKED, PROTOCOLS, NETLINK, NOTHING };
enum call { IN_PIPE2, IN_SENDMSG, IN_RECVMSG, IN_VFORK, IN_EXECVE, IN_POLL, IN_WRITE, IN_WAIT4, IN_SOCKET, IN_CONNECT, IN_CLOSE_RANGE, IN_OPENAT, IN_SPLICE, IN_PREAD, CALLS };

// What each call may fail with, once, where the input asks for it.
static const int failures[CALLS][4] = {
    [IN_PIPE2] = {EMFILE, ENFILE, ENOMEM, EMFILE},
    [IN_SENDMSG] = {EPIPE, ECONNRESET, EAGAIN, EINTR},
    [IN_RECVMSG] = {ECONNRESET, EINTR, ECONNRESET, EINTR},
    [IN_VFORK] = {EAGAIN, ENOMEM, EAGAIN, ENOMEM},
    [IN_EXECVE] = {EACCES, E2BIG, ENOEXEC, ENOMEM},
    [IN_POLL] = {EINTR, EINTR, EINTR, EINTR},
    [IN_WRITE] = {EINTR, EAGAIN, EINTR, EAGAIN},
    [IN_WAIT4] = {EINTR, EINTR, EINTR, EINTR},
    [IN_SOCKET] = {EMFILE, ENFILE, ENOMEM, EMFILE},
    [IN_CONNECT] = {ECONNREFUSED, EAGAIN, ENOENT, ECONNREFUSED},
    [IN_CLOSE_RANGE] = {ENOSYS, ENOSYS, ENOSYS, ENOSYS},
    [IN_OPENAT] = {EMFILE, EIO, EACCES, ENOMEM},
    [IN_SPLICE] = {EINTR, EAGAIN, ENOMEM, EINTR},
    [IN_PREAD] = {EIO, EINTR, EIO, EINTR},
};

// The files that there are: a root with a bit of everything that a task may name as its output.
static const struct node { const char *name; int parent; mode_t mode; dev_t device; } nodes[] = {
    {"", 0, S_IFDIR, 1}, {"out", 0, S_IFREG, 1}, {"dir", 0, S_IFDIR, 1}, {"file", 2, S_IFREG, 1},
    {"link", 0, S_IFLNK, 1}, {"fifo", 0, S_IFIFO, 1}, {"proc", 0, S_IFDIR, 2}, {"self", 6, S_IFREG, 2},
};
enum { NODES = sizeof nodes / sizeof *nodes };

struct pipe_model { uint32_t held, size, taken; bool given; };  // taken: bytes that the guest has read

static struct {
    const uint8_t *at, *end;          // what is left of the input
    uint32_t together;                // records to take before the guest is let on
    struct { enum kind kind; int what; bool cloexec, nonblocking; } fds[FDS];
    struct pipe_model pipes[PIPE_MODELS];
    uint32_t pipes_made, pipe_size;
    struct { uint32_t room; bool gone; } outs[OUTS];  // pipes that the executor gave, and whether it has closed its end
    uint32_t outs_made;
    uint32_t input_left;              // bytes in the pipe of STDIN_FD, after which it ends
    bool closes_blindly;              // no close_range: the guest closes by number
    int faults[CALLS], faults_after[CALLS];  // an errno, and how many calls go well before it
    const uint8_t *queue[QUEUE];      // records of messages that the guest has not heard yet
    uint32_t queued, spins;
    bool lost;                        // the executor is gone, after what is queued
    const uint8_t *last_task;         // the record, to be sent again
    bool heard_retire;
    bool refuse, empty;               // the last message was malformed; it was of no bytes
    bool child;                       // between vfork and execve
    bool forked;                      // in a child of the guest's own
    enum { NOBODY, ASKS, HEARD } netlink;  // a program wants a netlink socket
    uint32_t netlink_live, netlink_type;
    uint32_t netlink_requests;        // as the kernel counts them, also of threads that have ended since
    bool netlink_told;                // the guest has read how many live
    uint32_t messages_sent;
    enum { SERVES, UNDRESSED_YET, TO_REPORT } dressing;  // the guest waits for DRESSED; it has heard it, and CLEANED must follow
    bool dressed;                     // it has waited, so a number is kept where its first connection was
} world;

// The program and its orphans.
static struct {
    bool lives, dead, reads;  // dead: not reaped yet
    bool ran, failed;         // it was executed, or could not be
    bool limited;             // it has its own limit of descriptors
    uint32_t arguments_len;
    int status, ends[3];      // its stdin, stdout and stderr: pipes, or -1
    uint32_t wants[3];        // bytes that it is about to write
    uint32_t orphans, dead_orphans;
    bool signalled;           // SIGCHLD waits
} program;

// The task as the messages have it.
static struct { bool runs, handed_over, has_pipes, has_files, released, killed; uint32_t number, fed, stdin_len, arguments_len; uint8_t flags; uint16_t filec; bool open[64]; } asked;

static uint8_t inbox[INBOX_BYTES], outbox[INBOX_BYTES], input_of_task[65536];
static uint8_t arguments_of_task[75000], arguments_of_program[75000];
static uint8_t pattern[65536];  // what every program writes, and is given to read
static jmp_buf whole, vforked, forked;
static int ended_with;
static bool tracing;

static bool guest_waits(void);
static const int NO_EXIT = -1;

#define TRACE(...) ((void)(tracing && fprintf(stderr, __VA_ARGS__)))

static void __attribute__((noreturn, format(printf, 1, 2))) broken(const char *what, ...) {
    va_list list;
    va_start(list, what);
    fprintf(stderr, "BROKEN: ");
    vfprintf(stderr, what, list);
    fprintf(stderr, "\n");
    va_end(list);
    abort();
}

#ifdef PLANTED
static bool planted(const char *which) { return getenv("PLANT") && !strcmp(getenv("PLANT"), which); }
#else
static bool planted(const char *which) { (void)which; return false; }
#endif

// ---- the input

static uint32_t take(int bytes) {
    uint32_t value = 0;
    for (int i = 0; i < bytes; i++)
        if (world.at < world.end) value |= (uint32_t)*world.at++ << (8 * i);
    return value;
}

static const uint8_t *take_bytes(uint32_t *count) {
    const uint8_t *bytes = world.at;
    if (*count > world.end - world.at) *count = (uint32_t)(world.end - world.at);
    world.at += *count;
    return bytes;
}

// ---- descriptors

static int open_fd(enum kind kind, int what, bool cloexec) {
    for (int i = 0; i < FDS; i++)
        if (world.fds[i].kind == FREE) {
            world.fds[i].kind = kind;
            world.fds[i].what = what;
            world.fds[i].cloexec = cloexec;
            world.fds[i].nonblocking = false;
            return FIRST_FD + i;
        }
    broken("more than %d descriptors are open", FDS);
}

static bool is_open(int fd) { return fd >= FIRST_FD && fd < FIRST_FD + FDS && world.fds[fd - FIRST_FD].kind; }
static enum kind kind_of(int fd) { return is_open(fd) ? world.fds[fd - FIRST_FD].kind : FREE; }

static int expect(int fd, enum kind kind, const char *call) {
    if (kind_of(fd) != kind) broken("%s of descriptor %d, which is of kind %d, not %d", call, fd, kind_of(fd), kind);
    return fd - FIRST_FD;
}

static bool has_end(int pipe, enum kind kind) {
    for (int i = 0; i < FDS; i++)
        if (world.fds[i].kind == kind && world.fds[i].what == pipe) return true;
    return false;
}

static int fails(enum call call) {
    int error = world.faults[call];
    if (error && world.faults_after[call]-- > 0) return 0;
    world.faults[call] = 0;
    if (error) errno = error;
    return error;
}

// ---- the program

static void no_program(void) {
    memset(&program, 0, sizeof program);
    program.ends[0] = program.ends[1] = program.ends[2] = -1;
}

static void end_program(int status) {
    if (!program.lives) return;
    program.lives = program.reads = false;
    world.netlink = NOBODY;
    program.dead = program.signalled = true;
    program.status = status;
    memset(program.wants, 0, sizeof program.wants);
}

static struct pipe_model *pipe_of(int end) { return program.ends[end] < 0 ? NULL : &world.pipes[program.ends[end]]; }

// What it writes flows as far as there is room. Nobody is left to read what the executor was given: that is not ours.
static void flow(void) {
    for (int end = 1; end < 3; end++) {
        struct pipe_model *p = pipe_of(end);
        if (!p || !program.lives || !has_end(program.ends[end], READ_END)) continue;
        uint32_t room = p->size - p->held, n = program.wants[end] < room ? program.wants[end] : room;
        p->held += n;
        program.wants[end] -= n;
    }
}

// ---- the next record

enum operation { MESSAGE_RAW, TASK_MADE, TASK_AGAIN, KILL_MADE, RETIRE_MADE, EXECUTOR_LOST, WRITES, READS, STUFFS, STEALS, ENDS, FORKS, FAILS, PIPES_OF, TOGETHER, ASKS_NETLINK, PIPES_MADE, READ_MADE, RELEASE_MADE, TAKES, DRESSED_MADE, AWAITS_DRESSING, SHOW_MADE, OPERATIONS };

static void skip_message(enum operation operation) {
    uint32_t n;
    if (operation == MESSAGE_RAW) {
        take(1);  // descriptors
        take(3);  // times
        take(1);  // a byte
        n = take(3);
        take_bytes(&n);
    } else if (operation == TASK_MADE) {
        take(1);  // flags
        take(2);  // envc
        take(1);  // filec
        take(2);  // stdin_len
        n = take(2);
        take_bytes(&n);  // strings
        n = take(1) & 7;
        take_bytes(&n);  // more, as often
        take(2);         // as this
        n = take(2);
        take_bytes(&n);  // strings behind it
    } else if (operation == TASK_AGAIN) take(3);
    else if (operation == KILL_MADE || operation == SHOW_MADE) take(1);
    else if (operation == READ_MADE) {
        take(4);  // file, first
        take(3);  // length
    }
}

// Take one record. False: the input is at its end.
static bool step(void) {
    if (world.at >= world.end) return false;
    const uint8_t *record = world.at;
    enum operation operation = (enum operation)(take(1) % OPERATIONS);
    uint32_t end, n;
    world.spins = 0;
    switch (operation) {
    case MESSAGE_RAW:
    case TASK_MADE:
    case TASK_AGAIN:
    case KILL_MADE:
    case RETIRE_MADE:
    case PIPES_MADE:
    case READ_MADE:
    case RELEASE_MADE:
    case DRESSED_MADE:
    case SHOW_MADE:
        skip_message(operation);
        // What is sent to a dead connection, or into a full one, never arrives.
        if (!world.lost && world.queued < QUEUE) world.queue[world.queued++] = record;
        break;
    case EXECUTOR_LOST: world.lost = true; break;
    case WRITES:
        end = 1 + take(1) % 2;
        n = take(3);
        if (program.lives) program.wants[end] += n % (1 << 22);
        flow();
        break;
    case READS:
        end = take(1);
        n = take(3);
        if (!program.lives || !pipe_of(0)) break;
        if (pipe_of(0)->held > n) pipe_of(0)->held -= n;
        else pipe_of(0)->held = 0;
        if (end & 1) program.reads = false;
        break;
    case STUFFS:  // it opens its own standard input for writing
        n = take(3);
        if (program.lives && pipe_of(0) && n <= pipe_of(0)->size - pipe_of(0)->held) pipe_of(0)->held += n;
        break;
    case STEALS:  // it reads its own output
        end = 1 + take(1) % 2;
        n = take(3);
        if (program.lives && pipe_of((int)end)) pipe_of((int)end)->held -= n < pipe_of((int)end)->held ? n : pipe_of((int)end)->held;
        break;
    case ENDS:
        n = take(2);
        end_program(n & 1 ? 1 + (int)(n >> 1) % 64 : (int)(n >> 1 & 255) << 8);
        break;
    case FORKS:
        n = take(1);
        if (program.lives && program.orphans < 1000) program.orphans += n & 7;
        if (n & 8 && program.orphans) {
            program.orphans--;
            program.dead_orphans++;
            program.signalled = true;
        }
        if (n & 16 && program.lives) program.signalled = true;  // it sends SIGCHLD to process 1
        break;
    case FAILS:
        end = take(1) % CALLS;
        n = take(1);
        world.faults[end] = failures[end][n & 3];
        world.faults_after[end] = n >> 2 & 7;
        break;
    case PIPES_OF: world.pipe_size = (1 + take(1) % 16) * PIPE_PAGE; break;
    case TOGETHER: world.together += take(1) % 16; break;
    case ASKS_NETLINK:  // while so many sockets live
        world.netlink_live = take(1);
        world.netlink_type = SOCK_RAW | (take(1) & 1 ? SOCK_CLOEXEC : 0);
        if (!program.lives || world.netlink) break;
        world.netlink = ASKS;
        world.netlink_requests++;
        break;
    case TAKES:  // the executor reads what its pipes hold, and may close one
        n = take(1);
        for (int i = 0; i < OUTS; i++) world.outs[i].room = world.pipe_size;
        if (n & 1) world.outs[(n >> 1) % OUTS].gone = true;
        break;
    default: break;
    }
    return true;
}

// Something happens; without anything left to happen the executor dies.
static void something_happens(void) {
    do {
        if (!step()) {
            world.lost = true;
            return;
        }
    } while (world.together && world.together--);
}

// ---- files

static int find_node(int folder, const char *name) {
    if (!strcmp(name, ".")) return folder;
    if (!strcmp(name, "..")) return nodes[folder].parent;
    if (strlen(name) > 255) errno = ENAMETOOLONG;
    else errno = ENOENT;
    for (int i = 1; i < NODES; i++)
        if (*name && nodes[i].parent == folder && !strcmp(nodes[i].name, name)) return i;
    return -1;
}

static int k_openat(int at, const char *name, int flags, ...) {
    int node = *name == '/' ? 0 : find_node(world.fds[expect(at, FOLDER, "openat")].what, name);
    if (node < 0 || fails(IN_OPENAT)) return -1;
    if (!(flags & O_CLOEXEC)) broken("a file is opened to be inherited");
    if (flags & O_DIRECTORY && !S_ISDIR(nodes[node].mode)) return errno = ENOTDIR, -1;
    if (!(flags & O_DIRECTORY) && !S_ISREG(nodes[node].mode)) broken("opens %s, which is no regular file", name);
    return open_fd(S_ISDIR(nodes[node].mode) ? FOLDER : REGULAR, node, true);
}

static int k_stat(int node, struct stat *st) {
    memset(st, 0, sizeof *st);
    st->st_mode = nodes[node].mode;
    st->st_dev = nodes[node].device;
    st->st_size = FILE_BYTES;
    return 0;
}

// Of programs there is nothing to look at: why they cannot be executed stays unknown.
static int k_stat_path(const char *path, struct stat *st) {
    (void)path, (void)st;
    return errno = ENOENT, -1;
}

static int k_fstatat(int at, const char *name, struct stat *st, int flags) {
    int node = find_node(world.fds[expect(at, FOLDER, "fstatat")].what, name);
    if (!(flags & AT_SYMLINK_NOFOLLOW)) broken("follows a link");
    return node < 0 ? -1 : k_stat(node, st);
}

static int k_fstat(int fd, struct stat *st) { return k_stat(world.fds[expect(fd, kind_of(fd) == REGULAR ? REGULAR : FOLDER, "fstat")].what, st); }

static ssize_t k_pread(int fd, void *to, size_t size, off_t at) {
    expect(fd, REGULAR, "pread");
    if (at < 0 || at + (off_t)size > FILE_BYTES) broken("reads behind the end of a file");
    if (fails(IN_PREAD)) return -1;
    memset(to, 'f', size);
    return (ssize_t)size;
}
