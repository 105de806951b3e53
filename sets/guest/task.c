#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cleaning.h"
#include "content.h"
#include "executor.h"
#include "files.h"
#include "flow.h"
#include "netlink.h"
#include "program.h"
#include "self.h"
#include "task.h"

#define TASK_FDS_MOST (2 * FILES_COUNT + 16)
// A write of this size into a fresh pipe never blocks, however little pipe memory our user has left.
#define PIPE_ALWAYS_HOLDS 4096

// One of the program's outputs: the bytes read so far, and the pipe. Until it is handed over we keep the write end open, too, so
// that poll does not report when the program closes its own. From then on its bytes flow into a pipe of the executor's; `given` is
// that pipe's end, if it came with the task. Most often the program itself has it then, and nothing need flow.
struct output { struct flow flow; int end, given; uint32_t len; unsigned char data[OUTPUT_BYTES]; };
static struct output out, err;
// The executor's pipe flows into that of a program which was started ahead.
static struct flow input;

int first_task_fd = INT_MAX;
static unsigned char message[MESSAGE_BYTES];
static char *files[FILES_COUNT];

// A program that was started ahead of its task, and the strings that it was started with.
static struct {
    bool there;
    struct task_message like;
    char strings[STRINGS_BYTES];
} waiting;

// Leave an output to the executor.
static void let_go(struct output *o) {
    shut(&o->end);
    o->len = 0;
    if (run.is_direct) shut(&o->flow.from);
    o->flow.to = o->given;
    o->given = -1;
}

// Give the executor the bytes read so far. If it has given no pipes yet, it answers with PIPES.
static bool hand_over(void) {
    struct output_message m = {
        .head = {.type = OUTPUT, .task = run.number}, .stdout_len = out.len, .stderr_len = err.len};
    struct iovec parts[] = {{&m, sizeof m}, {out.data, out.len}, {err.data, err.len}};
    bool told = tell(parts, 3);
    run.has_pipes = run.is_direct || out.given >= 0;
    run.handed_over = true;
    let_go(&out);
    let_go(&err);
    return told;
}

// Read from an output, or hand both over when its buffer is full. False when the executor is lost.
static bool read_output(struct output *o) {
    if (o->len == OUTPUT_BYTES) return hand_over();
    ssize_t n = read(o->flow.from, o->data + o->len, OUTPUT_BYTES - o->len);
    if (n > 0) o->len += (uint32_t)n;
    return true;
}

// Return the descriptor of an output to wait for: none while the pipe is to come into which it will flow.
static struct pollfd wait_for_output(const struct output *o) {
    if (run.handed_over && !run.has_pipes) return (struct pollfd){-1, 0, 0};
    return wait_for(&o->flow);
}

