"""The system calls that a slot may make: a table, and from it the profile that the engine takes.

    python -m scheduler.launchers.seccomp > seccomp.json      for `docker run --security-opt seccomp=seccomp.json`

An allow-list, on x86-64 and arm64, tighter than Docker's own. Every call of Linux up to 6.1 is in exactly one
of the groups (a test says so); what is newer answers ENOSYS, as an older kernel would, so that programs fall back.

Only arguments in registers can be looked at. The kernel takes many of them as 32 bits while a filter sees 64, so
each comparison here masks the upper half: else a set upper bit would lead past it.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Iterable
from typing import Any, Final

Rule = dict[str, Any]

ALLOWED: Final = {
    "processes, threads and their waiting": """
        fork vfork execve execveat exit exit_group wait4 waitid kill tkill tgkill rt_sigqueueinfo rt_tgsigqueueinfo
        pidfd_open pidfd_send_signal getpid getppid gettid getpgid getpgrp setpgid getsid setsid set_tid_address
        set_robust_list get_robust_list futex futex_waitv futex_wake futex_wait futex_requeue rseq membarrier
        restart_syscall prctl arch_prctl uname sysinfo""",
    "scheduling: without capabilities only downwards, and the guest shields itself": """
        sched_yield sched_getparam sched_setparam sched_getscheduler sched_setscheduler sched_getattr sched_setattr
        sched_get_priority_max sched_get_priority_min sched_rr_get_interval sched_getaffinity sched_setaffinity
        getpriority setpriority ioprio_get ioprio_set getcpu getrlimit setrlimit prlimit64 getrusage times""",
    "signals": """
        rt_sigaction rt_sigprocmask rt_sigpending rt_sigtimedwait rt_sigsuspend rt_sigreturn sigaltstack pause signalfd
        signalfd4""",
    "memory": """
        brk mmap munmap mremap mprotect madvise mincore msync mlock mlock2 munlock mlockall munlockall memfd_create
        pkey_alloc pkey_free pkey_mprotect map_shadow_stack mseal""",
    "files": """
        open openat openat2 creat close close_range read write readv writev pread64 pwrite64 preadv pwritev preadv2
        pwritev2 lseek fallocate ftruncate truncate fadvise64 readahead sendfile copy_file_range splice tee fcntl flock
        dup dup2 dup3 pipe pipe2 stat fstat lstat newfstatat statx access faccessat faccessat2 statfs fstatfs getdents
        getdents64 getcwd chdir fchdir mkdir mkdirat rmdir link linkat unlink unlinkat rename renameat renameat2 symlink
        symlinkat readlink readlinkat mknod mknodat chmod fchmod fchmodat fchmodat2 chown fchown lchown fchownat umask
        utime utimes futimesat utimensat setxattr lsetxattr fsetxattr setxattrat getxattr lgetxattr fgetxattr getxattrat
        listxattr llistxattr flistxattr listxattrat removexattr lremovexattr fremovexattr removexattrat""",
    "waiting for several things": """
        select pselect6 poll ppoll epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2 eventfd
        eventfd2""",
    "time": """
        time gettimeofday clock_gettime clock_getres clock_nanosleep nanosleep alarm getitimer setitimer timer_create
        timer_settime timer_gettime timer_getoverrun timer_delete timerfd_create timerfd_settime timerfd_gettime""",
    "sockets once they are made: see socket_rules() for which can be": """
        bind listen accept accept4 connect shutdown getsockname getpeername getsockopt sendto recvfrom sendmsg recvmsg
        sendmmsg recvmmsg""",
    "users and rights: without capabilities they can only be given up": """
        getuid geteuid getgid getegid getresuid getresgid getgroups setuid setgid setreuid setregid setresuid setresgid
        setgroups setfsuid setfsgid capget capset""",
    "a program's own sandbox": "seccomp landlock_create_ruleset landlock_add_rule landlock_restrict_self",
    "chance": "getrandom",
    "made by the kernel's own trampoline, where an operator observes the machine": "uretprobe",
}

NOT_PERMITTED: Final = {
    "other processes": "ptrace process_vm_readv process_vm_writev process_madvise process_mrelease pidfd_getfd",
    "namespaces, mounts, roots": """
        setns chroot pivot_root mount umount2 mount_setattr move_mount open_tree open_tree_attr fsopen fsconfig fsmount
        fspick statmount listmount""",
    "files by handle: leads out of a mount": "name_to_handle_at open_by_handle_at",
    "the machine": """
        reboot kexec_load kexec_file_load init_module finit_module delete_module swapon swapoff acct quotactl
        quotactl_fd sethostname setdomainname syslog vhangup iopl ioperm""",
    "the machine's clock": "settimeofday clock_settime clock_adjtime adjtimex",
    "watching the machine": "bpf perf_event_open fanotify_init fanotify_mark",
}
"""System calls refused with EPERM, so that a program that needs them reports it."""

NOT_THERE: Final = {
    "clone3: its flags lie in memory, where no filter can look; every libc falls back to clone": "clone3",
    "io_uring: a second way to make system calls, past this table": "io_uring_setup io_uring_enter io_uring_register",
    "System V IPC and POSIX queues: they outlive the task, and the guest could not clean them": """
        shmget shmat shmdt shmctl semget semop semtimedop semctl msgget msgsnd msgrcv msgctl mq_open mq_unlink
        mq_timedsend mq_timedreceive mq_notify mq_getsetattr""",
    "keyrings outlive the task, and belong to a user of the host": "add_key request_key keyctl",
    "counted per user of the host (128 instances for root), so that one slot could use up all slots'": """
        inotify_init inotify_init1 inotify_add_watch inotify_rm_watch""",
    "counted for the whole machine (fs.aio-max-nr); libaio only, POSIX AIO uses threads": """
        io_setup io_destroy io_submit io_cancel io_getevents io_pgetevents""",
    "memory of others, or in ways that ordinary programs don't ask for": """
        userfaultfd memfd_secret remap_file_pages vmsplice kcmp lookup_dcookie cachestat""",
    "placing memory on NUMA nodes is the scheduler's business; libnuma then sees one node": """
        mbind get_mempolicy set_mempolicy set_mempolicy_home_node migrate_pages move_pages""",
    "flags of files that would stay when a place is emptied": "file_getattr file_setattr",
    "32-bit and 16-bit segments": "modify_ldt set_thread_area get_thread_area",
    "long gone, or never were": """
        uselib ustat sysfs _sysctl create_module get_kernel_syms query_module nfsservctl getpmsg putpmsg afs_syscall
        tuxcall security vserver epoll_ctl_old epoll_wait_old""",
}
"""Answered with ENOSYS, as by a kernel that is built without them: programs that can do without do."""

DONE_ALREADY: Final = {
    "all that a slot can write is memory, so there is nothing to sync; but on a file or mount that comes from the host "
    "these would make the host's disk flush, as often as one likes": """
        sync syncfs fsync fdatasync sync_file_range""",
}
"""Answered with success, and never reach the kernel."""

BY_ARGUMENT: Final = "clone unshare personality ioctl socket socketpair setsockopt"
"""Allowed for some arguments: the functions below say which."""

_LOW_32: Final = 0xFFFF_FFFF
_AF_UNIX, _AF_INET, _AF_INET6, _AF_NETLINK = 1, 2, 10, 16
_SOCK_STREAM, _SOCK_DGRAM, _SOCK_RAW, _SOCK_SEQPACKET = 1, 2, 3, 5
_SOCK_TYPE_MASK: Final = 0xF
"""Beside the type, the argument holds SOCK_NONBLOCK and SOCK_CLOEXEC."""
_LAST_FAMILY: Final = 45
"""AF_MCTP, the newest one."""

_NEW_NAMESPACES: Final = 0x7E02_0000
"""CLONE_NEW{NS,CGROUP,UTS,IPC,USER,PID,NET}."""
_NEW_TIME: Final = 0x80
"""CLONE_NEWTIME: among clone's flags this bit belongs to the signal."""

