// The calls that the guest makes while it serves, over the model of kernel.h, and what must hold at each of them.
#pragma once

// ---- descriptors and pipes

static int k_close(int fd) {
    if (!is_open(fd)) {
        if (!world.closes_blindly) broken("closes descriptor %d, which is not open", fd);
        return errno = EBADF, -1;
    }
    if (kind_of(fd) == WRITE_END && world.fds[fd - FIRST_FD].what == program.ends[0] && program.reads && asked.runs && asked.fed < asked.stdin_len)
        broken("ends the input after %u of %u bytes", asked.fed, asked.stdin_len);
    if (kind_of(fd) == WRITE_END && world.fds[fd - FIRST_FD].what == program.ends[0] && program.reads && asked.runs && asked.flags & 1 && world.input_left)
        broken("ends the input %u bytes early", world.input_left);
    if (planted("descriptor") && kind_of(fd) == CONNECTION) return 0;
    world.fds[fd - FIRST_FD].kind = FREE;
    return 0;
}

static int k_netlink(unsigned family, unsigned type, unsigned protocol) {
    if (family != AF_NETLINK || protocol || world.netlink != HEARD || type != (SOCK_RAW | SOCK_CLOEXEC)) broken("makes a socket that nobody asked for");
    if (fails(IN_SOCKET)) return -1;
    return open_fd(NETLINK, 0, type & SOCK_CLOEXEC);
}

static long k_syscall(long number, ...) {
    va_list list;
    va_start(list, number);
    unsigned first = va_arg(list, unsigned), last = va_arg(list, unsigned), flags = va_arg(list, unsigned);
    va_end(list);
    if (number == SYS_socket) return k_netlink(first, last, flags);
    if (number != SYS_close_range || last != ~0u || flags) broken("system call %ld is not modelled", number);
    if (fails(IN_CLOSE_RANGE)) {
        world.closes_blindly = true;
        return -1;
    }
    for (unsigned fd = first; fd < FIRST_FD + FDS; fd++)
        if (is_open((int)fd)) world.fds[fd - FIRST_FD].kind = FREE;
    return 0;
}

static int k_pipe2(int *fds, int flags) {
    if (!program.lives && !program.dead) no_program();
    if (fails(IN_PIPE2)) return -1;
    int pipe = (int)(world.pipes_made++ % PIPE_MODELS);
    world.pipes[pipe] = (struct pipe_model){.size = world.pipe_size};
    fds[0] = open_fd(READ_END, pipe, flags & O_CLOEXEC && !planted("inherited"));
    fds[1] = open_fd(WRITE_END, pipe, flags & O_CLOEXEC);
    return 0;
}

static int k_fcntl(int fd, int command, ...) {
    va_list list;
    va_start(list, command);
    int flags = va_arg(list, int);
    va_end(list);
    if (command == F_DUPFD_CLOEXEC && kind_of(fd) == CONNECTION) {
        for (int i = flags - FIRST_FD; i >= 0 && i < FDS; i++) {
            if (world.fds[i].kind) continue;
            world.fds[i] = world.fds[fd - FIRST_FD];
            return FIRST_FD + i;
        }
        broken("more than %d descriptors are open", FDS);
    }
    if (command != F_SETFL || !is_open(fd)) broken("fcntl %d of descriptor %d is not modelled", command, fd);
    if (!planted("block")) world.fds[fd - FIRST_FD].nonblocking = flags & O_NONBLOCK;
    return 0;
}

// The number of the first connection of a guest that is dressed is kept.
static int k_dup3(int from, int to, int flags) {
    if (from != STDIN_FILENO || !(flags & O_CLOEXEC)) broken("keeps a number by what a program would inherit");
    world.fds[expect(to, CONNECTION, "dup3")].kind = NOTHING;
    return to;
}

static ssize_t k_read(int fd, void *to, size_t size) {
    if (kind_of(fd) == SIGNALS) {
        if (size < sizeof(struct signalfd_siginfo)) return errno = EINVAL, -1;
        if (!program.signalled) return errno = EAGAIN, -1;
        program.signalled = false;
        memset(to, 0, sizeof(struct signalfd_siginfo));
        return sizeof(struct signalfd_siginfo);
    }
    if (kind_of(fd) == PROTOCOLS) {
        if (world.netlink_told || size < 100) return 0;
        world.netlink_told = true;
        return snprintf(to, size, "protocol  size sockets  memory\nUNIX      1024     17     -1\nNETLINK   1096     %2u     -1   NI\n", world.netlink_live);
    }
    int i = expect(fd, READ_END, "read");
    struct pipe_model *p = &world.pipes[world.fds[i].what];
    if (!p->held) {
        if (!has_end(world.fds[i].what, WRITE_END) && !program.lives) return 0;
        if (!world.fds[i].nonblocking) broken("waits for an output that has nothing");
        return errno = EAGAIN, -1;
    }
    uint32_t n = p->held < size ? p->held : (uint32_t)size;
    if (p->taken + n > sizeof pattern) broken("keeps more than %zu bytes of output", sizeof pattern);
    memcpy(to, pattern + p->taken, n);
    p->held -= n;
    p->taken += n;
    return n;
}

