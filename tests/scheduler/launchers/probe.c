/* A stand-in for the guest that looks at its slot from the inside: connects to the socket that it is given as first
 * argument and answers questions, one message each. Every answer is text; a failure is "errno NAME". */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <mqueue.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/un.h>
#include <unistd.h>

extern char **environ;
static char answer[60000];

static void failed(void) { snprintf(answer, sizeof answer, "errno %s", strerrorname_np(errno)); }
static void ok(int result) {
    if (result < 0)
        failed();
    else
        strcpy(answer, "ok");
}

static void read_file(const char *path) {
    int fd = open(path, O_RDONLY);
    ssize_t got = fd < 0 ? -1 : read(fd, answer, sizeof answer - 1);
    if (got < 0)
        failed();
    else
        answer[got] = 0;
    if (fd >= 0)
        close(fd);
}

static void list(const char *path) {
    DIR *dir = opendir(path);
    struct dirent *entry;
    if (!dir) {
        failed();
        return;
    }
    answer[0] = 0;
    while ((entry = readdir(dir)))
        if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
            strcat(strcat(answer, entry->d_name), "\n");
    closedir(dir);
}

static void fill(const char *path, long mib) {
    static char block[1 << 20];
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    ssize_t put = fd < 0 ? -1 : 0;
    memset(block, 1, sizeof block);
    for (long i = 0; i < mib && put >= 0; i++)
        put = write(fd, block, sizeof block) == sizeof block ? 0 : -1;
    ok(put);
    if (fd >= 0)
        close(fd);
    unlink(path);
}

static void inodes(const char *folder, long count) {
    char path[4096];
    int fd = 0;
    for (long i = 0; i < count && fd >= 0; i++) {
        snprintf(path, sizeof path, "%s/%ld", folder, i);
        fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0600);
        if (fd >= 0)
            close(fd);
    }
    ok(fd);
    for (long i = 0; i < count; i++) {
        snprintf(path, sizeof path, "%s/%ld", folder, i);
        unlink(path);
    }
}

static void loopback(void) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof at;
    int server = socket(AF_INET, SOCK_STREAM, 0), client = socket(AF_INET, SOCK_STREAM, 0);
    ok(server < 0 || client < 0 || bind(server, (void *)&at, sizeof at) || listen(server, 1) ||
               getsockname(server, (void *)&at, &length) || connect(client, (void *)&at, sizeof at)
           ? -1
           : 0);
}

static void connect_to(const char *address) {
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(53)};
    inet_pton(AF_INET, address, &at.sin_addr);
    ok(connect(socket(AF_INET, SOCK_STREAM, 0), (void *)&at, sizeof at));
}

static void children(long count) {
    int made = 0;
    while (made < count) {
        pid_t pid = fork();
        if (pid < 0)
            break;
        if (!pid)
            for (;;)
                pause();
        made++;
    }
    snprintf(answer, sizeof answer, "%d", made);
}

static void limit(int resource) {
    struct rlimit have;
    getrlimit(resource, &have);
    snprintf(answer, sizeof answer, "%ld %ld", (long)have.rlim_cur, (long)have.rlim_max);
}

static void grow(long mib) {
    for (long i = 0; i < mib; i++)
        memset(malloc(1 << 20), 1, 1 << 20);
    strcpy(answer, "ok");
}

static void strings(char **all) {
    answer[0] = 0;
    for (; *all; all++)
        strcat(strcat(answer, *all), "\n");
}

int main(int argc, char **argv) {
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    char question[4096], word[64], path[4000];
    struct stat found;
    long number;
    int executor = socket(AF_UNIX, SOCK_SEQPACKET, 0);
    if (argc < 2)
        return 90;
    strncpy(at.sun_path, argv[1], sizeof at.sun_path - 1);
    if (connect(executor, (void *)&at, sizeof at))
        for (;;)
            pause();
    for (;;) {
        ssize_t got = recv(executor, question, sizeof question - 1, 0);
        if (got <= 0)
            return 91;
        question[got] = 0;
        number = 0;
        path[0] = 0;
        sscanf(question, "%63s %3999s %ld", word, path, &number);
        if (!strcmp(word, "read")) read_file(path);
        else if (!strcmp(word, "write")) ok(open(path, O_WRONLY | O_CREAT, 0600));
        else if (!strcmp(word, "unlink")) ok(unlink(path));
        else if (!strcmp(word, "list")) list(path);
        else if (!strcmp(word, "mode")) {
            if (stat(path, &found)) failed();
            else snprintf(answer, sizeof answer, "%o", found.st_mode & 07777);
        }
        else if (!strcmp(word, "owner")) {
            if (stat(path, &found)) failed();
            else snprintf(answer, sizeof answer, "%d:%d", found.st_uid, found.st_gid);
        }
        else if (!strcmp(word, "link")) {
            ssize_t length = readlink(path, answer, sizeof answer - 1);
            if (length < 0) failed();
            else answer[length] = 0;
        }
        else if (!strcmp(word, "fill")) fill(path, number);
        else if (!strcmp(word, "inodes")) inodes(path, number);
        else if (!strcmp(word, "loopback")) loopback();
        else if (!strcmp(word, "connect")) connect_to(path);
        else if (!strcmp(word, "children")) children(atol(path));
        else if (!strcmp(word, "limit")) limit(atoi(path));
        else if (!strcmp(word, "grow")) grow(atol(path));
        else if (!strcmp(word, "queue")) ok(mq_open("/q", O_RDWR | O_CREAT, 0600, NULL));
        else if (!strcmp(word, "argv")) strings(argv);
        else if (!strcmp(word, "env")) strings(environ);
        else if (!strcmp(word, "id")) snprintf(answer, sizeof answer, "%d %d %d", getpid(), getuid(), getgid());
        else if (!strcmp(word, "cwd")) { if (!getcwd(answer, sizeof answer)) failed(); }
        else if (!strcmp(word, "host")) gethostname(answer, sizeof answer);
        else if (!strcmp(word, "exit")) return atoi(path);
        else strcpy(answer, "what?");
        send(executor, answer, strlen(answer), 0);
    }
}