static bool advance(struct output *o) {
    if (!run.handed_over) return read_output(o);
    // The other output may just have been handed over, and this one with it; where the program has the pipes, nothing flows.
    if (run.has_pipes && o->flow.from >= 0) move(&o->flow);
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

// Act on a message that comes while a task runs. False when the executor is lost.
static bool obey(void) {
    struct head head;
    struct riders riders;
    ssize_t n = hear(&head, sizeof head, MSG_DONTWAIT, &riders);
    if (n <= 0) return n < 0;
    if (n != sizeof head || head.flags || head.reserved || riders.count != (head.type == PIPES ? 2 : 0)) malformed();
    if (head.type == RETIRE) _exit(EXIT_RETIRED);
    if (head.type == SHOW) return head.task != run.number || run.handed_over || hand_over();
    if (head.type == PIPES) {
        if (head.task != run.number || !run.handed_over || run.has_pipes) malformed();
        out.flow.to = riders.fds[0];
        err.flow.to = riders.fds[1];
        run.has_pipes = true;
        return true;
    }
    if (head.type != KILL) malformed();
    if (head.task == run.number) {
        run.killed = true;
        kill(-1, SIGKILL);
    }
    return true;
}

// Serve the program until it has ended. False when the executor is lost.
static bool attend(void) {
    // Reading must not block: the program can open its own pipes and take the bytes that poll has seen.
    if (!run.handed_over && (fcntl(out.flow.from, F_SETFL, O_NONBLOCK) || fcntl(err.flow.from, F_SETFL, O_NONBLOCK))) return false;
    while (!run.ended) {
        struct pollfd p[7] = {{executor, POLLIN, 0}, {children, POLLIN, 0}, {run.in, POLLOUT, 0}, wait_for_output(&out), wait_for_output(&err), {netlink_asked, POLLIN, 0}, wait_for(&input)};
        if (poll(p, 7, -1) < 0) continue;
        if (p[3].revents && !advance(&out)) return false;
        if (p[4].revents && !advance(&err)) return false;
        if (p[2].revents) feed();
        if (p[6].revents) move(&input);
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

// Take the rest from the pipes. No process is left that could write to them, or take the bytes that poll has seen. The executor
// takes what was handed over at its reader's pace, until it kills the task. False when the executor is lost.
static bool drain(void) {
    for (;;) {
        const bool rest = !run.handed_over || (run.has_pipes && (run.killed || (!out.flow.full && !err.flow.full)));
        struct pollfd p[3] = {wait_for_output(&out), wait_for_output(&err), {executor, POLLIN, 0}};
        int found = poll(p, rest ? 2 : 3, rest ? 0 : -1);
        if (rest && found <= 0) return true;
        if ((p[0].revents && !advance(&out)) || (p[1].revents && !advance(&err))) return false;
        if (!rest && p[2].revents && !obey()) return false;
    }
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
    run.in = out.end = err.end = out.given = err.given = -1;
    out.flow = err.flow = input = (struct flow){-1, -1, false};
    out.len = err.len = 0;
}

// Begin to write the task's input. A program that was started ahead may have filled the pipe itself.
static void feed_inline(const unsigned char *data, uint32_t len) {
    run.in_data = data;
    run.in_left = len;
    if (run.pid || len > PIPE_ALWAYS_HOLDS) fcntl(run.in, F_SETFL, O_NONBLOCK);
    feed();
}

// Start the program with the pipes that were given, and make the others. Returns what spawn does; all descriptors are the task's.
// Without `data` stdin stays open.
static int start(int stdin_fd, const unsigned char *data, uint32_t len, const int *outputs) {
    int in[2] = {stdin_fd, -1}, o[2] = {-1, -1}, e[2] = {-1, -1};
    if (outputs) {
        memcpy(o, outputs, sizeof o);
        memcpy(e, outputs + 2, sizeof e);
        run.is_direct = true;
    }
    if ((stdin_fd < 0 && pipe2(in, O_CLOEXEC)) || (!outputs && (pipe2(o, O_CLOEXEC) || pipe2(e, O_CLOEXEC)))) return -errno;
    out.flow.from = o[0];
    out.end = o[1];
    err.flow.from = e[0];
    err.end = e[1];
    if (stdin_fd < 0) {
        run.in = in[1];
        if (data) feed_inline(data, len);
    }
    int failed = spawn(in[0], o[1], e[1]);
    // We keep no read end: the writer must notice when the program stops reading.
    if (stdin_fd >= 0 || !data) close(in[0]);
    return failed;
}

// ---- a program that waits for its task

// End it, with all that it left. A descriptor that came with a message stays: it belongs to the next task.
static void dismiss(void) {
    int *ends[] = {&run.in, &out.flow.from, &out.end, &err.flow.from, &err.end};
    if (!run.alone && !reap(WNOHANG)) kill_all();
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) shut(ends[i]);
    waiting.there = false;
    if (clean_all()) _exit(EXIT_UNCLEAN);
}

// True if it still waits as it must: it has neither written nor ended before its input came.
static bool is_fit(int timeout_ms, bool *message_there) {
    struct pollfd p[5] = {{children, POLLIN, 0}, {out.flow.from, POLLIN, 0}, {err.flow.from, POLLIN, 0}, {netlink_asked, POLLIN, 0}, {executor, POLLIN, 0}};
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
    // If this fails, the next task will report why. Some of the pipes may exist.
    if (start(-1, NULL, 0, NULL)) {
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
    tell(&(struct iovec){&m, sizeof m}, 1);
}

// Wait for the next message beside the waiting program.
static void wait_beside(void) {
    for (bool there = false; !there && waiting.there;)
        if (!is_fit(-1, &there)) report_unfit();
}

// Report the end, hand out the files, and clean up. False when the executor is lost.
static bool report(const struct task_message *m, int failed, uint64_t wall_us, bool prestarted) {
    int64_t sizes[FILES_COUNT];
    bool has_files = false;
    for (int i = 0; i < m->filec; i++) has_files |= (sizes[i] = keep_file(i, files[i])) >= 0;
    // The end of its pipes comes no later than EXIT.
    stop(&input);
    if (run.handed_over) {
        stop(&out.flow);
        stop(&err.flow);
    }
    const bool dirty = !all_clean() || has_files;
    struct exit_message x = {
        .head = {.type = EXITED, .task = run.number,
                 .flags = (uint8_t)((run.handed_over ? HANDED_OVER : 0) | (run.killed ? KILLED : 0) | (dirty ? CLEANING : 0) | (prestarted ? PRESTARTED : 0))},
        .how = failed < 0 ? HOW_NOT_STARTED : failed ? HOW_NOT_EXECUTED : WIFSIGNALED(run.status) ? HOW_SIGNALLED : HOW_EXITED,
        // The seccomp profile kills only programs that make another architecture's calls.
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
        {&x, sizeof x}, {sizes, m->filec * sizeof sizes[0]}, {out.data, out.len}, {err.data, err.len}};
    bool told = tell(parts, 4) && (!has_files || serve_files(m->head.task));
    close_files();
    close_from(first_task_fd, TASK_FDS_MOST);
    if (!dirty || !told) return told;
    int error = clean_all();
    struct cleaned_message c = {
        .head = {.type = CLEANED, .task = run.number}, .ok = !error, .error = error, .guest_cpu_us = own_cpu_us()};
    told = tell(&(struct iovec){&c, sizeof c}, 1);
    if (error) _exit(EXIT_UNCLEAN);
    return told;
}

static bool carry_out(struct task_message *m, size_t size, const struct riders *riders) {
    if (size < sizeof *m || m->head.reserved || m->reserved || m->head.flags & ~(STDIN_FD | STREAM | PRESTART | OUTPUT_FDS) || m->head.task != last_task + 1 ||
        !m->argc || m->argc + m->envc > STRINGS_COUNT || m->filec > FILES_COUNT || m->strings_len > STRINGS_BYTES ||
        m->stdin_len > STDIN_BYTES || size != sizeof *m + m->strings_len + m->stdin_len ||
        riders->count != !!(m->head.flags & STDIN_FD) + (m->head.flags & OUTPUT_FDS ? 4 : 0) || (m->head.flags & STDIN_FD && m->stdin_len))
        malformed();
    char *strings = (char *)(m + 1);
    const unsigned char *data = (unsigned char *)strings + m->strings_len;
    const int stdin_fd = m->head.flags & STDIN_FD ? riders->fds[0] : -1, *outputs = m->head.flags & OUTPUT_FDS ? riders->fds + riders->count - 4 : NULL;
    if (waiting.there && !is_fit(0, NULL)) report_unfit();
    bool prestarted = waiting.there && matches(m);
    if (waiting.there && !prestarted) dismiss();
    waiting.there = false;
    parse_strings(m, strings, strings + m->strings_len);
    uint64_t began = now_us();
    int failed = 0;
    if (prestarted) {
        run.number = m->head.task;
        if (stdin_fd < 0) feed_inline(data, m->stdin_len);
        else {
            input = (struct flow){stdin_fd, run.in, false};
            run.in = -1;
        }
        if (outputs) {
            // Its reader alone holds the other ends, so that a program whose reader is gone notices.
            close(outputs[0]);
            close(outputs[2]);
            out.given = outputs[1];
            err.given = outputs[3];
        }
    } else {
        reset_run(m->head.task);
        failed = start(stdin_fd, data, m->stdin_len, outputs);
    }
    last_task = m->head.task;
    bool there = failed || ((!(m->head.flags & STREAM) || hand_over()) && attend());
    uint64_t wall_us = now_us() - began;
    // The executor is lost or the program has ended; in both cases no process may stay.
    if (!run.alone && !reap(WNOHANG)) kill_all();
    there = there && drain() && report(m, failed, wall_us, prestarted);
    if (there && m->head.flags & PRESTART && !failed) prestart(m);
    if (there) return true;
    close_from(first_task_fd, TASK_FDS_MOST);
    if (clean_all()) _exit(EXIT_UNCLEAN);
    return false;
}

void __attribute__((noreturn)) serve(void) {
    for (;;) {
        struct riders riders;
        wait_beside();
        ssize_t n = hear(message, sizeof message, 0, &riders);
        struct head *head = (struct head *)message;
        if (n == 0) {
            if (waiting.there) dismiss();
            poll(NULL, 0, CONNECT_FIRST_MS);
            connect_executor();
            continue;
        }
        if (n < (ssize_t)sizeof *head) malformed();
        if (head->type != TASK && (n != sizeof *head || riders.count || head->flags || head->reserved)) malformed();
        if (head->type == RETIRE) _exit(EXIT_RETIRED);
        // These may arrive after their task has ended: they are late, not wrong.
        if (head->type == KILL || head->type == SHOW) continue;
        if (head->type != TASK) malformed();
        if (!carry_out((struct task_message *)message, (size_t)n, &riders)) connect_executor();
    }
}
