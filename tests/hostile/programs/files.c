// Files that are hard to remove, lead elsewhere, or carry privileges.
#include "hostile.h"
#include <sys/mount.h>
#include <sys/xattr.h>
#include <linux/fs.h>
#include <sys/ioctl.h>

CASE(undeletable, "leaves folders and files without any permission", "contained", "clean-up runs as the same user") {
    mkdir("/tmp/locked", 0777);
    mkdir("/tmp/locked/inner", 0777);
    close(open("/tmp/locked/inner/file", O_CREAT | O_WRONLY, 0));
    chmod("/tmp/locked/inner", 0);
    chmod("/tmp/locked", 0);
}

CASE(immutable, "marks files immutable", "contained", "an immutable file cannot be removed") {
    int fd = open("/tmp/stone", O_CREAT | O_RDWR, 0666), flags = FS_IMMUTABLE_FL;
    if (fd >= 0 && !ioctl(fd, FS_IOC_SETFLAGS, &flags)) breach("an immutable file");
}

CASE(deep_tree, "leaves a tree of 3,000 levels", "contained", "deeper than any path can name") {
    if (chdir("/tmp")) broken("chdir");
    for (int i = 0; i < 3000; i++)
        if (mkdir("d", 0777) || chdir("d")) return;
    close(open("leaf", O_CREAT | O_WRONLY, 0666));
}

CASE(wide_tree, "leaves 20,000 files", "contained", "clean-up must be bounded, and billed") {
    char path[64];
    for (int i = 0; i < 20000; i++) {
        snprintf(path, sizeof path, "/tmp/f%d", i);
        int fd = open(path, O_CREAT | O_WRONLY, 0666);
        if (fd < 0) return;
        close(fd);
    }
}

CASE(odd_names, "leaves names of 255 bytes that are no text", "contained", "names are bytes, not strings") {
    char path[300] = "/tmp/";
    for (int seed = 1; seed < 40; seed++) {
        for (int i = 0; i < 255; i++) {
            unsigned char c = (unsigned char)(1 + (seed * 7 + i * 13) % 254);
            path[5 + i] = (char)(c == '/' ? 1 : c);
        }
        path[260] = 0;
        close(open(path, O_CREAT | O_WRONLY, 0666));
    }
    mkdir("/tmp/...", 0777);
    mkdir("/tmp/ ", 0777);
    mkdir("/tmp/-rf", 0777);
    mkdir("/tmp/\n", 0777);
}

CASE(links_elsewhere, "leaves links to places outside", "contained", "clean-up must remove links, never what they name") {
    if (symlink("/etc", "/tmp/etc") || symlink("/dev/shm", "/tmp/shm") || symlink("/", "/tmp/root")) broken("symlink");
    if (symlink("loop", "/tmp/loop")) broken("symlink");
    mkdir("/tmp/sub", 0777);
    if (symlink("../../../../etc/passwd", "/tmp/sub/up")) broken("symlink");
}

CASE(fifos_and_sockets, "leaves FIFOs", "contained", "opening one would block the reader") {
    mkfifo("/tmp/fifo", 0666);
    mkdir("/tmp/d", 0777);
    mkfifo("/tmp/d/fifo", 0);
}

CASE(change_the_place, "changes mode and attributes of /tmp itself", "contained", "the place outlives the task") {
    chmod("/tmp", 0);
    chmod("/dev/shm", 0700);
    setxattr("/tmp", "user.message", "hello", 5, 0);
    setxattr("/dev/shm", "user.message", "hello", 5, 0);
}

CASE(remove_the_place, "removes or renames /tmp", "contained", "the guest would clean another folder") {
    if (!rmdir("/tmp")) breach("removed");
    if (!rename("/tmp", "/old")) breach("renamed");
    if (!rename("/tmp", "/dev/shm/old")) breach("moved");
}