_IOCTLS: Final = {
    "FIONREAD": 0x541B,
    "FIONBIO": 0x5421,
    "FIONCLEX": 0x5450,
    "FIOCLEX": 0x5451,
    "FIOASYNC": 0x5452,
    "TCGETS": 0x5401,
    "TCSETS": 0x5402,
    "TCSETSW": 0x5403,
    "TCSETSF": 0x5404,
    "TCGETA": 0x5405,
    "TCSBRK": 0x5409,
    "TCXONC": 0x540A,
    "TCFLSH": 0x540B,
    "TIOCSCTTY": 0x540E,
    "TIOCGPGRP": 0x540F,
    "TIOCSPGRP": 0x5410,
    "TIOCOUTQ": 0x5411,
    "TIOCGWINSZ": 0x5413,
    "TIOCSWINSZ": 0x5414,
    "TIOCNOTTY": 0x5422,
    "TCSBRKP": 0x5425,
    "TIOCGSID": 0x5429,
    "TCGETS2": 0x802C_542A,
    "TCSETS2": 0x402C_542B,
    "TCSETSW2": 0x402C_542C,
    "TCSETSF2": 0x402C_542D,
    "TIOCGPTN": 0x8004_5430,
    "TIOCSPTLCK": 0x4004_5431,
    "TIOCGPTPEER": 0x5441,
    "SIOCATMARK": 0x8905,
    "SIOCGIFNAME": 0x8910,
    "SIOCGIFCONF": 0x8912,
    "SIOCGIFFLAGS": 0x8913,
    "SIOCGIFADDR": 0x8915,
    "SIOCGIFDSTADDR": 0x8917,
    "SIOCGIFBRDADDR": 0x8919,
    "SIOCGIFNETMASK": 0x891B,
    "SIOCGIFMTU": 0x8921,
    "SIOCGIFHWADDR": 0x8927,
    "SIOCGIFINDEX": 0x8933,
    "RNDGETENTCNT": 0x8004_5200,
    # The guest's own: it answers requests for netlink sockets with these.
    "SECCOMP_IOCTL_NOTIF_RECV": 0xC050_2100,
    "SECCOMP_IOCTL_NOTIF_SEND": 0xC018_2101,
    "SECCOMP_IOCTL_NOTIF_ADDFD": 0x4018_2103,
}
"""Requests on files, on a program's own terminals and on the loopback. Left out on purpose: TIOCSTI and
TIOCLINUX (typing for others), TIOCSETD (loads line disciplines into the kernel), FS_IOC_SETFLAGS (flags that would
stay on a place for the next task)."""

