/* What an ordinary program finds: for each argument, a folder is written to, a file is read. A line each. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int main(int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        char path[4096], text[256] = "ok";
        struct stat found;
        int folder = !stat(argv[i], &found) && S_ISDIR(found.st_mode), fd;
        snprintf(path, sizeof path, "%s%s", argv[i], folder ? "/new" : "");
        fd = folder ? open(path, O_WRONLY | O_CREAT | O_EXCL, 0600) : open(path, O_RDONLY);
        if (fd < 0)
            snprintf(text, sizeof text, "%s", strerror(errno));
        else if (!folder) {
            ssize_t got = read(fd, text, sizeof text - 1);
            text[got < 0 ? 0 : got] = 0;
        }
        printf("%s\t%s\n", argv[i], text);
    }
    return 0;
}