// Into a pipe of the executor's: how much of that fits.
static ssize_t give(int fd, uint32_t size) {
    int i = world.fds[expect(fd, TO_EXECUTOR, "write")].what;
    if (world.outs[i].gone) return errno = EPIPE, -1;
    if (!world.outs[i].room) return errno = EAGAIN, -1;
    if (size > world.outs[i].room) size = world.outs[i].room;
    world.outs[i].room -= size;
    return size;
}

static ssize_t k_splice(int from, const void *from_at, int to, const void *to_at, size_t size, unsigned flags) {
    if (from_at || to_at || flags != SPLICE_F_NONBLOCK) broken("a splice that may block");
    if (fails(IN_SPLICE)) {
        // The kernel gives up on a pipe that it has no memory for; what is left is lost with it.
        if (errno == ENOMEM && kind_of(from) == GIVEN) world.input_left = 0;
        if (errno == ENOMEM && kind_of(from) == READ_END) world.pipes[world.fds[from - FIRST_FD].what].held = 0;
        return -1;
    }
    if (kind_of(from) == GIVEN) {
        struct pipe_model *p = &world.pipes[world.fds[expect(to, WRITE_END, "splice")].what];
        if (!world.input_left) return 0;
        if (!program.reads && !has_end(world.fds[to - FIRST_FD].what, READ_END)) return errno = EPIPE, -1;
        uint32_t room = p->size - p->held, n = world.input_left < room ? world.input_left : room;
        if (!n) return errno = EAGAIN, -1;
        world.input_left -= n;
        p->held += n;
        return n;
    }
    int i = world.fds[expect(from, READ_END, "splice")].what;
    struct pipe_model *p = &world.pipes[i];
    if (!p->held) return has_end(i, WRITE_END) || program.lives ? (errno = EAGAIN, -1) : 0;
    // A pipe that came with the task is read as fast as it is filled.
    ssize_t n = kind_of(to) == WRITE_END && world.pipes[world.fds[to - FIRST_FD].what].given ? (ssize_t)p->held : give(to, p->held < size ? p->held : (uint32_t)size);
    if (n > 0) p->held -= (uint32_t)n;
    return n;
}

static ssize_t k_write(int fd, const void *from, size_t size) {
    if (kind_of(fd) == TO_EXECUTOR) {
        if (!world.fds[fd - FIRST_FD].nonblocking) broken("waits for the executor to read a file");
        return give(fd, (uint32_t)size);
    }
    int i = expect(fd, WRITE_END, "write");
    struct pipe_model *p = &world.pipes[world.fds[i].what];
    if (fails(IN_WRITE)) {
        if (errno != EAGAIN || world.fds[i].nonblocking) return -1;
    }
    if (!program.reads && !has_end(world.fds[i].what, READ_END)) return errno = EPIPE, -1;
    uint32_t room = p->size - p->held, n = (uint32_t)size;
    if (room < n && !world.fds[i].nonblocking) broken("waits for a program to read its input");
    if (room < n && (n <= PIPE_PAGE || !room)) return errno = EAGAIN, -1;
    if (room < n) n = room;
    if (n > asked.stdin_len - asked.fed || memcmp(from, input_of_task + asked.fed, n)) broken("feeds other input than the task's");
    asked.fed += n;
    p->held += n;
    return n;
}

