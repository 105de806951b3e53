#define _GNU_SOURCE
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "filter.h"
#include "netlink.h"
#include "self.h"

// Refuse a call that names process 1: in its first argument, or in its second if the call takes (which, who). Of the latter, refuse
// also a `which` that means all processes of a user.
static struct sock_filter *refuse(struct sock_filter *at, unsigned call, bool takes_which) {
    const unsigned x32_bit = 0x40000000, user = 2;
    const struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_STMT(BPF_ALU | BPF_AND | BPF_K, ~x32_bit),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 6),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[0])),
        BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, takes_which ? user : UINT32_MAX, 2, 0),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, takes_which ? offsetof(struct seccomp_data, args[1]) : offsetof(struct seccomp_data, args[0])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 1, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    memcpy(at, code, sizeof code);
    return at + sizeof code / sizeof *code;
}

// Answer a call for a netlink socket with `ask`, unless it carries the guest's secret. SO_RCVBUF is answered with success and does
// nothing, so that a socket's limit stays the machine's default.
static struct sock_filter *ask_for_netlink(struct sock_filter *at, unsigned socket_call, unsigned option_call, unsigned ask) {
    const unsigned x32_bit = 0x40000000;
    const struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_STMT(BPF_ALU | BPF_AND | BPF_K, ~x32_bit),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, socket_call, 0, 7),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[0])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AF_NETLINK, 0, 11),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[3])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)netlink_word, 0, 2),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[3]) + 4),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)(netlink_word >> 32), 7, 0),
        BPF_STMT(BPF_RET | BPF_K, ask),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, option_call, 0, 5),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[1])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SOL_SOCKET, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[2])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SO_RCVBUF, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    memcpy(at, code, sizeof code);
    return at + sizeof code / sizeof *code;
}

// The program is our user, so the kernel would let it lower our limits and our priority, which every later task inherits. This filter,
// which the program inherits, forbids that, and bounds netlink sockets. Other calls cost no more than before: the kernel remembers
// that they always pass. `flags` are seccomp's. Returns the descriptor by which the kernel asks us, 0 if it does not ask, below 0 if
// the filter cannot be installed.
static int filter(unsigned flags, unsigned netlink_answer) {
    enum { CALLS = 7, TAKE_WHICH = 5, CODE_EACH = 9, CODE_NETLINK = 17 };  // the calls from TAKE_WHICH on take (which, who)
    static const struct { unsigned arch, calls[CALLS], socket, setsockopt; } tables[] = {
#if defined(__x86_64__)
        {AUDIT_ARCH_X86_64, {302, 142, 144, 203, 314, 141, 251}, 41, 54},
        {AUDIT_ARCH_I386, {340, 154, 156, 241, 351, 97, 289}, 359, 366},
#elif defined(__aarch64__)
        {AUDIT_ARCH_AARCH64, {261, 118, 119, 122, 274, 140, 30}, 198, 208},
        {AUDIT_ARCH_ARM, {369, 154, 156, 241, 380, 97, 314}, 281, 294},
#endif
        // in this order: prlimit64, sched_setparam, sched_setscheduler, sched_setaffinity, sched_setattr, setpriority, ioprio_set
    };
    static struct sock_filter code[256];
    struct sock_filter *at = code;
    for (size_t i = 0; i < sizeof tables / sizeof *tables; i++) {
        *at++ = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch));
        *at++ = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, tables[i].arch, 0, CALLS * CODE_EACH + CODE_NETLINK);
        for (int j = 0; j < CALLS; j++) at = refuse(at, tables[i].calls[j], j >= TAKE_WHICH);
        at = ask_for_netlink(at, tables[i].socket, tables[i].setsockopt, netlink_answer);
    }
    *at++ = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    struct sock_fprog program = {(unsigned short)(at - code), code};
    return (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);
}

// The kernel can ask only from Linux 5.14 on, and only for one filter of a process. If it cannot, no program gets a netlink socket.
void guard(void) {
    // From Linux 5.19 on, signals can be kept from interrupting a thread whose question has been heard.
    const unsigned asking = SECCOMP_FILTER_FLAG_NEW_LISTENER, patient = asking | SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
    const bool counted = prepare_netlink();
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) unusable("no_new_privs", strerror(errno));
    if (counted && (netlink_asked = filter(patient, SECCOMP_RET_USER_NOTIF)) < 0) netlink_asked = filter(asking, SECCOMP_RET_USER_NOTIF);
    if (netlink_asked < 0 && filter(0, SECCOMP_RET_ERRNO | ENOBUFS)) unusable("seccomp", strerror(errno));
    measure_netlink();
}
