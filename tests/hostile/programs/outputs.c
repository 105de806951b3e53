// Output files: what a program may have kept by name must be a file of its own, or of its image. Nobody may be made to wait,
// to fill a disk, or to read for it what it could not read itself.
#include "hostile.h"
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>

#define MIB (1 << 20)
#define TEN(x) x x x x x x x x x x

static void write_mine(const char *path) {
    int fd = open(path, O_CREAT | O_WRONLY | O_TRUNC, 0666);
    if (fd < 0 || write(fd, "mine\n", 5) != 5) broken("%s", path);
    close(fd);
}

// A file of that size, all hole but its beginning.
static void write_sparse(const char *path, off_t size) {
    write_mine(path);
    if (truncate(path, size)) broken("%s", path);
}

static void must_link(const char *target, const char *path) {
    if (symlink(target, path)) broken("%s", path);
}

// A process that outlives the program, as a daemon would.
static bool in_a_daemon(void) {
    pid_t pid = fork();
    if (pid < 0) broken("fork");
    if (pid == 0) setsid();
    return pid == 0;
}

OUTPUTS(output_is_a_link, "/tmp/passwd /tmp/environ /tmp/zero /tmp/loop", "none", "has links to files of host and guest kept",
        "contained", "following a link would read what the program could not") {
    must_link("/etc/passwd", "/tmp/passwd");
    must_link("/proc/1/environ", "/tmp/environ");
    must_link("/dev/zero", "/tmp/zero");
    must_link("loop", "/tmp/loop");
}

OUTPUTS(output_beyond_a_link, "/tmp/init/environ /tmp/init/root/etc/passwd /tmp/up/etc/passwd /tmp/here/file", "none",
        "puts a link in the place of a folder of the path", "contained", "only the last part of a path is what O_NOFOLLOW looks at") {
    must_link("/proc/1", "/tmp/init");
    must_link("../../../../..", "/tmp/up");
    mkdir("/tmp/real", 0777);
    write_mine("/tmp/real/file");
    must_link("real", "/tmp/here");
}

OUTPUTS(output_is_a_fifo, "/tmp/fifo /tmp/fed", "none", "has FIFOs kept, one that somebody writes to", "contained",
        "opening a FIFO blocks, reading one never ends") {
    if (mkfifo("/tmp/fifo", 0666) || mkfifo("/tmp/fed", 0666)) broken("mkfifo");
    if (in_a_daemon()) {
        int fd = open("/tmp/fed", O_RDWR);
        while (write(fd, "mine\n", 5) > 0) {}
        _exit(0);
    }
    usleep(20000);
}

OUTPUTS(output_is_a_socket, "/tmp/socket", "none", "has a listening socket kept", "contained", "it is a name, but no file") {
    struct sockaddr_un a = {.sun_family = AF_UNIX, .sun_path = "/tmp/socket"};
    int s = socket(AF_UNIX, SOCK_STREAM, 0);
    if (s < 0 || bind(s, (struct sockaddr *)&a, sizeof a) || listen(s, 8)) broken("a socket");
}

OUTPUTS(output_is_a_folder, "/tmp/folder /tmp /dev/shm /proc /gc", "none", "has folders kept", "contained",
        "a folder's descriptor leads to all that it holds, and beyond by `..`") {
    mkdir("/tmp/folder", 0777);
}

OUTPUTS(output_is_a_device, "/dev/zero /dev/random /dev/null /dev/full /dev/tty /dev/stdout /dev/fd/1 /dev/ptmx", "none",
        "has devices kept", "contained", "/dev/zero never ends") {}

OUTPUTS(output_is_the_guest_s, "/proc/1/environ /proc/1/mem /proc/1/maps /proc/1/cmdline /proc/1/fd/0 /proc/1/root/etc/passwd /proc/1/exe "
                               "/proc/1/task/1/environ /gc/run/executor.sock",
        "none", "has the guest read its own memory and environment for it", "contained",
        "the guest may read of itself what the program may not, the token above all") {}

OUTPUTS(output_is_the_kernel_s, "/proc/self/environ /proc/self/fd/1 /proc/self/root/hostile /proc/self/cwd/hostile /proc/thread-self/maps "
                                "/proc/version /proc/kmsg /proc/kcore /proc/mounts /sys/kernel/notes /sys/fs/cgroup/cgroup.procs",
        "none", "has files of /proc and /sys kept", "contained", "their size is a guess, and reading some of them blocks") {}

