"""Which system calls a program may not make: a filter for seccomp, in the kernel's own byte code.

Refused are calls by which a process reaches others, starts more of them, leaves its limits or the network's absence,
or leaves something behind; none of them computes anything. They fail with EPERM.
"""

import os
import struct

NAMES = {
    "x86_64": (0xC000003E, {
        "clone": 56, "kill": 62, "tgkill": 234, "prlimit64": 302, "fork": 57, "vfork": 58, "execve": 59,
        "execveat": 322, "tkill": 200, "rt_sigqueueinfo": 129, "rt_tgsigqueueinfo": 297, "ptrace": 101,
        "process_vm_readv": 310, "process_vm_writev": 311, "kcmp": 312, "unshare": 272, "setns": 308, "mount": 165,
        "umount2": 166, "pivot_root": 155, "chroot": 161, "bpf": 321, "perf_event_open": 298, "userfaultfd": 323,
        "add_key": 248, "request_key": 249, "keyctl": 250, "shmget": 29, "semget": 64, "msgget": 68, "mq_open": 240,
        "socket": 41, "setpriority": 141, "sched_setscheduler": 144, "sched_setparam": 142, "sched_setaffinity": 203,
        "sched_setattr": 314, "ioprio_set": 251, "migrate_pages": 256, "move_pages": 279, "memfd_create": 319,
        "inotify_init": 253, "inotify_init1": 294, "fanotify_init": 300, "chmod": 90, "fchmod": 91, "fchmodat": 268,
        "chown": 92, "fchown": 93, "lchown": 94, "fchownat": 260, "utime": 132, "utimes": 235, "futimesat": 261,
        "utimensat": 280, "setxattr": 188, "lsetxattr": 189, "fsetxattr": 190, "removexattr": 197,
        "lremovexattr": 198, "fremovexattr": 199,
    }),
    "aarch64": (0xC00000B7, {
        "clone": 220, "kill": 129, "tgkill": 131, "prlimit64": 261, "execve": 221, "execveat": 281, "tkill": 130,
        "rt_sigqueueinfo": 138, "rt_tgsigqueueinfo": 240, "ptrace": 117, "process_vm_readv": 270,
        "process_vm_writev": 271, "kcmp": 272, "unshare": 97, "setns": 268, "mount": 40, "umount2": 39,
        "pivot_root": 41, "chroot": 51, "bpf": 280, "perf_event_open": 241, "userfaultfd": 282, "add_key": 217,
        "request_key": 218, "keyctl": 219, "shmget": 194, "semget": 190, "msgget": 186, "mq_open": 180, "socket": 198,
        "setpriority": 140, "sched_setscheduler": 119, "sched_setparam": 118, "sched_setaffinity": 122,
        "sched_setattr": 274, "ioprio_set": 30, "migrate_pages": 238, "move_pages": 239, "memfd_create": 279,
        "inotify_init1": 26, "fanotify_init": 262, "fchmod": 52, "fchmodat": 53, "fchown": 55, "fchownat": 54,
        "utimensat": 88, "setxattr": 5, "lsetxattr": 6, "fsetxattr": 7, "removexattr": 14, "lremovexattr": 15,
        "fremovexattr": 16,
    }),
}  # fmt: skip
"""By architecture: how the kernel names it, and the numbers of calls; the first four are judged by their arguments."""
EVERYWHERE = (
    424, 425, 426, 427, 428, 429, 430, 431, 432, 433, 434, 438, 440, 442, 447, 452,
)  # fmt: skip
"""Of calls since Linux 5.1: pidfd, io_uring, mounts, memfd_secret, fchmodat2."""
CLONE3, UNKNOWN, REFUSED = 435, 0x50000 | 38, 0x50000 | 1
THREAD = 2**16
ALLOW, LOAD, EQUALS, AT_LEAST, HAS, RETURN = 0x7FFF0000, 0x20, 0x15, 0x35, 0x45, 0x06
NUMBER, ARCHITECTURE, FIRST = 0, 4, 16
ANYBODY = 0x7E57AB1E
"""Stands where the number of the process will."""


def known() -> bool:
    """Whether the calls of this machine have numbers here."""
    return os.uname().machine in NAMES


def belonging_to(pid: int, code: bytes) -> bytes:
    """The filter ``code`` for the process of this number, which may signal itself."""
    return code.replace(struct.pack("=I", ANYBODY), struct.pack("=I", pid))


def program() -> bytes:
    """The filter, for anybody: a list of tests, of which the first that holds decides."""
    machine, numbers = NAMES[os.uname().machine]
    clone, *own = (numbers[name] for name in ("clone", "kill", "tgkill", "prlimit64"))
    refused = [number for number in numbers.values() if number not in (clone, *own)] + list(EVERYWHERE)
    code = [_load(ARCHITECTURE), _if(EQUALS, machine, 1, 0), _then(REFUSED), _load(NUMBER)]
    code += [_if(AT_LEAST, 2**30, len(refused) + 1, 0)]  # calls of another kind of process
    code += [_if(EQUALS, number, len(refused) - place, 0) for place, number in enumerate(refused)]
    code += [_if(EQUALS, CLONE3, 1, 2), _then(REFUSED), _then(UNKNOWN)]  # the C library then takes clone, which tells
    code += [_if(EQUALS, clone, 0, 4), _load(FIRST), _if(HAS, THREAD, 1, 0), _then(REFUSED), _then(ALLOW)]
    for number in own:
        code += [_if(EQUALS, number, 0, 5), _load(FIRST), _if(EQUALS, ANYBODY, 2, 0), _if(EQUALS, 0, 1, 0)]
        code += [_then(REFUSED), _then(ALLOW)]
    return b"".join([*code, _then(ALLOW)])


def _load(offset: int) -> bytes:
    return struct.pack("=HBBI", LOAD, 0, 0, offset)


def _if(test: int, value: int, then: int, other: int) -> bytes:
    """``then`` and ``other``: how many instructions to skip."""
    return struct.pack("=HBBI", test, then, other, value)


def _then(verdict: int) -> bytes:
    return struct.pack("=HBBI", RETURN, 0, 0, verdict)
