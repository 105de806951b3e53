/* A picture on standard input, for a small program that hands it to a big one (ImageMagick, Tesseract).
 *
 * The big ones guess a format from the bytes, and some of what they guess at runs scripts, reads files or fetches
 * URLs. So the format is decided here, from the first bytes and a short list, and named to them explicitly.
 *
 * Exit codes are those of sysexits.h: 64 wrong arguments, 65 the input is no usable picture, 70 our own trouble.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <unistd.h>

#define INPUT_LIMIT (64L << 20) /* bytes; a slot has 512 MiB by default, and the decoded picture must fit as well */

extern const char program[]; /* the name that messages begin with */

__attribute__((format(printf, 2, 3), noreturn)) static void die(int code, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, "%s: ", program);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(code);
}

/* The format of a picture by its first bytes, in ImageMagick's word for it; NULL for everything else. */
static const char *format_of(const unsigned char *head, size_t length)
{
    static const struct {
        const char *name, *bytes;
        size_t at, length;
    } known[] = {
        {"jpeg", "\xff\xd8\xff", 0, 3},
        {"png", "\x89PNG\r\n\x1a\n", 0, 8},
        {"gif", "GIF87a", 0, 6},
        {"gif", "GIF89a", 0, 6},
        {"tiff", "II*\0", 0, 4},
        {"tiff", "MM\0*", 0, 4},
        {"webp", "WEBP", 8, 4},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (length >= known[i].at + known[i].length &&
            memcmp(head + known[i].at, known[i].bytes, known[i].length) == 0)
            return known[i].name;
    return NULL;
}

/* The memory, in MiB, that this container may use for a decoded picture: its limit less what programs and the picture
 * as it came need. */
static long memory_mib(void)
{
    static const char *const files[] = {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"};
    long long bytes = 0;
    for (size_t i = 0; i < 2 && bytes == 0; i++) {
        FILE *file = fopen(files[i], "r");
        if (!file)
            continue;
        if (fscanf(file, "%lld", &bytes) != 1)
            bytes = 0; /* "max" */
        fclose(file);
    }
    long mib = bytes > 0 && bytes < 1LL << 40 ? (long)(bytes >> 20) : 512;
    return mib > 128 ? mib - 64 : mib / 2;
}

/* An empty file in memory. */
static int scratch(const char *name)
{
    int file = memfd_create(name, MFD_CLOEXEC);
    if (file < 0)
        die(EX_OSERR, "no memory for the %s: %s", name, strerror(errno));
    return file;
}

/* Reads all of standard input into memory and makes that the new standard input, at its start; gives the format.
 * A file in memory can be sought in, which TIFF needs, and read from again. Ends the program where it is no picture. */
static const char *take_picture(void)
{
    static char buffer[1 << 16];
    unsigned char head[16];
    long total = 0;
    int file = scratch("picture");
    for (;;) {
        ssize_t got = read(STDIN_FILENO, buffer, sizeof buffer);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            die(EX_NOINPUT, "standard input can't be read: %s", strerror(errno));
        if (got == 0)
            break;
        total += got;
        if (total > INPUT_LIMIT)
            die(EX_DATAERR, "the picture has more than %ld MiB", INPUT_LIMIT >> 20);
        for (ssize_t put = 0, done = 0; done < got; done += put)
            if ((put = write(file, buffer + done, (size_t)(got - done))) < 0)
                die(EX_OSERR, "no memory for the picture: %s", strerror(errno));
    }
    if (total == 0)
        die(EX_DATAERR, "no input: send a picture on standard input");
    ssize_t length = pread(file, head, sizeof head, 0);
    const char *format = format_of(head, length > 0 ? (size_t)length : 0);
    if (!format)
        die(EX_DATAERR, "the input is no JPEG, PNG, GIF, TIFF or WebP picture");
    if (lseek(file, 0, SEEK_SET) != 0 || dup2(file, STDIN_FILENO) < 0)
        die(EX_OSERR, "the picture can't be handed on: %s", strerror(errno));
    return format;
}

/* Of what the big program wrote, the first line that is no mere warning, less the name before it, and less the file
 * name and source position after it, which speak of our workings. */
static const char *in_one_line(char *text)
{
    char *rest = text, *line;
    do
        line = strsep(&rest, "\r\n");
    while (rest && *rest && (strstr(line, "warning") || strncmp(line, "Estimating", 10) == 0));
    for (char *end; (end = strstr(line, " @ ")) || (end = strstr(line, " `"));)
        *end = '\0';
    char *name = strstr(line, ": ");
    if (name && strcspn(line, " ") == (size_t)(name - line) + 1)
        line = name + 2;
    if (strcmp(line, "cache resources exhausted") == 0)
        return "it is too large for the memory of this task; ask for more";
    if (!*line || strcmp(line, "no images defined") == 0)
        return "nothing in it could be decoded; it is damaged, cut short, or too large for the memory of this task";
    return line;
}

/* Writes all of a file to standard output. Gives the exit code for it. */
static int pour_out(int file)
{
    off_t from = 0;
    static char buffer[1 << 16];
    for (ssize_t got; (got = pread(file, buffer, sizeof buffer, from)) > 0; from += got)
        for (ssize_t put = 0, done = 0; done < got; done += put > 0 ? put : 0)
            if ((put = write(STDOUT_FILENO, buffer + done, (size_t)(got - done))) < 0 && errno != EINTR)
                die(EX_IOERR, "standard output can't be written: %s", strerror(errno));
    return 0;
}

/* Runs the big program on our standard input. Its output goes into memory first, so that either all of it goes out or
 * nothing (and TIFF is not written in one direction only). What it says on standard error is shown only if it fails,
 * as one line; then we end with 65, as nearly all that goes wrong is an unusable picture. Gives the exit code. */
static int run(char *const command[])
{
    int output = scratch("output");
    char said[4096], rest[4096];
    size_t length = 0;
    int complaints[2], status;
    if (pipe(complaints) < 0)
        die(EX_OSERR, "no pipe: %s", strerror(errno));
    pid_t child = fork();
    if (child < 0)
        die(EX_OSERR, "no process for %s: %s", command[0], strerror(errno));
    if (child == 0) {
        dup2(complaints[1], STDERR_FILENO);
        dup2(output, STDOUT_FILENO);
        close(complaints[0]);
        close(complaints[1]);
        execv(command[0], command);
        fprintf(stderr, "%s can't be run: %s", command[0], strerror(errno));
        _exit(EX_UNAVAILABLE);
    }
    close(complaints[1]);
    for (ssize_t got; (got = read(complaints[0], rest, sizeof rest)) != 0;) {
        if (got < 0 && errno != EINTR)
            break;
        for (ssize_t i = 0; i < got && length < sizeof said - 1; i++)
            said[length++] = rest[i];
    }
    said[length] = '\0';
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        ;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
        /* Most warnings are about trifles, such as an odd colour profile. This one means that half of it is missing. */
        if (strstr(said, "Premature end"))
            die(EX_DATAERR, "the picture is cut short");
        return pour_out(output);
    }
    if (WIFSIGNALED(status))
        die(EX_SOFTWARE, "%s was ended by signal %d, %s", command[0], WTERMSIG(status), strsignal(WTERMSIG(status)));
    if (WEXITSTATUS(status) == EX_UNAVAILABLE)
        die(EX_UNAVAILABLE, "%s", said);
    die(EX_DATAERR, "the picture can't be used: %s", in_one_line(said));
}
