// The executor's end of the connection: messages made from the input's records, and what PROTOCOL.md says of each message, written
// from that page a second time. The guest must accept exactly what conforms, and send only what conforms.
#pragma once

static uint32_t le(const uint8_t *at, int bytes) {
    uint32_t value = 0;
    for (int i = 0; i < bytes; i++) value |= (uint32_t)at[i] << (8 * i);
    return value;
}

static void put(uint8_t *at, uint32_t value, int bytes) {
    for (int i = 0; i < bytes; i++) at[i] = (uint8_t)(value >> (8 * i));
}

// ---- what conforms

static bool strings_conform(const uint8_t *at, const uint8_t *end, uint32_t argc, uint32_t envc, uint32_t filec) {
    for (uint32_t i = 0; i < argc + envc + filec; i++) {
        const uint8_t *start = at;
        while (at < end && *at) at++;
        if (at++ >= end) return false;
        if (i >= argc + envc && *start != '/') return false;
        if (i >= argc && i < argc + envc && (*start == '=' || !memchr(start, '=', (size_t)(at - start)))) return false;
    }
    return at == end;
}

static bool task_conforms(const uint8_t *m, uint32_t size, uint32_t fds) {
    if (size < 24 || size > 131072 || le(m + 2, 2) || le(m + 14, 2)) return false;
    if (planted("accepts") && le(m + 8, 2) == 3) return false;
    uint32_t flags = m[1], argc = le(m + 8, 2), envc = le(m + 10, 2), filec = le(m + 12, 2), strings_len = le(m + 16, 4), stdin_len = le(m + 20, 4);
    if (flags & ~15u || le(m + 4, 4) != asked.number + 1 || fds != (flags & 1) + (flags & 8 ? 4 : 0)) return false;
    if (!argc || argc + envc > 8192 || filec > 64 || strings_len > 69608 || stdin_len > 61440 || (flags & 1 && stdin_len)) return false;
    return size == 24 + strings_len + stdin_len && strings_conform(m + 24, m + 24 + strings_len, argc, envc, filec);
}

static bool read_conforms(const uint8_t *m, uint32_t size, uint32_t fds) {
    if (size != 32 || fds != 1 || m[1] || le(m + 2, 2) || le(m + 4, 4) != asked.number || le(m + 12, 4)) return false;
    if (le(m + 20, 4) || le(m + 28, 4)) return false;
    uint32_t file = le(m + 8, 4), first = le(m + 16, 4), length = le(m + 24, 4);
    return file < asked.filec && asked.open[file] && first <= FILE_BYTES && length <= FILE_BYTES - first;
}

static bool conforms(const uint8_t *m, uint32_t size, uint32_t fds) {
    if (world.dressing == UNDRESSED_YET && size && m[0] != 3 && m[0] != 4) return false;
    if (size >= 8 && m[0] == 1) return !asked.runs && !asked.has_files && task_conforms(m, size, fds);
    if (size >= 8 && m[0] == 6) return asked.has_files && read_conforms(m, size, fds);
    if (size != 8 || m[1] || m[2] || m[3]) return false;
    if (m[0] == 4) return !fds && world.dressing == UNDRESSED_YET && !le(m + 4, 4);
    if (m[0] == 2 || m[0] == 3 || m[0] == 8) return !fds;
    if (m[0] == 5) return fds == 2 && asked.runs && asked.handed_over && !asked.has_pipes && le(m + 4, 4) == asked.number;
    return m[0] == 7 && !fds && asked.has_files && le(m + 4, 4) == asked.number;
}

// ---- to the guest

