// The ways out: inherited descriptors, the executor's socket, the network, the host's files.
#include "hostile.h"
#include <arpa/inet.h>
#include <linux/netlink.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>

#define SOCKET "/gc/run/executor.sock"

CASE(descriptor_scan, "looks for inherited descriptors, 3 to 1023", "contained", "a leaked descriptor is a door into the guest") {
    for (int fd = 3; fd < 1024; fd++)
        if (fcntl(fd, F_GETFD) >= 0) breach("descriptor %d is open", fd);
}

CASE(environment, "looks for the platform's secrets in its environment", "contained", "the token opens the executor's door") {
    extern char **environ;
    for (char **e = environ; *e; e++)
        if (!strncmp(*e, "GENERAL_COMPUTE", 15) || !strncmp(*e, "NOMAD_", 6) || strstr(*e, "TOKEN")) breach("%s", *e);
}

static int knock(void) {
    struct sockaddr_un a = {.sun_family = AF_UNIX, .sun_path = SOCKET};
    int s = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (s >= 0 && connect(s, (struct sockaddr *)&a, sizeof a)) {
        close(s);
        return -1;
    }
    return s;
}

// True when the executor said anything within a second or so.
static bool answered(int s) {
    struct timeval limit = {.tv_sec = 1};
    char buffer[4096];
    setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    return recv(s, buffer, sizeof buffer, 0) > 0;
}

CASE(pretend_to_be_the_guest, "says HELLO to the executor with made-up tokens", "contained", "the guest gets the next input") {
    for (int i = 0; i < 20; i++) {
        unsigned char hello[76] = {16, 0, 0, 0, 0, 0, 0, 0, 1};
        memset(hello + 12, '0' + i % 10, 64);
        int s = knock();
        if (s < 0) continue;
        if (send(s, hello, sizeof hello, MSG_NOSIGNAL) > 0 && i == 0 && answered(s)) breach("the executor took us for the guest");
        close(s);
    }
}

CASE(flood_executor, "holds a thousand connections to the executor's socket", "contained", "a full backlog would keep the guest out") {
    int held = 0;
    for (int i = 0; i < 1000; i++) {
        int s = knock();
        if (s >= 0) held++;
        fcntl(s, F_SETFL, O_NONBLOCK);
    }
    (void)held;
    usleep(200000);
}

CASE(forged_messages, "sends the executor messages of every type and shape", "contained", "nothing of ours may be parsed but by length-checked code") {
    static unsigned char m[65536];
    srand(7);
    for (int i = 0; i < 300; i++) {
        int s = knock();
        if (s < 0) continue;
        for (size_t k = 0; k < sizeof m; k++) m[k] = (unsigned char)rand();
        m[0] = (unsigned char)(i % 32);
        send(s, m, (size_t)rand() % sizeof m, MSG_NOSIGNAL | MSG_DONTWAIT);
        close(s);
    }
}

CASE(pass_descriptors_to_executor, "sends the executor its own stdout", "any", "a pipe that somebody holds open never ends") {
    union { char space[CMSG_SPACE(sizeof(int))]; struct cmsghdr align; } control = {0};
    char byte = 16;
    struct iovec part = {&byte, 1};
    struct msghdr m = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    int out = 1;
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof out);
    memcpy(CMSG_DATA(c), &out, sizeof out);
    int s = knock();
    if (s >= 0) sendmsg(s, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
    static char block[200000];
    if (write(1, block, sizeof block) < 0) _exit(0);
}

CASE(replace_executor, "puts a socket of its own in the executor's place", "contained", "the guest would connect to us after a restart") {
    if (!unlink(SOCKET)) breach("unlinked");
    if (!rename(SOCKET, "/gc/run/old")) breach("renamed");
    struct sockaddr_un a = {.sun_family = AF_UNIX, .sun_path = "/gc/run/mine.sock"};
    int s = socket(AF_UNIX, SOCK_SEQPACKET, 0);
    if (s >= 0 && !bind(s, (struct sockaddr *)&a, sizeof a)) breach("bound beside it");
}

CASE(network, "connects to the host, to metadata services, to anywhere", "contained", "slots have no network at all") {
    const char *addresses[] = {"127.0.0.1", "169.254.169.254", "172.17.0.1", "10.0.0.1", "8.8.8.8"};
    int ports[] = {22, 80, 8080, 8101, 2375};
    for (size_t i = 0; i < sizeof addresses / sizeof *addresses; i++)
        for (size_t k = 0; k < sizeof ports / sizeof *ports; k++) {
            struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)ports[k])};
            inet_pton(AF_INET, addresses[i], &a.sin_addr);
            int s = socket(AF_INET, SOCK_STREAM, 0);
            if (s >= 0 && !connect(s, (struct sockaddr *)&a, sizeof a)) breach("connected to %s:%d", addresses[i], ports[k]);
            close(s);
        }
}