static short ready(int fd) {
    struct pipe_model *p = &world.pipes[is_open(fd) ? world.fds[fd - FIRST_FD].what % PIPE_MODELS : 0];
    switch (kind_of(fd)) {
    case CONNECTION: return world.queued || world.lost ? POLLIN : 0;
    case SIGNALS: return program.signalled ? POLLIN : 0;
    case ASKED: return world.netlink == ASKS ? POLLIN : 0;
    case READ_END: return p->held ? POLLIN : has_end(world.fds[fd - FIRST_FD].what, WRITE_END) || program.lives ? 0 : POLLHUP;
    case GIVEN: return POLLIN;
    case TO_EXECUTOR: return world.outs[world.fds[fd - FIRST_FD].what].gone ? POLLERR : world.outs[world.fds[fd - FIRST_FD].what].room ? POLLOUT : 0;
    case WRITE_END: return !program.reads && !has_end(world.fds[fd - FIRST_FD].what, READ_END) ? POLLERR : p->size - p->held >= PIPE_PAGE ? POLLOUT : 0;
    default: broken("polls descriptor %d of kind %d", fd, kind_of(fd));
    }
}

static int k_poll(struct pollfd *fds, nfds_t count, int timeout_ms) {
    if (!count) return 0;
    if (++world.spins > SPINS_MOST) broken("spins");
    if (world.netlink == HEARD) broken("leaves a program without an answer");
    bool listens = false;
    for (nfds_t i = 0; i < count; i++) listens |= kind_of(fds[i].fd) == CONNECTION;
    if (timeout_ms && !listens) broken("waits without an ear for its executor");
    for (;;) {
        int found = 0;
        flow();
        for (nfds_t i = 0; i < count; i++) {
            short mask = (short)(fds[i].events | POLLERR | POLLHUP);
            fds[i].revents = fds[i].fd < 0 ? 0 : ready(fds[i].fd) & mask;
            found += !!fds[i].revents;
        }
        // The kernel looks for signals only when it has found nothing else.
        if (!found && fails(IN_POLL)) return -1;
        if (found || !timeout_ms) return found;
        something_happens();
    }
}

// ---- processes

static int k_vfork_fails(void) {
    if (world.refuse) broken("starts a program for a malformed message");
    if (program.lives || program.dead || program.orphans || program.dead_orphans) broken("starts a program beside another");
    // All its pipes may have come with the task.
    no_program();
    if (fails(IN_VFORK)) return 1;
    world.child = true;
    return 0;
}

static pid_t k_parent(void) {
    world.child = false;
    program.signalled |= program.dead;
    return 2;
}

static int k_fork_fails(void) {
    if (world.child || world.forked || !program.lives) broken("forks where nobody asks");
    if (fails(IN_VFORK)) return 1;
    world.forked = true;
    return 0;
}

// As with K_VFORK. The child has the guest's memory for its own, and must leave it alone.
#define K_FORK() (k_fork_fails() ? -1 : setjmp(forked) ? 3 : 0)

static off_t k_lseek(int fd, off_t to, int from) {
    expect(fd, PROTOCOLS, "lseek");
    if (to || from != SEEK_SET) broken("lseek to %ld", (long)to);
    world.netlink_told = false;
    return 0;
}

static void k_answer(uint64_t id) {
    if (id != NETLINK_ID || world.netlink != HEARD) broken("answers a thread that has not asked");
    world.netlink = NOBODY;
}

static int k_ioctl(int fd, unsigned long request, void *about) {
    expect(fd, ASKED, "ioctl");
    if (request == SECCOMP_IOCTL_NOTIF_RECV) {
        struct seccomp_notif *asked = about;
        if (!world.netlink_requests) broken("waits for somebody to ask");
        world.netlink_requests--;
        if (world.netlink != ASKS) return errno = ENOENT, -1;
        asked->id = NETLINK_ID;
        asked->data.args[0] = AF_NETLINK;
        asked->data.args[1] = world.netlink_type;
        world.netlink = HEARD;
        return 0;
    }
    if (request == SECCOMP_IOCTL_NOTIF_SEND) {
        const struct seccomp_notif_resp *answer = about;
        if (answer->error >= 0 || answer->flags) broken("lets a program have a socket that is not counted");
        TRACE("netlink refused %d\n", -answer->error);
        return k_answer(answer->id), 0;
    }
    const struct seccomp_notif_addfd *added = about;
    if (request != SECCOMP_IOCTL_NOTIF_ADDFD) broken("ioctl %lx is not modelled", request);
    if (!world.forked) broken("waits for a program to take its socket");
    if (world.netlink_live >= NETLINK_MOST) broken("hands over a socket beside %u", world.netlink_live);
    expect((int)added->srcfd, NETLINK, "addfd");
    if (!(added->newfd_flags & O_CLOEXEC) != !(world.netlink_type & SOCK_CLOEXEC)) broken("loses the socket's flags");
    if (fails(IN_SOCKET)) return -1;
    TRACE("netlink given\n");
    return k_answer(added->id), FIRST_FD;
}

