"""The system calls that a program may make: a filter for seccomp, in the kernel's byte code.

Calls that an interpreter needs to compute, to have threads and to use the files that it may open are allowed. All
others fail, unknown ones included: those that reach or start other processes, escape limits, use the network, or leave
something behind. Some calls are allowed by an argument.
"""

import os
import struct
from collections.abc import Iterable

from rrl.sandbox.inside import kernel

MACHINES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
"""The kernel's numbers of machines."""
_FREE = {
    "x86_64": """
        read 0 write 1 readv 19 writev 20 pread64 17 pwrite64 18 preadv 295 pwritev 296 preadv2 327 pwritev2 328 lseek 8
        sendfile 40 copy_file_range 326 open 2 openat 257 openat2 437 creat 85 close 3 close_range 436 dup 32 dup2 33
        dup3 292 pipe 22 pipe2 293 umask 95 stat 4 lstat 6 fstat 5 newfstatat 262 statx 332 statfs 137 fstatfs 138
        access 21 faccessat 269 faccessat2 439 readlink 89 readlinkat 267 getdents 78 getdents64 217 getxattr 191
        lgetxattr 192 fgetxattr 193 listxattr 194 llistxattr 195 flistxattr 196 truncate 76 ftruncate 77 fallocate 285
        fadvise64 221 fsync 74 fdatasync 75 flock 73 mkdir 83 mkdirat 258 rmdir 84 unlink 87 unlinkat 263 rename 82
        renameat 264 renameat2 316 link 86 linkat 265 symlink 88 symlinkat 266 mknod 133 mknodat 259 chdir 80 fchdir 81
        getcwd 79 mmap 9 munmap 11 mprotect 10 mremap 25 madvise 28 msync 26 brk 12 membarrier 324
        rt_sigaction 13 rt_sigprocmask 14 rt_sigreturn 15 rt_sigpending 127 rt_sigtimedwait 128 rt_sigsuspend 130
        sigaltstack 131 signalfd 282 signalfd4 289 pause 34 restart_syscall 219 select 23 pselect6 270 poll 7 ppoll 271
        epoll_create 213 epoll_create1 291 epoll_ctl 233 epoll_wait 232 epoll_pwait 281 epoll_pwait2 441 eventfd 284
        eventfd2 290 timerfd_create 283 timerfd_settime 286 timerfd_gettime 287 nanosleep 35 clock_nanosleep 230
        clock_gettime 228 clock_getres 229 gettimeofday 96 time 201 times 100 alarm 37 getitimer 36 setitimer 38
        timer_create 222 timer_settime 223 timer_gettime 224 timer_getoverrun 225 timer_delete 226 futex 202
        set_robust_list 273 set_tid_address 218 rseq 334 arch_prctl 158 sched_yield 24 sched_getaffinity 204
        sched_getparam 143 sched_getscheduler 145 sched_get_priority_max 146 sched_get_priority_min 147
        sched_rr_get_interval 148 getcpu 309 getpriority 140 getpid 39 gettid 186 getppid 110 getpgid 121 getpgrp 111
        getsid 124 getuid 102 geteuid 107 getgid 104 getegid 108 getresuid 118 getresgid 120 getgroups 115 getrlimit 97
        setrlimit 160 getrusage 98 sysinfo 99 uname 63 getrandom 318 capget 125 recvfrom 45 sendto 44 sendmsg 46
        recvmsg 47 shutdown 48 getsockname 51 getpeername 52 getsockopt 55 setsockopt 54 wait4 61 waitid 247 exit 60
        exit_group 231""",
    "aarch64": """
        read 63 write 64 readv 65 writev 66 pread64 67 pwrite64 68 preadv 69 pwritev 70 preadv2 286 pwritev2 287
        lseek 62 sendfile 71 copy_file_range 285 openat 56 openat2 437 close 57 close_range 436 dup 23 dup3 24
        pipe2 59 umask 166 fstat 80 newfstatat 79 statx 291 statfs 43 fstatfs 44 faccessat 48 faccessat2 439
        readlinkat 78 getdents64 61 getxattr 8 lgetxattr 9 fgetxattr 10 listxattr 11 llistxattr 12 flistxattr 13
        truncate 45 ftruncate 46 fallocate 47 fadvise64 223 fsync 82 fdatasync 83 flock 32 mkdirat 34 unlinkat 35
        renameat 38 renameat2 276 linkat 37 symlinkat 36 mknodat 33 chdir 49 fchdir 50 getcwd 17 mmap 222 munmap 215
        mprotect 226 mremap 216 madvise 233 msync 227 brk 214 membarrier 283 rt_sigaction 134 rt_sigprocmask 135
        rt_sigreturn 139 rt_sigpending 136 rt_sigtimedwait 137 rt_sigsuspend 133 sigaltstack 132 signalfd4 74
        restart_syscall 128 pselect6 72 ppoll 73 epoll_create1 20 epoll_ctl 21 epoll_pwait 22 epoll_pwait2 441
        eventfd2 19 timerfd_create 85 timerfd_settime 86 timerfd_gettime 87 nanosleep 101 clock_nanosleep 115
        clock_gettime 113 clock_getres 114 gettimeofday 169 times 153 getitimer 102 setitimer 103 timer_create 107
        timer_settime 110 timer_gettime 108 timer_getoverrun 109 timer_delete 111 futex 98 set_robust_list 99
        set_tid_address 96 rseq 293 sched_yield 124 sched_getaffinity 123 sched_getparam 121 sched_getscheduler 120
        sched_get_priority_max 125 sched_get_priority_min 126 sched_rr_get_interval 127 getcpu 168 getpriority 141
        getpid 172 gettid 178 getppid 173 getpgid 155 getsid 156 getuid 174 geteuid 175 getgid 176 getegid 177
        getresuid 148 getresgid 150 getgroups 158 getrlimit 163 setrlimit 164 getrusage 165 sysinfo 179 uname 160
        getrandom 278 capget 90 recvfrom 207 sendto 206 sendmsg 211 recvmsg 212 shutdown 210 getsockname 204
        getpeername 205 getsockopt 209 setsockopt 208 wait4 260 waitid 95 exit 93 exit_group 94""",
}
"""Names and numbers of calls that are free."""
_JUDGED = {
    "x86_64": "clone 56 kill 62 tgkill 234 prlimit64 302 prctl 157 fcntl 72 ioctl 16 socketpair 53",
    "aarch64": "clone 220 kill 129 tgkill 131 prlimit64 261 prctl 167 fcntl 25 ioctl 29 socketpair 199",
}
"""Those that are judged by their arguments."""
ANYBODY = 0x7E57AB1E
"""A placeholder for the number of the process."""
_ALLOWED = {
    "kill": ((0, (ANYBODY, 0)),),
    "tgkill": ((0, (ANYBODY, 0)),),
    "prlimit64": ((0, (ANYBODY, 0)),),
    "prctl": ((0, (2, 3, 15, 16, 21, 29, 30, 39)),),
    "fcntl": ((1, (0, 1, 2, 3, 4, 5, 6, 7, 9, 11, 16, 36, 37, 38, 1030, 1031, 1032, 1033, 1034)),),
    "ioctl": ((1, (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)),),
    "socketpair": ((0, (1,)), (1, (1, 0x801, 0x80001, 0x80801))),
}
"""The values that arguments of a call may have. prctl: queries, and names of threads; fcntl: all but sending signals;
ioctl: is it a terminal, how much can be read, do not wait, close on exec; socketpair: permanently connected pairs,
because other kinds can send elsewhere."""
THREAD, SPACES = 2**16, 0x7E020080
"""Flags of clone: one more thread of this process; namespaces."""
CLONE3, NEW, UNKNOWN, REFUSED = 435, 403, 0x50000 | 38, 0x50000 | 1
"""Callers of the calls from ``NEW`` on have a fallback for kernels that lack them."""
ALLOW, LOAD, EQUALS, AT_LEAST, HAS, RETURN = 0x7FFF0000, 0x20, 0x15, 0x35, 0x45, 0x06
NUMBER, ARCHITECTURE, FIRST, WORD = 0, 4, 16, 8


