// Using things up: memory, disk, pipes, watches, locks, signals. What the kernel counts per user reaches across slots.
#include "hostile.h"
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <netinet/in.h>
#include <time.h>

static void fill(const char *folder, size_t block_bytes, long most) {
    static char block[1 << 20];
    char path[300];
    memset(block, 'x', sizeof block);
    for (long i = 0; i < most; i++) {
        snprintf(path, sizeof path, "%s/fill-%ld", folder, i);
        int fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0666);
        if (fd < 0) return;
        ssize_t n = block_bytes ? write(fd, block, block_bytes) : 0;
        close(fd);
        if (n < (ssize_t)block_bytes) return;
    }
    breach("%ld files of %zu bytes in %s, and no limit", most, block_bytes, folder);
}

CASE(memory_bomb, "takes memory until there is no more", "memory", "the host's memory is everybody's") {
    for (;;) {
        char *p = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
        if (p != MAP_FAILED) memset(p, 1, 1 << 20);
    }
}

CASE(memory_bomb_of_children, "takes memory in many small processes", "any", "the killer must find them, and never the guest") {
    for (int i = 0; i < 100; i++)
        if (fork() == 0)
            for (;;) {
                char *p = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
                if (p == MAP_FAILED) pause();
                memset(p, 1, 1 << 20);
            }
    for (int i = 0; i < 100; i++) wait(NULL);
}

CASE(shared_memory_bomb, "takes shared memory that belongs to no process", "any", "killing frees nothing of it") {
    for (int i = 0; i < 4096; i++) {
        int fd = (int)syscall(SYS_memfd_create, "bomb", 0);
        if (fd < 0 || ftruncate(fd, 1 << 20)) break;
        char *p = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (p == MAP_FAILED) break;
        memset(p, 1, 1 << 20);
    }
}

CASE(fill_tmp, "fills /tmp by bytes", "any", "a sized tmpfs, not the host's disk") { fill("/tmp", 1 << 20, 100000); }

CASE(fill_tmp_with_files, "fills /tmp by inodes", "contained", "empty files cost kernel memory") { fill("/tmp", 0, 2000000); }

CASE(fill_shm, "fills /dev/shm", "any", "the other writable place") { fill("/dev/shm", 1 << 20, 100000); }

CASE(sparse_giant, "makes a file of an exabyte", "contained", "size is not blocks: a copy must look at both") {
    int fd = open("/tmp/giant", O_CREAT | O_RDWR, 0666);
    if (fd < 0) broken("open");
    if (!ftruncate(fd, 1ll << 60)) return;
    if (ftruncate(fd, 1ll << 40)) return;
}

CASE(use_up_pipes, "takes all pipe memory of its user", "any", "it counts as its slot's memory, and per user of the host: pipes of others shrink") {
    int count = 0;
    for (int p[2]; count < 20000 && !pipe(p); count++) {
        fcntl(p[1], F_SETPIPE_SZ, 1 << 20);
        fcntl(p[1], F_SETFL, O_NONBLOCK);
        static char block[65536];
        while (write(p[1], block, sizeof block) > 0) {}
    }
    if (count == 20000) breach("20,000 pipes and no limit");
}

CASE(use_up_inotify, "takes all inotify instances and watches", "contained", "the limit is per user of the host") {
    char path[64];
    int count = 0;
    while (count < 5000) {
        int fd = inotify_init1(0);
        if (fd < 0) break;
        count++;
        for (int k = 0; k < 10; k++) {
            snprintf(path, sizeof path, "/tmp/w%d", k);
            mkdir(path, 0777);
            inotify_add_watch(fd, path, IN_ALL_EVENTS);
        }
    }
    if (count == 5000) breach("5,000 inotify instances");
}

CASE(use_up_signals, "queues signals to itself without end", "contained", "the limit is per user of the host") {
    sigset_t all;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, NULL);
    union sigval value = {0};
    long count = 0;
    while (count < 1000000 && !sigqueue(getpid(), SIGRTMIN, value)) count++;
    if (count == 1000000) breach("a million pending signals");
}

CASE(use_up_timers, "makes timers without end", "contained", "each takes a queued signal") {
    long count = 0;
    timer_t timer;
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN};
    while (count < 1000000 && !timer_create(CLOCK_MONOTONIC, &event, &timer)) count++;
    if (count == 1000000) breach("a million timers");
}

CASE(use_up_locks, "takes locks without end, and leaves them", "contained", "locks are kernel memory") {
    int fd = open("/tmp/locked", O_CREAT | O_RDWR, 0666);
    if (fd < 0) broken("open");
    flock(fd, LOCK_EX);
    struct flock lock = {.l_type = F_WRLCK, .l_len = 1};
    for (lock.l_start = 0; lock.l_start < 10000; lock.l_start += 2)
        if (fcntl(fd, F_SETLK, &lock)) break;
    lingering_child();
}