static uint32_t fill_task(uint8_t *m, uint32_t flags, uint32_t stdin_len, const uint8_t *record) {
    const uint8_t *was = world.at;
    world.at = record;
    take(2);  // operation, flags
    uint32_t envc = take(2), filec = take(1), size = 24, n, strings = 0;
    take(2);  // stdin_len
    n = take(2);
    const uint8_t *head = take_bytes(&n);
    memcpy(m + size, head, n);
    size += n;
    n = take(1) & 7;
    const uint8_t *unit = take_bytes(&n);
    for (uint32_t times = take(2); times && size < 75000; times--, size += n) memcpy(m + size, unit, n);
    n = take(2);
    const uint8_t *tail = take_bytes(&n);
    memcpy(m + size, tail, n);
    size += n;
    world.at = was;
    for (uint32_t i = 24; i < size; i++) strings += !m[i];
    memset(m, 0, 24);
    m[0] = 1;
    m[1] = (uint8_t)flags;
    put(m + 4, asked.number + 1, 4);
    put(m + 8, strings - envc - filec, 2);
    put(m + 10, envc, 2);
    put(m + 12, filec, 2);
    put(m + 16, size - 24, 4);
    put(m + 20, stdin_len, 4);
    memcpy(m + size, pattern, stdin_len);
    return size + stdin_len;
}

// Make the message of a record in the inbox: its size, and how many descriptors ride along.
static uint32_t make_message(const uint8_t *record, uint32_t *fds) {
    const uint8_t *was = world.at;
    enum operation operation = (enum operation)(*record % OPERATIONS);
    uint32_t size = 8, n, times;
    *fds = 0;
    memset(inbox, 0, 8);
    world.at = record;
    take(1);
    if (operation == MESSAGE_RAW) {
        *fds = take(1) % 4;
        times = take(3) % 140000;
        uint8_t byte = (uint8_t)take(1);
        n = take(3);
        const uint8_t *bytes = take_bytes(&n);
        if (n > 140000) n = 140000;
        memcpy(inbox, bytes, n);
        memset(inbox + n, byte, times);
        size = n + times;
    } else if (operation == TASK_MADE || (operation == TASK_AGAIN && world.last_task)) {
        uint32_t flags = take(1) & 15, stdin_len = 0;
        if (operation == TASK_MADE) {
            world.last_task = record;
            take(3);
        }
        stdin_len = take(2);
        size = fill_task(inbox, flags, flags & 1 ? 0 : stdin_len, world.last_task);
        *fds = (flags & 1) + (flags & 8 ? 4 : 0);
    } else if (operation == KILL_MADE || operation == SHOW_MADE) {
        inbox[0] = operation == KILL_MADE ? 2 : 8;
        put(inbox + 4, asked.number - (take(1) & 3), 4);
    } else if (operation == RETIRE_MADE) inbox[0] = 3;
    else if (operation == DRESSED_MADE) inbox[0] = 4;
    else if (operation == PIPES_MADE || operation == RELEASE_MADE) {
        inbox[0] = operation == PIPES_MADE ? 5 : 7;
        put(inbox + 4, asked.number, 4);
        *fds = operation == PIPES_MADE ? 2 : 0;
    } else if (operation == READ_MADE) {
        size = 32;
        memset(inbox, 0, size);
        inbox[0] = 6;
        put(inbox + 4, asked.number, 4);
        put(inbox + 8, take(1), 4);
        put(inbox + 16, take(3), 4);
        put(inbox + 24, take(3), 4);
        *fds = 1;
    }
    world.at = was;
    return size;
}

// Nothing of a task is left while the guest waits for the next.
static void check_idle(void) {
    uint32_t open = 0;
    for (int i = 0; i < FDS; i++) open += world.fds[i].kind != FREE;
    if (open > (guest_waits() ? 9u : 4u) + world.dressed) broken("%u descriptors are open between tasks", open);
    if (guest_waits()) return;
    if (program.lives || program.dead || program.orphans || program.dead_orphans) broken("a process is left between tasks");
    if (asked.runs) broken("a task has no EXIT");
    if (asked.released) broken("a slot is not clean after its files");
}

static uint32_t make_out(void) {
    uint32_t out = world.outs_made++ % OUTS;
    world.outs[out].room = world.pipe_size;
    world.outs[out].gone = false;
    return out;
}