// Returns twice, as vfork does: the child's part runs until k_execve or k_exit jumps back.
#define K_VFORK() (k_vfork_fails() ? -1 : setjmp(vforked) ? k_parent() : 0)

static int k_dup2(int from, int to) {
    if (!world.child || to < 0 || to > 2) broken("dup2 to %d", to);
    if (!is_open(from)) return errno = EBADF, -1;
    program.ends[to] = kind_of(from) == GIVEN ? -1 : world.fds[expect(from, to ? WRITE_END : READ_END, "dup2")].what;
    return to;
}

static int k_setrlimit(int what, const struct rlimit *limit) {
    if (!world.child || what != RLIMIT_NOFILE || limit->rlim_cur != DESCRIPTORS || limit->rlim_max != DESCRIPTORS) broken("sets limit %d", what);
    program.limited = true;
    return 0;
}

static uint32_t strings_in(char *const *list) {
    size_t bytes = 0;
    uint32_t count = 0;
    for (; list[count]; count++) bytes += strlen(list[count]);
    return bytes < SIZE_MAX ? count : 0;
}

// Programs are known by the last letter of their path.
static int k_execve(const char *path, char *const *arguments, char *const *environment) {
    if (!world.child) broken("execve in process 1");
    uint32_t count = strings_in(arguments), size = 0;
    if (planted("overflow")) {
        char name[8];
        memcpy(name, arguments[0], strlen(arguments[0]) + 1);
        TRACE("%s\n", name);
    }
    if (planted("undefined")) {
        int much = INT_MAX - 2;
        much += (int)count;
        TRACE("%d\n", much);
    }
    for (char *const *e = environment; *e; e++)
        if (!strchr(*e, '=')) broken("gives the program %s", *e);
    strings_in(environment);
    if (!program.limited) broken("a program inherits the guest's limit of descriptors");
    if (fails(IN_EXECVE)) return -1;
    static const struct { char letter; int error; } known[] = {{'t', 0}, {'d', EACCES}, {'x', ENOEXEC}, {'r', ENOTDIR}};
    int error = ENOENT;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (*path && path[strlen(path) - 1] == known[i].letter) error = known[i].error;
    if (error) return errno = error, -1;
    for (int i = 0; i < FDS; i++)
        if (world.fds[i].kind && !world.fds[i].cloexec) broken("a program inherits descriptor %d", FIRST_FD + i);
    for (char *const *a = arguments; *a; a++) {
        memcpy(arguments_of_program + size, *a, strlen(*a) + 1);
        size += (uint32_t)strlen(*a) + 1;
    }
    program.arguments_len = size;
    program.lives = program.reads = program.ran = true;
    longjmp(vforked, 1);
}

static int k_kill(pid_t pid, int number) {
    if (pid != -1 || number != SIGKILL) broken("sends signal %d to %d", number, pid);
    if (!program.lives && !program.orphans) return errno = ESRCH, -1;
    end_program(SIGKILL);
    program.dead_orphans += program.orphans;
    program.orphans = 0;
    program.signalled = true;
    return 0;
}

static pid_t k_wait4(pid_t pid, int *status, int flags, struct rusage *usage) {
    if (pid != -1) broken("waits for %d alone", pid);
    if (fails(IN_WAIT4)) return -1;
    memset(usage, 0, sizeof *usage);
    *status = program.status;
    if (program.dead) {
        program.dead = false;
        return 2;
    }
    if (program.dead_orphans) {
        *status = 0;
        return 2 + (pid_t)program.dead_orphans--;
    }
    if (!program.lives && !program.orphans) return errno = ECHILD, -1;
    if (!(flags & WNOHANG)) broken("waits for a program to end");
    return 0;
}

static void __attribute__((noreturn)) k_exit(int code) {
    if (world.forked) {
        world.forked = false;
        program.dead_orphans++;
        program.signalled = true;
        longjmp(forked, 1);
    }
    if (world.child) {
        program.dead = program.failed = true;
        program.status = code << 8;
        longjmp(vforked, 1);
    }
    if (code == 4 && !world.refuse && !world.empty) broken("refuses a well-formed message");
    bool lost = code == 3 && world.dressing == UNDRESSED_YET && (world.lost || world.empty);
    if (code != 4 && !lost && !(code == 0 && world.heard_retire)) broken("exits with %d", code);
    ended_with = code;
    longjmp(whole, 1);
}
