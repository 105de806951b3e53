// What a program can do to its own standard streams.
#include "hostile.h"
#include <poll.h>

CASE(closes_its_streams, "closes 0, 1 and 2 and goes on for a while", "contained", "closed output is not the end of the task") {
    close(0);
    close(1);
    close(2);
    usleep(200000);
    _exit(0);
}

CASE(output_for_ever, "prints without end", "timed_out", "neither the set's memory nor its disk may take it all") {
    static char block[65536];
    memset(block, 'x', sizeof block);
    for (;;)
        if (write(1, block, sizeof block) < 0) usleep(1000);
}

CASE(output_drop_by_drop, "prints one byte every 50 ms without end", "timed_out", "a slow stream must not hold a slot for ever") {
    for (;;) {
        if (write(1, ".", 1) < 0) _exit(0);
        usleep(50000);
    }
}

CASE(says_nothing, "never says anything", "timed_out", "silence must end, too") {
    for (;;) pause();
}

CASE(errors_for_ever, "prints errors without end", "timed_out", "stderr is bounded like stdout") {
    static char block[65536];
    for (;;)
        if (write(2, block, sizeof block) < 0) usleep(1000);
}

CASE(much_of_both, "prints 30 MB to both outputs, then ends", "any", "reading one after the other would lock up") {
    static char block[65536];
    for (int i = 0; i < 480; i++)
        for (int fd = 1; fd < 3; fd++)
            if (write(fd, block, sizeof block) < 0) _exit(3);
    _exit(0);
}

CASE(ignores_its_input, "never reads what it is sent", "contained", "the sender must not block for ever") {}

CASE(reads_after_the_end, "reads on after the end of its input", "contained", "the end must stay the end") {
    char buffer[65536];
    while (read(0, buffer, sizeof buffer) > 0) {}
    for (int i = 0; i < 100; i++)
        if (read(0, buffer, sizeof buffer) > 0) breach("bytes after the end");
}

CASE(makes_its_streams_non_blocking, "sets O_NONBLOCK on its streams", "contained", "all that share the descriptor share its flags") {
    for (int fd = 0; fd < 3; fd++) fcntl(fd, F_SETFL, O_NONBLOCK);
}

CASE(resizes_its_pipes, "makes its pipes as small and as large as it can", "contained", "the executor must not count on their size") {
    for (int fd = 0; fd < 3; fd++) {
        fcntl(fd, F_SETPIPE_SZ, 4096);
        fcntl(fd, F_SETPIPE_SZ, 1 << 20);
        fcntl(fd, F_SETPIPE_SZ, 1 << 30);
        fcntl(fd, F_SETPIPE_SZ, 4096);
    }
}

CASE(steals_its_output, "opens the other ends of its own pipes", "any", "a pipe can be opened again by /proc") {
    int in = open("/proc/self/fd/1", O_RDONLY | O_NONBLOCK), out = open("/proc/self/fd/0", O_WRONLY | O_NONBLOCK);
    char byte;
    if (write(1, "mine", 4) != 4) broken("write");
    while (in >= 0 && read(in, &byte, 1) > 0) {}
    if (out >= 0 && write(out, "to myself", 9) < 0) {}
    if (fork() == 0)
        for (;;) pause();
}

CASE(reopens_its_streams, "opens its streams by name, its own input for writing as well", "contained", "a pipe that the set made is the program's to open, whoever it is") {
    const char *names[] = {"/dev/stdin", "/dev/stdout", "/dev/stderr", "/proc/self/fd/0", "/proc/self/fd/1", "/proc/self/fd/2"};
    const int ways[] = {O_RDONLY, O_WRONLY, O_WRONLY | O_APPEND, O_RDWR};
    char byte;
    for (int i = 0; i < 6; i++)
        for (int k = 0; k < 4; k++) {
            int fd = open(names[i], ways[k] | O_NONBLOCK | O_CLOEXEC);
            if (fd < 0) broken("%s in way %d", names[i], k);
            close(fd);
        }
    int again = open("/dev/stdin", O_RDONLY);
    close(0);
    while (read(again, &byte, 1) == 1) {}
}