// The number-th descriptor of a message: the input of a task, an end of one of its outputs, or an end of the executor's.
static int rider(uint32_t number) {
    uint32_t input = inbox[1] & 1;
    if (inbox[0] != 1) return open_fd(TO_EXECUTOR, (int)make_out(), true);
    if (!(inbox[1] & 8) || number < input) return open_fd(GIVEN, 0, true);
    bool writes = (number - input) & 1;
    if (!writes) world.pipes[world.pipes_made++ % PIPE_MODELS] = (struct pipe_model){.size = world.pipe_size, .given = true};
    return open_fd(writes ? WRITE_END : READ_END, (int)((world.pipes_made - 1) % PIPE_MODELS), true);
}

static ssize_t k_recvmsg(int fd, struct msghdr *m, int flags) {
    expect(fd, CONNECTION, "recvmsg");
    bool runs = flags & MSG_DONTWAIT;
    if (runs != (asked.runs || asked.has_files)) broken("hears a message as one of another time");
    if (world.refuse) broken("passes over a malformed message");
    if (!(flags & MSG_CMSG_CLOEXEC)) broken("takes descriptors to be inherited");
    if (fails(IN_RECVMSG)) {
        if (errno == ECONNRESET) world.lost = true;
        return -1;
    }
    if (!runs) {
        check_idle();
        while (!world.queued && !world.lost) something_happens();
    }
    if (!world.queued) m->msg_controllen = 0;
    m->msg_flags = 0;
    if (!world.queued) return world.lost ? 0 : (errno = EAGAIN, -1);
    uint32_t fd_count, size = make_message(world.queue[0], &fd_count), room = (uint32_t)m->msg_iov[0].iov_len;
    memmove(world.queue, world.queue + 1, --world.queued * sizeof *world.queue);
    m->msg_flags = size > room ? MSG_TRUNC : 0;
    uint32_t n = size > room ? room : size;
    __asan_unpoison_memory_region(m->msg_iov[0].iov_base, room);
    memcpy(m->msg_iov[0].iov_base, inbox, n);
    // What is behind the message is no part of it.
    if (!runs) __asan_poison_memory_region((char *)m->msg_iov[0].iov_base + n, room - n);
    uint32_t fit = m->msg_controllen < CMSG_LEN(4) ? 0 : (uint32_t)((m->msg_controllen - CMSG_LEN(0)) / sizeof(int));
    if (fd_count > fit) m->msg_flags |= MSG_CTRUNC;
    else fit = fd_count;
    m->msg_controllen = fit ? CMSG_LEN(fit * sizeof(int)) : 0;
    if (fit) {
        struct cmsghdr *c = m->msg_control;
        *c = (struct cmsghdr){.cmsg_len = CMSG_LEN(fit * sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
        for (uint32_t i = 0; i < fit; i++) ((int *)CMSG_DATA(c))[i] = rider(i);
    }
    // An empty record looks like the end of the connection; refusing it is as good.
    world.empty = !size;
    world.refuse = size && !conforms(inbox, size, fd_count);
    TRACE("heard %u of %u bytes: %s\n", inbox[0], size, world.refuse ? "malformed" : "fine");
    if (planted("undressed") && world.dressing == UNDRESSED_YET && world.refuse && n == 8) ((uint8_t *)m->msg_iov[0].iov_base)[0] = 4;
    if (world.refuse || !size) return n;
    if (inbox[0] == 4) world.dressing = TO_REPORT;
    if (inbox[0] == 3) world.heard_retire = true;
    if (inbox[0] == 2 && asked.runs && le(inbox + 4, 4) == asked.number) asked.killed = true;
    if (inbox[0] == 5) asked.has_pipes = true;
    if (inbox[0] == 7) {
        asked.has_files = false;
        asked.released = true;
    }
    if (inbox[0] != 1) return n;
    asked.runs = true;
    asked.handed_over = asked.has_pipes = asked.has_files = asked.released = asked.killed = false;
    asked.has_pipes = inbox[1] & 8;
    world.input_left = INPUT_BYTES;
    asked.fed = 0;
    asked.number = le(inbox + 4, 4);
    asked.flags = inbox[1];
    asked.filec = (uint16_t)le(inbox + 12, 2);
    asked.stdin_len = le(inbox + 20, 4);
    asked.arguments_len = 0;
    for (uint32_t i = 0; i < le(inbox + 8, 2); i++) asked.arguments_len += (uint32_t)strlen((char *)inbox + 24 + asked.arguments_len) + 1;
    memcpy(arguments_of_task, inbox + 24, asked.arguments_len);
    memcpy(input_of_task, inbox + 24 + le(inbox + 16, 4), asked.stdin_len);
    return n;
}

// ---- from the guest

static bool any_gone(void) {
    for (int i = 0; i < OUTS; i++)
        if (world.outs[i].gone) return true;
    return false;
}

static void check_body(const uint8_t *body, uint32_t size, int end) {
    struct pipe_model *p = pipe_of(end);
    if (size > 61440) broken("%u bytes of output in one message", size);
    if (size != (p ? p->taken : 0)) broken("%u of %u bytes of output %d", size, p ? p->taken : 0, end);
    if (memcmp(body, pattern, size)) broken("output %d is spoilt", end);
}

static void check_exit(const uint8_t *m, uint32_t size) {
    uint32_t files = 0, opened = 0, out_len, err_len;
    if (size < 60) broken("an EXIT of %u bytes", size);
    uint32_t how = m[8], filec = le(m + 48, 2), least = 60 + 8 * filec;
    out_len = le(m + 52, 4);
    err_len = le(m + 56, 4);
    if (filec != asked.filec || le(m + 50, 2) || size != least + out_len + err_len) broken("an EXIT of %u bytes, %u files", size, filec);
    int code = (int)le(m + 12, 4), status = program.status;
    bool by_signal = WIFSIGNALED(status);
    if (how != (program.failed ? 2u : !program.ran ? 3u : by_signal) || le(m + 9, 3)) broken("ended in way %u", how);
    if (how < 2 ? code != (by_signal ? WTERMSIG(status) : WEXITSTATUS(status)) : code <= 0) broken("ended with code %d", code);
    for (uint32_t i = 0; i < filec; i++) {
        int32_t bytes = (int32_t)le(m + 60 + 8 * i, 4), above = (int32_t)le(m + 64 + 8 * i, 4);
        asked.open[i] = bytes >= 0;
        files += asked.open[i];
        if (above != (bytes < 0 ? -1 : 0) || bytes < -4095 || (bytes >= 0 && bytes != FILE_BYTES)) broken("file %u has %d bytes", i, bytes);
    }
    for (int i = 0; i < FDS; i++) {
        if (world.fds[i].kind == TO_EXECUTOR) broken("ends no output before EXIT");
        if (world.fds[i].kind != REGULAR) continue;
        opened++;
        if (nodes[world.fds[i].what].device != 1) broken("hands out a file of /proc");
    }
    if (opened != files) broken("%u files are open of %u", opened, files);
    if (!!(m[1] & 1) != asked.handed_over || !!(m[1] & 4) != !!files || m[1] & ~15u) broken("an EXIT with flags %u", m[1]);
    if (program.lives || program.dead || program.orphans || program.dead_orphans) broken("an EXIT before the end of all");
    if (!!(m[1] & 2) != asked.killed) broken("an EXIT with flags %u, killed or not", m[1]);
    if (how < 2 && (program.arguments_len != asked.arguments_len || memcmp(arguments_of_program, arguments_of_task, asked.arguments_len)))
        broken("ran with other arguments than the task's");
    if (asked.handed_over && (out_len || err_len)) broken("outputs twice");
    if (asked.handed_over && !asked.has_pipes) broken("outputs that went nowhere");
    if (!asked.handed_over) {
        check_body(m + least, out_len, 1);
        check_body(m + least + out_len, err_len, 2);
    }
    // What a reader who is there, and has not given the task up, would still have had.
    for (int end = 1; end < 3; end++)
        if (pipe_of(end) && pipe_of(end)->held && !pipe_of(end)->given && (!asked.handed_over || !(asked.killed || any_gone()))) broken("leaves %u bytes of output %d", pipe_of(end)->held, end);
    TRACE("sent EXIT task=%u flags=%u how=%u code=%d out=%u err=%u files=%u of %u\n", asked.number, m[1], how, (int)le(m + 12, 4), out_len, err_len, files, filec);
    asked.runs = false;
    asked.has_files = files;
}

static void check_sent(const uint8_t *m, uint32_t size) {
    if (size < 8 || size > 131072 || le(m + 2, 2)) broken("a message of %u bytes", size);
    uint32_t type = m[0], number = le(m + 4, 4);
    if (world.refuse && type != 20) broken("answers a malformed message with %u", type);
    if ((type == 16) != !world.messages_sent++) broken("message %u where HELLO stands", type);
    if (number != asked.number) broken("message %u with number %u, not %u", type, number, asked.number);
    if (world.dressing && type != (world.dressing == TO_REPORT ? 19 : 16)) broken("message %u of a slot that is not dressed", type);
    if ((type == 17 || type == 18) && !asked.runs) broken("message %u without a task", type);
    if (type != 18) TRACE("sent %u task=%u\n", type, number);
    if (type == 16) {
        if (size != 76 || m[1] != (world.dressing == UNDRESSED_YET) || m[8] != 3 || memcmp(m + 12, "0123456789abcdef", 16)) broken("a HELLO of %u bytes", size);
    } else if (type == 17) {
        if (asked.handed_over || m[1] || size < 16 || size != 16 + le(m + 8, 4) + le(m + 12, 4)) broken("an OUTPUT of %u bytes", size);
        check_body(m + 16, le(m + 8, 4), 1);
        check_body(m + 16 + le(m + 8, 4), le(m + 12, 4), 2);
        asked.handed_over = true;
    } else if (type == 18) check_exit(m, size);
    else if (type == 19) {
        if (size != 24 || m[1] || m[8] != 1 || (!asked.released && world.dressing != TO_REPORT)) broken("a CLEANED out of order");
        asked.released = false;
        world.dressing = SERVES;
    } else if (type == 20) {
        if (size != 8 || m[1]) broken("an UNFIT of %u bytes", size);
    } else broken("a message of type %u", type);
}

static ssize_t k_sendmsg(int fd, const struct msghdr *m, int flags) {
    expect(fd, CONNECTION, "sendmsg");
    if (!(flags & MSG_NOSIGNAL)) broken("may be ended by SIGPIPE");
    uint32_t size = 0;
    for (size_t i = 0; i < m->msg_iovlen; i++) {
        if (size + m->msg_iov[i].iov_len > sizeof outbox) broken("a message of more than %zu bytes", sizeof outbox);
        memcpy(outbox + size, m->msg_iov[i].iov_base, m->msg_iov[i].iov_len);
        size += (uint32_t)m->msg_iov[i].iov_len;
    }
    if (m->msg_control) broken("sends a descriptor");
    if (fails(IN_SENDMSG)) {
        if (errno != EINTR) world.lost = true;
        return -1;
    }
    check_sent(outbox, size);
    return size;
}

static int k_socket(int domain, int type, int protocol) {
    if (domain != AF_UNIX || !(type & SOCK_CLOEXEC) || protocol) broken("a socket of another kind");
    return fails(IN_SOCKET) ? -1 : open_fd(CONNECTION, 0, true);
}

static int k_connect(int fd, const struct sockaddr *address, socklen_t size) {
    expect(fd, CONNECTION, "connect");
    if (size != sizeof(struct sockaddr_un) || address->sa_family != AF_UNIX) broken("connects elsewhere");
    if (fails(IN_CONNECT)) return -1;
    world.queued = 0;
    world.lost = false;
    world.messages_sent = 0;
    asked.runs = asked.has_files = asked.released = false;
    asked.number = 0;
    // The report was lost with its connection.
    if (world.dressing == TO_REPORT) world.dressing = SERVES;
    check_idle();
    // The executor died at the end of the input: that is the end of this life.
    if (world.at >= world.end && world.together == UINT32_MAX) longjmp(whole, 1);
    if (world.at >= world.end) world.together = UINT32_MAX;
    return 0;
}