CASE(use_up_descriptors, "opens files until it gets no more", "contained", "the host's file table is everybody's") {
    long count = 0;
    while (count < 2000000 && open("/dev/null", O_RDONLY) >= 0) count++;
    if (count == 2000000) breach("two million descriptors");
}

CASE(use_up_epoll, "makes epoll and event descriptors without end", "contained", "watches are counted per user of the host") {
    int loop = epoll_create1(0);
    for (int i = 0; i < 200000; i++) {
        int fd = eventfd(0, 0);
        if (fd < 0) return;
        struct epoll_event e = {.events = EPOLLIN};
        if (epoll_ctl(loop, EPOLL_CTL_ADD, fd, &e)) return;
    }
    breach("200,000 watched descriptors");
}

CASE(lock_memory, "locks memory", "contained", "locked memory cannot be reclaimed") {
    size_t size = 256 << 20;
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p != MAP_FAILED && !mlock(p, size)) breach("256 MiB locked");
}

CASE(descriptors_in_flight, "hides descriptors in sockets' queues", "contained", "they count for no process, and only garbage collection finds them") {
    int pair[2];
    for (int i = 0; i < 2000; i++) {
        if (socketpair(AF_UNIX, SOCK_DGRAM, 0, pair)) return;
        union { char space[CMSG_SPACE(2 * sizeof(int))]; struct cmsghdr align; } control = {0};
        char byte = 0;
        struct iovec part = {&byte, 1};
        struct msghdr m = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
        struct cmsghdr *c = CMSG_FIRSTHDR(&m);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof pair);
        memcpy(CMSG_DATA(c), pair, sizeof pair);
        if (sendmsg(pair[0], &m, MSG_DONTWAIT) < 0) return;
        close(pair[0]);
        close(pair[1]);
    }
}

CASE(core_dump, "raises its core limit and crashes", "any", "a dump would fill a disk, or run a program on the host") {
    struct { unsigned long now, most; } unlimited = {~0ul, ~0ul};
    syscall(SYS_setrlimit, 4 /* RLIMIT_CORE */, &unlimited);
    abort();
}

CASE(terminals, "takes pseudo-terminals", "contained", "they are counted for the whole machine, and their buffers for nobody") {
    const char *doors[] = {"/dev/ptmx", "/dev/pts/ptmx"};
    for (int i = 0; i < 2; i++)
        if (open(doors[i], O_RDWR | O_NOCTTY) >= 0) breach("%s", doors[i]);
    if (!mknod("/tmp/ptmx", S_IFCHR | 0666, 5 << 8 | 2) && open("/tmp/ptmx", O_RDWR | O_NOCTTY) >= 0) breach("one made here");
}

// A socket on the loopback, and its address.
static int on_loopback(int type, struct sockaddr_in *address) {
    socklen_t length = sizeof *address;
    *address = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = address->sin_port};
    int s = socket(AF_INET, type | SOCK_NONBLOCK, 0);
    if (s < 0 || bind(s, (struct sockaddr *)address, length)) broken("bind");
    getsockname(s, (struct sockaddr *)address, &length);
    return s;
}

// What the buffers of a protocol's sockets take, in MiB: the machine's sum, for no other count is to be seen.
static long socket_mib(const char *protocol) {
    char line[200];
    long pages = -1;
    FILE *table = fopen("/proc/net/sockstat", "re");
    while (table && fgets(line, sizeof line, table))
        if (!strncmp(line, protocol, strlen(protocol)) && strstr(line, " mem ")) pages = atol(strstr(line, " mem ") + 5);
    if (!table || pages < 0) broken("sockstat");
    fclose(table);
    return pages * sysconf(_SC_PAGESIZE) >> 20;
}

static const int large = 1 << 28;
enum { SLOT_MIB = 96 };

CASE(fill_tcp_sockets, "leaves as much as it can in TCP connections with itself", "any", "with cgroup version 1 their buffers are charged to nobody") {
    static char block[1 << 20];
    struct sockaddr_in address = {0};
    long before = socket_mib("TCP:");
    int listener = on_loopback(SOCK_STREAM, &address);
    listen(listener, 100);
    for (int i = 0; i < 100; i++) {
        int c = socket(AF_INET, SOCK_STREAM, 0);
        setsockopt(c, SOL_SOCKET, SO_SNDBUF, &large, sizeof large);
        if (c < 0 || connect(c, (struct sockaddr *)&address, sizeof address)) break;
        int s = accept(listener, NULL, NULL);
        setsockopt(s, SOL_SOCKET, SO_RCVBUF, &large, sizeof large);
        fcntl(c, F_SETFL, O_NONBLOCK);
        for (int k = 0; k < 40 && socket_mib("TCP:") - before < 2 * SLOT_MIB; k++)
            if (write(c, block, sizeof block) <= 0) usleep(500);
    }
    if (socket_mib("TCP:") - before > SLOT_MIB) breach("%ld MiB in a slot of %d", socket_mib("TCP:") - before, SLOT_MIB);
}