_SOL_TCP: Final = 6
_SOCKET_LEVELS: Final = (0, 1, 17, 41)
"""IP, SOCKET, UDP, IPV6: what is dangerous there needs capabilities."""
_TCP_OPTIONS: Final = (*range(1, 14), 18, 23, 24, 25, 30, 36)
"""From TCP_NODELAY on. Not among them: TCP_ULP (31), by which anybody could load a protocol into the kernel."""


def _is(index: int, value: int, mask: int = _LOW_32) -> dict[str, Any]:
    """A condition: these bits of argument `index` have this value."""
    return {"index": index, "value": mask, "valueTwo": value, "op": "SCMP_CMP_MASKED_EQ"}


def _allow(names: Iterable[str], *conditions: dict[str, Any], comment: str = "") -> Rule:
    """A rule that holds where all conditions do."""
    rule: Rule = {"names": [*names], "action": "SCMP_ACT_ALLOW"}
    if conditions:
        rule["args"] = [*conditions]
    if comment:
        rule["comment"] = comment
    return rule


def _answer(names: Iterable[str], number: int, *conditions: dict[str, Any], comment: str = "") -> Rule:
    return {**_allow(names, *conditions, comment=comment), "action": "SCMP_ACT_ERRNO", "errnoRet": number}


def namespace_rules() -> list[Rule]:
    """No new namespace of any kind; threads and processes as usual."""
    return [
        _allow(["clone"], _is(0, 0, _NEW_NAMESPACES)),
        _allow(["unshare"], _is(0, 0, _NEW_NAMESPACES | _NEW_TIME)),
    ]


