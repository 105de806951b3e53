// Processes that multiply, hide, outlive their task or refuse to end.
#include "hostile.h"
#include <sched.h>
#include <sys/prctl.h>
#include <sys/resource.h>

static void multiply(void) {
    for (;;)
        if (fork() < 0) usleep(1000);
}

CASE(fork_bomb, "forks without end, every child too", "ended", "one account's loop must not take the host's processes") {
    multiply();
}

// What so many processes cost the kernel may be more than memory_mib before the program ends.
CASE(fork_bomb_left_behind, "ends at once while its children go on forking", "any",
     "clean-up races against processes that multiply while it runs") {
    for (int i = 0; i < 8; i++)
        if (fork() == 0) multiply();
    usleep(100000);
}

CASE(fork_to_the_limit, "starts processes until it gets no more", "contained", "a slot's own limit must come before the host's") {
    int count = 0;
    while (lingering_child() > 0)
        if (++count > 5000) breach("%d processes and no limit", count);
    if (errno != EAGAIN) broken("fork failed oddly");
}

static int __attribute__((noreturn)) idle(void *nothing) {
    (void)nothing;
    for (;;) pause();
}

CASE(threads_to_the_limit, "starts threads until it gets no more", "contained", "threads count as processes") {
    static char stacks[8000][256];
    int count = 0;
    int flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM;
    while (count < 8000 && clone(idle, stacks[count] + 256, flags, NULL) > 0) count++;
    if (count == 8000) breach("8,000 threads and no limit");
}

CASE(daemon, "double-forks with setsid and closes everything", "contained", "a daemon would use the next task's slot and its bill") {
    if (fork() == 0) {
        setsid();
        if (fork() == 0) {
            for (int fd = 0; fd < 1024; fd++) close(fd);
            for (;;) pause();
        }
        _exit(0);
    }
    wait(NULL);
}

CASE(daemon_that_writes_later, "leaves a daemon that writes into /tmp after the task", "contained",
     "the next task must find nothing of this one") {
    if (fork() == 0) {
        setsid();
        if (fork()) _exit(0);
        usleep(300000);
        for (;;) {
            close(open("/tmp/from-the-dead", O_CREAT | O_WRONLY, 0666));
            usleep(1000);
        }
    }
    wait(NULL);
}

CASE(children_ignored, "ignores SIGCHLD and leaves children that burn CPU", "contained",
     "children that nobody waits for must be ended, and billed") {
    signal(SIGCHLD, SIG_IGN);
    for (int i = 0; i < 4; i++)
        if (fork() == 0)
            for (;;) {}
    usleep(50000);
}

CASE(child_holds_stdout, "ends while a child keeps stdout open", "contained", "others answer after the child's end, if ever") {
    if (lingering_child() < 0) broken("fork");
}

CASE(children_write_on, "ends while its children flood stdout", "any", "the answer ends with the program, not with its children") {
    static char block[65536];
    for (int i = 0; i < 4; i++)
        if (fork() == 0)
            for (;;)
                if (write(1, block, sizeof block) < 0) usleep(1000);
    usleep(20000);
}

CASE(stopped_children, "leaves children that are stopped", "contained", "a stopped process does not react to SIGTERM") {
    for (int i = 0; i < 4; i++) {
        pid_t pid = lingering_child();
        if (pid < 0 || kill(pid, SIGSTOP)) broken("no stopped child");
    }
}

CASE(zombies, "leaves zombies up to the limit", "contained", "zombies use up the slot's processes") {
    for (int i = 0; i < 5000; i++) {
        pid_t pid = fork();
        if (pid == 0) _exit(0);
        if (pid < 0) break;
    }
}

CASE(every_signal_ignored, "ignores every signal and runs for ever", "timed_out", "ending must not depend on the program") {
    for (int s = 1; s < 65; s++) signal(s, SIG_IGN);
    for (;;) pause();
}

CASE(busy_for_ever, "burns CPU for ever, in several processes", "timed_out", "the time-out ends the whole tree") {
    for (int i = 0; i < 3; i++) fork();
    for (;;) {}
}

CASE(vfork_hangs, "sleeps for ever in a vforked child", "timed_out", "the parent cannot be interrupted until its child is") {
    if (vfork() == 0)
        for (;;) pause();
}

CASE(child_of_init, "makes its child a child of PID 1 (CLONE_PARENT)", "contained", "the guest must not take it for the program") {
    static char stack[65536];
    if (clone(idle, stack + sizeof stack, CLONE_PARENT | SIGCHLD, NULL) < 0 && errno != EPERM) broken("clone");
}

CASE(child_without_signal, "leaves a child whose end sends no signal", "contained", "waiting for SIGCHLD alone would miss it") {
    static char stack[65536];
    if (clone(idle, stack + sizeof stack, 0, NULL) < 0) broken("clone");
}

CASE(process_group_suicide, "sends SIGKILL to its group and to everybody", "any", "the guest must not be in its reach") {
    lingering_child();
    kill(0, SIGKILL);
    kill(-1, SIGKILL);
}

CASE(leader_thread_gone, "ends its first thread and goes on in another", "timed_out", "the process has not ended, though it looks so") {
    static char stack[65536];
    int flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM;
    if (clone(idle, stack + sizeof stack, flags, NULL) < 0) broken("clone");
    syscall(SYS_exit, 0);
}

CASE(subreaper, "makes itself the reaper of its orphans, then ends", "contained", "orphans move once more, to PID 1") {
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    if (fork() == 0) {
        lingering_child();
        _exit(0);
    }
    wait(NULL);
}

CASE(survives_its_parent_by_pdeathsig, "asks for a death signal that it ignores", "contained", "nothing may outlive the task") {
    if (fork() == 0) {
        signal(SIGTERM, SIG_IGN);
        prctl(PR_SET_PDEATHSIG, SIGTERM);
        for (;;) pause();
    }
}

CASE(priorities, "raises its priority, takes all cores, asks for real time", "contained", "one task must not outrun the others") {
    struct sched_param p = {.sched_priority = 1};
    if (!sched_setscheduler(0, SCHED_FIFO, &p)) breach("real-time scheduling");
    if (!setpriority(PRIO_PROCESS, 0, -10)) breach("a priority of -10");
    struct rlimit more = {RLIM_INFINITY, RLIM_INFINITY};
    if (!setrlimit(RLIMIT_NPROC, &more)) {
        struct rlimit had;
        getrlimit(RLIMIT_NPROC, &had);
    }
    if (!setrlimit(RLIMIT_NOFILE, &more)) breach("unlimited descriptors");
}