CASE(fill_udp_sockets, "leaves as much as it can in UDP sockets of its own", "any", "as with TCP") {
    static char block[60000];
    long before = socket_mib("UDP:");
    for (int i = 0; i < 1000 && socket_mib("UDP:") - before < 2 * SLOT_MIB; i++) {
        struct sockaddr_in address = {0};
        int s = on_loopback(SOCK_DGRAM, &address);
        setsockopt(s, SOL_SOCKET, SO_RCVBUF, &large, sizeof large);
        for (int k = 0; k < 20; k++) sendto(s, block, sizeof block, 0, (struct sockaddr *)&address, sizeof address);
    }
    if (socket_mib("UDP:") - before > SLOT_MIB) breach("%ld MiB in a slot of %d", socket_mib("UDP:") - before, SLOT_MIB);
}

// What waits unread in the slot's netlink sockets, in KiB.
static long netlink_kib(void) {
    char line[200];
    long sum = 0, bytes;
    FILE *table = fopen("/proc/net/netlink", "re");
    if (!table) broken("/proc/net/netlink");
    while (fgets(line, sizeof line, table))
        if (sscanf(line, "%*s %*s %*s %*s %ld", &bytes) == 1) sum += bytes;
    fclose(table);
    return sum >> 10;
}

// Ask for a list of the network's interfaces. The kernel answers at once, whether or not anybody reads it.
static bool ask_for_interfaces(int s) {
    struct { struct nlmsghdr head; struct rtgenmsg family; } ask = {
        {.nlmsg_len = sizeof ask, .nlmsg_type = RTM_GETLINK, .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP}, {AF_UNSPEC}};
    return send(s, &ask, sizeof ask, MSG_DONTWAIT) == sizeof ask;
}

// Take netlink sockets until there are no more, and leave in each as much as it holds.
static long fill_netlink(long most) {
    static char block[65536];
    long count = 0;
    for (int s; count < most && (s = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE)) >= 0; count++) {
        setsockopt(s, SOL_SOCKET, SO_RCVBUF, &large, sizeof large);
        setsockopt(s, SOL_SOCKET, SO_RCVBUFFORCE, &large, sizeof large);
        // The kernel answers in blocks as large as it has seen us take.
        ask_for_interfaces(s);
        while (recv(s, block, sizeof block, MSG_DONTWAIT) > 0) {}
        for (int k = 0; k < 2000; k++) ask_for_interfaces(s);
    }
    return count;
}

CASE(fill_netlink_sockets, "leaves as much as it can in netlink sockets, from many processes at once", "contained", "what waits in them is charged to nobody") {
    int told[2];
    if (pipe(told)) broken("pipe");
    for (int i = 0; i < 32; i++)
        if (fork() == 0) {
            long count = fill_netlink(1000);
            if (write(told[1], &count, sizeof count) != sizeof count) _exit(1);
            for (;;) pause();
        }
    long sum = 0, count;
    for (int i = 0; i < 32 && read(told[0], &count, sizeof count) == sizeof count; i++) sum += count;
    if (sum < 4) broken("%ld netlink sockets", sum);
    if (netlink_kib() > 16 << 10) breach("%ld sockets hold %ld KiB", sum, netlink_kib());
    if (netlink_kib() < 256) broken("%ld sockets hold %ld KiB", sum, netlink_kib());
}

CASE(fill_netlink_again, "leaves much in netlink sockets and closes them, again and again", "contained", "the kernel frees them a moment later") {
    for (int i = 0; i < 2000; i++) {
        int s = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
        if (s < 0) breach("socket %d: %s", i, strerror(errno));
        ask_for_interfaces(s);
        close(s);
    }
}

CASE(leave_ports_in_use, "closes connections so that their ports stay taken", "contained", "TIME_WAIT belongs to the network, not to a process") {
    struct sockaddr_in address = {.sin_port = htons(5000)};
    int listener = on_loopback(SOCK_STREAM, &address);
    listen(listener, 100);
    for (int i = 0; i < 500; i++) {
        char byte;
        int c = socket(AF_INET, SOCK_STREAM, 0);
        if (c < 0 || connect(c, (struct sockaddr *)&address, sizeof address)) breach("port 5000: %s", strerror(errno));
        close(accept(listener, NULL, NULL));
        if (read(c, &byte, 1) != 0) broken("read");
        if (i < 499) close(c);
    }
}