CASE(odd_sockets, "opens raw, packet, vsock, crypto and netlink sockets", "contained", "odd families are where kernels break") {
    struct { int family, type, protocol; const char *name; } odd[] = {
        {AF_PACKET, SOCK_RAW, 0, "packet"}, {AF_INET, SOCK_RAW, IPPROTO_RAW, "raw"}, {40, SOCK_STREAM, 0, "vsock"},
        {38, SOCK_SEQPACKET, 0, "alg"},     {29, SOCK_RAW, 1, "can"},               {31, SOCK_RAW, 1, "bluetooth"},
        {44, SOCK_RAW, 0, "xdp"},           {AF_NETLINK, SOCK_RAW, 12, "netfilter"}, {30, SOCK_SEQPACKET, 0, "tipc"},
        {21, SOCK_DGRAM, 0, "rds"},         {45, SOCK_STREAM, 0, "mctp"},            {43, SOCK_STREAM, 0, "smc"},
    };
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++)
        if (socket(odd[i].family, odd[i].type, odd[i].protocol) >= 0) breach("a socket of family %s", odd[i].name);
}

CASE(abstract_sockets, "connects to every abstract socket it can see or guess", "contained", "abstract names ignore file systems") {
    const char *names[] = {"/containerd-shim/", "docker", "/org/kernel/udev/udevd", "systemd"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        struct sockaddr_un a = {.sun_family = AF_UNIX};
        strcpy(a.sun_path + 1, names[i]);
        int s = socket(AF_UNIX, SOCK_STREAM, 0);
        if (s >= 0 && !connect(s, (struct sockaddr *)&a, (socklen_t)(3 + strlen(names[i])))) breach("connected to @%s", names[i]);
        close(s);
    }
}

CASE(engine_socket, "looks for the engine's and Nomad's sockets", "contained", "who has the engine has the host") {
    const char *paths[] = {"/var/run/docker.sock", "/run/docker.sock", "/run/containerd/containerd.sock", "/secrets/api.sock", "/run/systemd/private"};
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++)
        if (!access(paths[i], F_OK)) breach("%s exists", paths[i]);
}

CASE(host_devices, "opens the host's devices", "contained", "/dev/mem is the end of isolation") {
    const char *paths[] = {"/dev/mem", "/dev/kmem", "/dev/kmsg", "/dev/sda", "/dev/vda", "/dev/kvm", "/dev/fuse", "/dev/loop-control", "/dev/tty0", "/dev/net/tun", "/proc/kcore", "/proc/kallsyms_hidden"};
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++)
        if (open(paths[i], O_RDONLY | O_NONBLOCK) >= 0) {
            char byte;
            int fd = open(paths[i], O_RDONLY | O_NONBLOCK);
            if (read(fd, &byte, 1) > 0) breach("%s can be read", paths[i]);
        }
}

CASE(make_devices, "makes device nodes of its own", "contained", "a node for the host's disk is the host's disk") {
    if (!mknod("/tmp/disk", S_IFBLK | 0666, (254 << 8)) && open("/tmp/disk", O_RDONLY) >= 0) breach("a block device");
    if (!mknod("/tmp/mem", S_IFCHR | 0666, (1 << 8) | 1) && open("/tmp/mem", O_RDONLY) >= 0) breach("a character device");
}

CASE(proc_writes, "writes what /proc offers", "contained", "sysrq reboots, core_pattern runs programs on the host") {
    const char *paths[] = {"/proc/sysrq-trigger", "/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sys/vm/overcommit_memory", "/proc/sys/kernel/pid_max", "/proc/sys/fs/pipe-user-pages-soft", "/proc/irq/default_smp_affinity", "/proc/bus", "/proc/acpi", "/proc/timer_list", "/proc/scsi/scsi"};
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++)
        if (can_write(paths[i])) breach("%s can be written", paths[i]);
}

CASE(sys_writes, "writes what /sys offers, cgroups above all", "contained", "release_agent runs programs on the host") {
    const char *paths[] = {"/sys/fs/cgroup/cgroup.procs", "/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/cpu.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/release_agent", "/sys/fs/cgroup/memory/cgroup.procs", "/sys/fs/cgroup/pids/pids.max", "/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "/sys/kernel/uevent_helper", "/sys/power/state", "/sys/kernel/mm/transparent_hugepage/enabled"};
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++)
        if (can_write(paths[i])) breach("%s can be written", paths[i]);
    if (!mkdir("/sys/fs/cgroup/mine", 0755) || !mkdir("/sys/fs/cgroup/memory/mine", 0755)) breach("a cgroup of its own");
}

CASE(root_writes, "writes everywhere it must not", "contained", "the root file system is shared by nobody, but it is disk") {
    const char *paths[] = {"/x", "/etc/x", "/bin/x", "/usr/x", "/var/x", "/gc/x", "/gc/run/x", "/dev/x", "/proc/x", "/sys/x", "/etc/hosts", "/etc/resolv.conf", "/etc/hostname"};
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++)
        if (open(paths[i], O_CREAT | O_WRONLY, 0666) >= 0) breach("%s can be written", paths[i]);
}