OUTPUTS(output_is_mounted_there, "/etc/hostname /etc/hosts /etc/resolv.conf /gc/guest", "any", "has files kept that the engine laid over its image",
        "contained", "the program can read them too; nothing of the host is in them") {
    for (const char *const *path = (const char *const[]){"/etc/hostname", "/etc/hosts", "/etc/resolv.conf", NULL}; *path; path++)
        if (can_write(*path)) breach("%s can be written", *path);
}

OUTPUTS(output_is_the_image_s, "/hostile", "any", "has a file of its image kept", "contained", "it could print it as well: that is allowed") {}

OUTPUTS(output_is_a_hard_link, "/tmp/first /tmp/second", "mine", "has a hard link kept, and tries to link what is not its own", "contained",
        "both names are the same file of its own") {
    write_mine("/tmp/first");
    if (link("/tmp/first", "/tmp/second")) broken("link");
    if (!link("/hostile", "/tmp/third") || !link("/etc/hosts", "/tmp/third") || !link("/proc/1/environ", "/tmp/third")) breach("linked");
    if (!linkat(open("/proc/self/exe", O_RDONLY | O_CLOEXEC), "", AT_FDCWD, "/tmp/third", 0x1000 /* AT_EMPTY_PATH */)) breach("linked");
}

OUTPUTS(output_is_unreadable, "/tmp/secret /tmp/locked/file", "none", "has files kept that their modes let nobody read", "contained",
        "the guest is the same user: it must fail, not wait or force its way") {
    write_mine("/tmp/secret");
    mkdir("/tmp/locked", 0777);
    write_mine("/tmp/locked/file");
    if (chmod("/tmp/secret", 0) || chmod("/tmp/locked", 0)) broken("chmod");
}

OUTPUTS(output_is_deleted, "/tmp/deleted", "none", "has a file kept that has a descriptor, but no name any more", "contained", "what has no name was not asked for") {
    write_mine("/tmp/deleted");
    int fd = open("/tmp/deleted", O_RDWR);
    if (unlink("/tmp/deleted") || fd < 0) broken("unlink");
    lingering_child();
}

OUTPUTS(output_of_a_terabyte, "/tmp/terabyte /tmp/most /dev/shm/terabyte", "none", "has files kept that are a terabyte of hole", "contained",
        "a hole costs its maker nothing; writing it out takes a disk and an hour") {
    write_sparse("/tmp/terabyte", 1LL << 40);
    write_sparse("/tmp/most", 0x7fffffffffffffff);
    write_sparse("/dev/shm/terabyte", 1LL << 40);
}

OUTPUTS(output_too_large, "/tmp/large", "none", "has more kept than a file may hold", "contained", "disks are bounded, and shared") {
    static char block[MIB] = "mine\n";
    int fd = open("/tmp/large", O_CREAT | O_WRONLY, 0666);
    for (int i = 0; i < 9; i++)
        if (write(fd, block, sizeof block) != sizeof block) broken("write");
}

OUTPUTS(output_too_large_together, "/tmp/1 /tmp/2 /tmp/3 /tmp/4 /tmp/5 /tmp/6", "mine", "has many files kept, each within the limit", "contained",
        "a limit for each is none for all") {
    for (char path[] = "/tmp/1"; path[5] < '7'; path[5]++) write_sparse(path, 7 * MIB);
}

OUTPUTS(output_of_many_holes, "/tmp/comb", "mine", "has a file kept of which every second page is a hole", "contained",
        "each hole has to be found; together they must not take long, nor be written out") {
    static char page[4096] = "mine\n";
    int fd = open("/tmp/comb", O_CREAT | O_WRONLY, 0666);
    for (int i = 0; i < 1000; i++)
        if (pwrite(fd, page, sizeof page, 8192L * i) != sizeof page) broken("write");
}

OUTPUTS(output_of_most_files,
        "/tmp/0 " "/tmp/00 /tmp/01 /tmp/02 /tmp/03 /tmp/04 /tmp/05 /tmp/06 /tmp/07 /tmp/10 /tmp/11 /tmp/12 /tmp/13 /tmp/14 /tmp/15 /tmp/16 /tmp/17 "
        "/tmp/20 /tmp/21 /tmp/22 /tmp/23 /tmp/24 /tmp/25 /tmp/26 /tmp/27 /tmp/30 /tmp/31 /tmp/32 /tmp/33 /tmp/34 /tmp/35 /tmp/36 /tmp/37 "
        "/tmp/40 /tmp/41 /tmp/42 /tmp/43 /tmp/44 /tmp/45 /tmp/46 /tmp/47 /tmp/50 /tmp/51 /tmp/52 /tmp/53 /tmp/54 /tmp/55 /tmp/56 /tmp/57 "
        "/tmp/60 /tmp/61 /tmp/62 /tmp/63 /tmp/64 /tmp/65 /tmp/66 /tmp/67 /tmp/70 /tmp/71 /tmp/72 /tmp/73 /tmp/74 /tmp/75 /tmp/76",
        "mine", "has as many files kept as there may be", "contained", "each is a descriptor in a message, and one of the set's") {
    write_mine("/tmp/0");
    for (char path[] = "/tmp/00"; path[5] < '8'; path[5]++)
        for (path[6] = '0'; path[6] < '8'; path[6]++) write_mine(path);
}