CASE(mounts, "mounts, binds, unmounts, changes its root", "contained", "mounts are the walls of a container") {
    mkdir("/tmp/m", 0777);
    if (!mount("none", "/tmp/m", "tmpfs", 0, NULL)) breach("mounted");
    if (!mount("/etc", "/tmp/m", NULL, MS_BIND, NULL)) breach("bound");
    if (!mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND, NULL)) breach("remounted");
    if (!umount2("/proc", MNT_DETACH) || !umount2("/tmp", MNT_DETACH)) breach("unmounted");
    if (!syscall(SYS_pivot_root, "/tmp", "/tmp/m")) breach("pivoted");
    if (!chroot("/tmp")) breach("a root of its own");
    if (syscall(428 /* open_tree */, -100, "/", 1) >= 0) breach("open_tree");
    if (syscall(430 /* fsopen */, "tmpfs", 0) >= 0) breach("fsopen");
}

CASE(set_uid_program, "makes a set-uid program and runs it", "contained", "a root of the container is one step nearer to the host's") {
    static char buffer[1 << 16];
    int in = open("/proc/self/exe", O_RDONLY), out = open("/tmp/su", O_CREAT | O_WRONLY, 0777);
    if (in < 0 || out < 0) broken("copy");
    for (ssize_t n; (n = read(in, buffer, sizeof buffer)) > 0;)
        if (write(out, buffer, (size_t)n) != n) broken("write");
    close(out);
    chmod("/tmp/su", 06777);
    if (chown("/tmp/su", 0, 0) == 0 && geteuid() != 0) breach("a file given to root");
    if (setuid(geteuid() + 1) == 0 && geteuid() == 0) breach("setuid");
    if (geteuid() != 0 && (!setuid(0) || !seteuid(0))) breach("root");
}

CASE(capabilities, "uses what root could do", "contained", "root without capabilities is nobody") {
    if (!chown("/tmp", getuid() + 1, (gid_t)-1)) breach("chown");
    if (!sethostname("mine", 4)) breach("a hostname");
    if (!setgid(getgid() + 1) && getgid() != 0) breach("another group");
    if (!setuid(getuid() + 1)) breach("another user");
    if (nice(-5) != -1) breach("a higher priority");
}

CASE(handles, "opens files by handle", "contained", "the way that once read a host's files from a container") {
    struct { unsigned bytes; int type; unsigned char data[8]; } handle = {8, 1, {2, 0, 0, 0, 0, 0, 0, 0}};
    int mount_fd = open("/etc/hosts", O_RDONLY);
    if (syscall(SYS_open_by_handle_at, mount_fd, &handle, O_RDONLY) >= 0) breach("opened");
}

CASE(volume_of_the_image, "changes what the image has in its VOLUME", "contained", "all slots of the image read one copy of it") {
    const struct timespec times[2] = {{.tv_sec = 1}, {.tv_sec = 1}};
    if (access("/held/content", R_OK)) broken("the content");
    if (can_write("/held/content") || open("/held/new", O_CREAT | O_WRONLY, 0666) >= 0) breach("written");
    if (!truncate("/held/content", 0) || !unlink("/held/content") || !rename("/held/content", "/held/other")) breach("removed");
    if (!chmod("/held/content", 0777) || !chmod("/held", 0777) || !utimensat(AT_FDCWD, "/held", times, 0)) breach("changed");
    if (!setxattr("/held/content", "user.message", "hello", 5, 0)) breach("an attribute");
    if (!mkdir("/held/folder", 0777) || !link("/held/content", "/held/link") || !symlink("/", "/held/link")) breach("made");
    if (!mount("", "/held", "", MS_REMOUNT | MS_BIND, "") || !umount2("/held", MNT_DETACH)) breach("mounted again");
    int fd = open("/held/content", O_RDONLY), flags = FS_IMMUTABLE_FL;
    if (!fchmod(fd, 0777) || !ioctl(fd, FS_IOC_SETFLAGS, &flags)) breach("by its descriptor");
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (can_write(path)) breach("opened again");
}
