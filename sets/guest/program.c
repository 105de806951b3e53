#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "content.h"
#include "program.h"
#include "self.h"

#define OOM_PREFERENCE 500
#if defined(__x86_64__)
#define OWN_MACHINE EM_X86_64
#elif defined(__aarch64__)
#define OWN_MACHINE EM_AARCH64
#endif

struct run run;
char *argv[STRINGS_COUNT + 1], **base_env, **envp;
const char *tried;
uint8_t why;
int children = -1;
static int oom_score = -1;
static char oom_own[16], oom_program[16];
static struct rlimit program_descriptors;

void take_oom_score(void) {
    char text[16] = "";
    oom_score = open("/proc/self/oom_score_adj", O_RDWR | O_CLOEXEC);
    if (oom_score < 0) return;
    int own = pread(oom_score, text, sizeof text - 1, 0) > 0 ? atoi(text) : 0;
    snprintf(oom_own, sizeof oom_own, "%d", own);
    snprintf(oom_program, sizeof oom_program, "%d", own > 1000 - OOM_PREFERENCE ? 1000 : own + OOM_PREFERENCE);
}

// A program's limit is its own. Ours is the most that the container may have: beside the program's pipes we hold its files.
void take_descriptors(const char *of_program) {
    struct rlimit own;
    char *end;
    program_descriptors.rlim_cur = program_descriptors.rlim_max = strtoul(of_program, &end, 10);
    if (*end || program_descriptors.rlim_cur < 3 || program_descriptors.rlim_cur > INT_MAX) unusable(of_program, "no number of descriptors");
    if (getrlimit(RLIMIT_NOFILE, &own)) unusable("its limit of descriptors", strerror(errno));
    if (own.rlim_max < program_descriptors.rlim_max) unusable(of_program, "more descriptors than the container may have");
    own.rlim_cur = own.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &own)) unusable("its limit of descriptors", strerror(errno));
}

static void reaped(const struct rusage *usage) {
    run.reaped_cpu_us += cpu_us(usage);
    if ((uint64_t)usage->ru_maxrss > run.max_rss_kib) run.max_rss_kib = (uint64_t)usage->ru_maxrss;
}

bool reap(int flags) {
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

// One sweep suffices: a process that is being killed can no longer fork.
void kill_all(void) {
    do kill(-1, SIGKILL); while (!reap(0));
}

static const char *value_of(char **env, const char *name) {
    size_t n = strlen(name);
    for (; *env; env++)
        if (!strncmp(*env, name, n) && (*env)[n] == '=') return *env + n + 1;
    return NULL;
}

uint8_t why_not(const char *path, int error) {
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

// The next path that PATH gives for argv[0], or NULL; *at is where the search continues.
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

int spawn(int in, int o, int e) {
    volatile int failed = 0;
    why = WHY_UNKNOWN;
    let_a_tick_pass();
    // The child inherits this score, and ours is put back: a kernel that is short of memory then kills the program, not us.
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