OUTPUTS(output_of_a_deep_path, "/tmp" TEN(TEN(TEN("/d"))) TEN(TEN(TEN("/d"))) "/leaf", "mine", "has a file kept 2,000 folders deep", "contained",
        "the longest path that can be asked for is walked in bounded time") {
    if (chdir("/tmp")) broken("chdir");
    for (int i = 0; i < 2000; i++)
        if (mkdir("d", 0777) || chdir("d")) broken("level %d", i);
    write_mine("leaf");
}

OUTPUTS(output_of_an_odd_name, "/tmp/\xEF\xBF\xBD /tmp/{} /tmp/%2e%2e /tmp/a=b&c /tmp/;", "mine", "has files kept whose names are no text, or look like something else",
        "contained", "names are bytes: what cannot be asked for must not be found by something like it") {
    int fd = open("/tmp/\xff", O_CREAT | O_WRONLY, 0666);
    if (fd < 0 || write(fd, "not asked for\n", 14) != 14) broken("write");
    write_mine("/tmp/{}");
    write_mine("/tmp/%2e%2e");
    write_mine("/tmp/a=b&c");
    write_mine("/tmp/;");
}

OUTPUTS(output_replaced_at_the_end, "/tmp/file /tmp/folder/environ", "mine", "leaves a daemon that swaps file, link and FIFO for each other while the task ends",
        "contained", "between a look and the opening nobody may run") {
    mkdir("/tmp/folder", 0777);
    write_mine("/tmp/folder/environ");
    write_mine("/tmp/file");
    if (!in_a_daemon()) {
        usleep(20000);
        return;
    }
    for (int i = 0;; i++) {
        unlink("/tmp/next");
        if (i % 3 == 0) must_link("/proc/1/environ", "/tmp/next");
        else if (i % 3 == 1) mkfifo("/tmp/next", 0666);
        else write_mine("/tmp/next");
        rename("/tmp/next", "/tmp/file");
        rename("/tmp/folder", "/tmp/real");
        must_link("/proc/1", "/tmp/folder");
        unlink("/tmp/folder");
        rename("/tmp/real", "/tmp/folder");
    }
}

OUTPUTS(output_written_at_the_end, "/tmp/file", "mine", "leaves daemons that write, cut and lock a file which is being kept", "contained",
        "what is kept must have the size that was announced") {
    static char block[MIB] = "mine\n";
    int fd = open("/tmp/file", O_CREAT | O_RDWR, 0666);
    if (fd < 0 || write(fd, block, sizeof block) != sizeof block) broken("write");
    for (int i = 0; i < 3; i++)
        if (in_a_daemon()) {
            if (i == 1) fcntl(fd, F_SETLEASE, F_WRLCK);
            if (i == 2) flock(fd, LOCK_EX);
            for (off_t n = 5;; n = 5 + (n * 7919 + 13) % (sizeof block - 5)) {
                if (i == 0 && ftruncate(fd, n)) _exit(0);
                if (i != 0 && pwrite(fd, "x", 1, n) != 1) _exit(0);
            }
        }
    usleep(20000);
}

OUTPUTS(output_mapped_at_the_end, "/tmp/file", "mine", "leaves a daemon that writes to a mapping of a file which is being kept", "contained",
        "a mapping needs no descriptor") {
    int fd = open("/tmp/file", O_CREAT | O_RDWR, 0666);
    if (fd < 0 || ftruncate(fd, MIB) || pwrite(fd, "mine\n", 5, 0) != 5) broken("a file");
    char *at = mmap(NULL, MIB, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (at == MAP_FAILED) broken("mmap");
    close(fd);
    if (in_a_daemon())
        for (unsigned n = 5;; n = 5 + (n * 7919 + 13) % (MIB - 5)) at[n] ^= 1;
    usleep(20000);
}

OUTPUTS(output_of_one_that_never_ends, "/tmp/file", "mine", "writes a file and never ends", "timed_out",
        "what a task had made when it was ended is the best there is to see why") {
    write_mine("/tmp/file");
    for (;;) pause();
}