def known() -> bool:
    """Whether the numbers of this machine's calls are known."""
    return os.uname().machine in MACHINES


def numbers(machine: str) -> dict[str, int]:
    """The numbers of the free calls."""
    return _pairs(_FREE[machine])


def filter_of_programs() -> kernel.Filter:
    """A filter for any process, which may signal itself: judged calls one by one, then a search for the others."""
    machine = os.uname().machine
    free, judged = numbers(machine), _pairs(_JUDGED[machine])
    code = [_load(ARCHITECTURE), _if(EQUALS, MACHINES[machine], 1, 0), _then(REFUSED), _load(NUMBER)]
    for name, number in judged.items():
        rule = _one_thread() if name == "clone" else _among(_ALLOWED[name])
        code += [_if(EQUALS, number, 0, len(rule)), *rule]
    return kernel.Filter(b"".join([*code, *_search(_verdicts(set(free.values())))]), struct.pack("=I", ANYBODY))


def _pairs(text: str) -> dict[str, int]:
    words = text.split()
    return {name: int(number) for name, number in zip(words[::2], words[1::2], strict=True)}


def _verdicts(free: set[int]) -> list[tuple[int, int]]:
    """(number, verdict) pairs: each verdict holds from its number on."""
    found = [(0, REFUSED)]
    for number in range(max(*free, NEW) + 2):
        verdict = ALLOW if number in free else REFUSED if number < NEW else UNKNOWN
        if verdict != found[-1][1]:
            found.append((number, verdict))
    return found


def _search(verdicts: list[tuple[int, int]]) -> list[bytes]:
    """A binary search: the kernel evaluates each filter for all numbers, to find those that it always allows."""
    if len(verdicts) == 1:
        return [_then(verdicts[0][1])]
    half = len(verdicts) // 2
    lower, upper = _search(verdicts[:half]), _search(verdicts[half:])
    return [_if(AT_LEAST, verdicts[half][0], len(lower), 0), *lower, *upper]


def _one_thread() -> list[bytes]:
    return [_load(FIRST), _if(HAS, SPACES, 1, 0), _if(HAS, THREAD, 1, 0), _then(REFUSED), _then(ALLOW)]


def _among(rules: Iterable[tuple[int, tuple[int, ...]]]) -> list[bytes]:
    code = []
    for argument, values in rules:
        code.append(_load(FIRST + WORD * argument))
        code += [_if(EQUALS, value, len(values) - place, 0) for place, value in enumerate(values)]
        code.append(_then(REFUSED))
    return [*code, _then(ALLOW)]


def _load(offset: int) -> bytes:
    return struct.pack("=HBBI", LOAD, 0, 0, offset)


def _if(test: int, value: int, then: int, other: int) -> bytes:
    """``then`` and ``other``: how many instructions to skip."""
    return struct.pack("=HBBI", test, then, other, value)


def _then(verdict: int) -> bytes:
    return struct.pack("=HBBI", RETURN, 0, 0, verdict)
