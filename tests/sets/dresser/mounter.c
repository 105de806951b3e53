// Changes the mounts of a process's namespace, as a stranger on the host might: mounter PID bind|tmpfs|umount TARGET [SOURCE]
#define _GNU_SOURCE
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>

int main(int argc, char **args) {
    char path[64];
    if (argc < 4) return 2;
    snprintf(path, sizeof path, "/proc/%s/ns/mnt", args[1]);
    if (setns(open(path, O_RDONLY), CLONE_NEWNS)) return perror("setns"), 1;
    int failed = !strcmp(args[2], "umount") ? umount2(args[3], MNT_DETACH)
               : !strcmp(args[2], "tmpfs")  ? mount("stranger", args[3], "tmpfs", 0, "")
                                            : mount(args[4], args[3], NULL, MS_BIND, NULL);
    if (failed) perror(args[3]);
    return failed != 0;
}