def personality_rules() -> list[Rule]:
    """Asking for it, and setting the usual one: no 32-bit one, no fixed addresses."""
    return [_allow(["personality"], _is(0, value)) for value in (0, _LOW_32)]


def ioctl_rules() -> list[Rule]:
    return [_allow(["ioctl"], _is(1, number), comment=name) for name, number in _IOCTLS.items()]


def socket_rules() -> list[Rule]:
    """Unix sockets, TCP and UDP; of netlink only NETLINK_ROUTE, by which libc lists the network's interfaces.

    Every other protocol is code of the kernel that few have ever looked at, much of it loaded when first asked for.
    """
    rules = []
    for socket_type in (_SOCK_STREAM, _SOCK_DGRAM, _SOCK_SEQPACKET):
        rules.append(_allow(["socket"], _is(0, _AF_UNIX), _is(1, socket_type, _SOCK_TYPE_MASK)))
    for family in (_AF_INET, _AF_INET6):
        for socket_type, protocol in ((_SOCK_STREAM, 6), (_SOCK_DGRAM, 17)):
            for asked in (0, protocol):
                conditions = _is(0, family), _is(1, socket_type, _SOCK_TYPE_MASK), _is(2, asked)
                rules.append(_allow(["socket"], *conditions))
    for socket_type in (_SOCK_RAW, _SOCK_DGRAM):
        conditions = _is(0, _AF_NETLINK), _is(1, socket_type, _SOCK_TYPE_MASK), _is(2, 0)
        rules.append(_allow(["socket"], *conditions))
    for family in range(_LAST_FAMILY + 1):
        if family not in (_AF_UNIX, _AF_INET, _AF_INET6, _AF_NETLINK):
            rules.append(_answer(["socket"], errno.EAFNOSUPPORT, _is(0, family)))
    rules.append(_allow(["socketpair"], _is(0, _AF_UNIX)))
    return rules


def setsockopt_rules() -> list[Rule]:
    rules = [_allow(["setsockopt"], _is(1, level)) for level in _SOCKET_LEVELS]
    return rules + [_allow(["setsockopt"], _is(1, _SOL_TCP), _is(2, option)) for option in _TCP_OPTIONS]


def profile() -> dict[str, Any]:
    """The profile in Docker's format, for this machine's architecture and the other one alike.

    With no `subArchitectures` the filter knows the native calls only: a 32-bit or x32 call kills its thread.
    Names that an engine's libseccomp does not know yet are skipped by it, and stay forbidden.
    """
    groups = [_allow(calls.split(), comment=why) for why, calls in ALLOWED.items()]
    for group, number in ((NOT_PERMITTED, errno.EPERM), (NOT_THERE, errno.ENOSYS), (DONE_ALREADY, 0)):
        groups += [_answer(calls.split(), number, comment=why) for why, calls in group.items()]
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": errno.ENOSYS,
        "archMap": [
            {"architecture": name, "subArchitectures": []}
            for name in ("SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64")
        ],
        "syscalls": [
            *groups,
            *namespace_rules(),
            *personality_rules(),
            *ioctl_rules(),
            *socket_rules(),
            *setsockopt_rules(),
        ],
    }


def profile_json() -> str:
    """The profile as the engine takes it."""
    return json.dumps(profile(), separators=(",", ":"))


if __name__ == "__main__":
    print(json.dumps(profile(), indent=1))
