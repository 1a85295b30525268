"""Hostile programs, by name, and what must hold after each. Standard library only: also run as another user.

``python fixtures_hostile.py LEVEL [slow]`` runs those that are quick or slow and prints what did not hold, as JSON.
"""

import json
import os
import socket
import sys
import tempfile
from contextlib import closing
from pathlib import Path

from rrl.sandbox.limits import Limits
from rrl.sandbox.runs import Job, Run
from rrl.sandbox.sandbox import Sandbox

LIMITS = Limits(
    wall_seconds=4.0, cpu_seconds=0.6, memory_mb=128, processes=8, open_files=32, file_mb=4, output_kb=64
)  # fmt: skip
REACH = """
import fcntl, os, resource, signal, socket, struct, sys
import ctypes
c = ctypes.CDLL(None, use_errno=True)
call, parent, outside = c.syscall, os.getppid(), {outside}
def refused(result):
    if result == -1: raise PermissionError
    return True
try: told = {attempt}
except BaseException: print("kept")
else: print("reached")
"""
"""``attempt`` is an expression that raises where it does not succeed; ``outside`` the number of a process."""
FILES = {
    f"open {path}": f"open({path!r}, {mode!r})"
    for path, mode in (
        ("/etc/passwd", "rb"), ("/etc/shadow", "rb"), ("/root/.bashrc", "rb"), ("/proc/1/environ", "rb"),
        ("/proc/1/root/etc/passwd", "rb"), ("/proc/self/root/etc/passwd", "rb"), ("/proc/sysrq-trigger", "w"),
        ("/proc/self/cwd/../../etc/passwd", "rb"), ("/proc/self/mem", "r+b"), ("/proc/self/maps", "rb"),
        ("/proc/self/oom_score_adj", "w"), ("/proc/self/task/self/mem", "rb"), ("/proc/thread-self/maps", "rb"),
        ("/proc/sys/kernel/core_pattern", "w"), ("/proc/self/environ", "rb"), ("/proc/self/task/1/mem", "rb"),
        ("/proc/kcore", "rb"), ("/sys/kernel/vmcoreinfo", "rb"), ("/sys/fs/cgroup/cgroup.procs", "w"),
        ("/dev/mem", "rb"),
        ("/dev/kmsg", "w"), ("/dev/tty", "w"), ("/dev/ptmx", "r+b"), ("/dev/shm/left", "w"), ("/dev/mqueue/left", "w"),
        ("/tmp/left", "w"), ("/var/tmp/left", "w"), ("/run/left", "w"), ("../left", "w"), (os.__file__, "a"),
        (__file__, "rb"), ("/usr/lib/left", "w"), ("/dev/null/../left", "w"), ("/left", "w"),
    )
}  # fmt: skip
CALLS = {
    "shmget": "refused(call(29, 7, 999, 0o1666))",
    "shmat of any": "any(call(30, number, 0, 0o10000) != -1 for number in range(99)) or refused(-1)",
    "shmctl": "refused(call(31, 0, 13, ctypes.create_string_buffer(200)))",
    "semget": "refused(call(64, 7, 1, 0o1666))",
    "msgget": "refused(call(68, 7, 0o1666))",
    "mq_open": "refused(call(240, b'left', 0o102, 0o666, 0))",
    "add_key": "refused(call(248, b'user', b'left', b'x', 1, -4))",
    "keyctl": "refused(call(250, 0, -3, 1))",
    "ptrace itself": "refused(call(101, 0, 0, 0, 0))",
    "ptrace the parent": "refused(call(101, 16, parent, 0, 0))",
    "read another's memory": "refused(call(310, parent, 0, 0, 0, 0, 0))",
    "write another's memory": "refused(call(311, parent, 0, 0, 0, 0, 0))",
    "kcmp": "refused(call(312, os.getpid(), os.getpid(), 0, 0, 0))",
    "io_uring": "refused(call(425, 1, ctypes.create_string_buffer(200)))",
    "userfaultfd": "refused(call(323, 1))",
    "bpf": "refused(call(321, 0, ctypes.create_string_buffer(200), 72))",
    "perf": "refused(call(298, ctypes.create_string_buffer(200), 0, -1, -1, 0))",
    "nice": "refused(call(141, 0, 0, 5))",
    "affinity": "os.sched_setaffinity(0, {0})",
    "scheduler": "os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))",
    "idle priority": "refused(call(251, 1, 0, 3 << 13))",
    "personality": "refused(call(135, 0x0040000))",
    "user namespace": "refused(call(272, 0x10000000))",
    "own mounts": "refused(call(272, 0x20000))",
    "own network": "refused(call(272, 0x40000000))",
    "setns": "refused(call(308, 0, 0))",
    "fork": "os.fork()",
    "vfork": "refused(call(58))",
    "clone": "refused(call(56, 17, 0, 0, 0, 0))",
    "clone a namespace": "refused(call(56, 0x10000000 | 17, 0, 0, 0, 0))",
    "clone for the parent": "refused(call(56, 0x8000 | 17, 0, 0, 0, 0))",
    "clone3": "refused(call(435, ctypes.create_string_buffer(88), 88))",
    "execve": "os.execv(sys.executable, ['x'])",
    "pidfd_open": "refused(call(434, os.getpid(), 0))",
    "pidfd_getfd": "refused(call(438, 3, 0, 0))",
    "pidfd signal": "refused(call(424, 3, 0, 0, 0))",
    "name to handle": "refused(call(303, -100, b'.', *map(ctypes.create_string_buffer, (200, 8)), 0))",
    "open by handle": "refused(call(304, -100, ctypes.create_string_buffer(200), 0))",
    "secret memory": "refused(call(447, 0))",
    "anonymous file": "refused(call(319, b'x', 0))",
    "abstract socket": "socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).bind('\\0left')",
    "netlink": "socket.socket(16, 3, 0)",
    "vsock": "socket.socket(40, 1, 0)",
    "raw packets": "socket.socket(17, 3, 0)",
    "internet": "socket.create_connection(('127.0.0.1', {port}), 1)",
    "a pair that can be sent elsewhere": "socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)",
    "a pair of packets": "socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)",
    "connect a pair elsewhere": "socket.socketpair()[0].connect('/dev/log')",
    "bind a pair": "socket.socketpair()[0].bind('left.sock')",
    "inotify": "refused(call(294, 0))",
    "fanotify": "refused(call(300, 0, 0))",
    "signal the parent": "os.kill(parent, 0) if parent else refused(-1)",
    "signal the trainer": "os.kill(outside, 0)",
    "signal everybody": "os.kill(-1, 0)",
    "signal a group": "os.killpg(outside, 0)",
    "signal a thread": "refused(call(200, outside, 0))",
    "signal with a value": "refused(call(129, outside, 10, ctypes.create_string_buffer(128)))",
    "outlive the server": "refused(c.prctl(1, 0, 0, 0, 0))",
    "be dumpable": "refused(c.prctl(4, 1, 0, 0, 0))",
    "be traced by all": "refused(c.prctl(0x59616d61, -1, 0, 0, 0))",
    "be a reaper": "refused(c.prctl(36, 1, 0, 0, 0))",
    "move its memory": "refused(c.prctl(35, 1, 4096, 0, 0))",
    "another filter": "refused(call(317, 1, 0, ctypes.create_string_buffer(16)))",
    "own rules on files": "refused(call(444, 0, 0, 1))",
    "signals of a file to others": "fcntl.fcntl(0, 8, outside)",
    "which signal a file sends": "fcntl.fcntl(0, 10, 9)",
    "owner of a file, at length": "refused(call(72, 0, 15, struct.pack('ii', 1, outside)))",
    "a lease": "fcntl.fcntl(os.open(os.__file__, 0), 1024, 0)",
    "notes of changes": "fcntl.fcntl(os.open('.', 0), 1026, 1)",
    "owner by ioctl": "fcntl.ioctl(0, 0x8901, struct.pack('i', outside))",
    "type into a terminal": "fcntl.ioctl(0, 0x5412, b'x')",
    "take a terminal": "fcntl.ioctl(0, 0x540E, 1)",
    "never to be deleted": "fcntl.ioctl(os.open('.', 0), 0x40086602, struct.pack('l', 16))",
    "a session": "os.setsid()",
    "another group": "os.setpgid(0, 0)",
    "root": "os.setuid(0)",
    "other groups": "os.setgroups([0])",
    "capabilities": "refused(call(126, struct.pack('Ii', 0x20080522, 0), struct.pack('6I', *[2**32 - 1] * 6)))",
    "chroot": "os.chroot('.')",
    "mount": "refused(c.mount(b'x', b'.', b'tmpfs', 0, None))",
    "unmount": "refused(call(166, b'/proc', 2))",
    "another root": "refused(call(155, b'.', b'.'))",
    "open a tree": "refused(call(428, -100, b'.', 0))",
    "host name": "socket.sethostname('left')",
    "the time": "refused(call(227, 0, struct.pack('qq', 0, 0)))",
    "reboot": "refused(call(169, 0xfee1dead, 672274793, 0, 0))",
    "swap": "refused(call(167, b'x', 0))",
    "accounting": "refused(call(163, 0))",
    "the kernel's log": "refused(call(103, 3, ctypes.create_string_buffer(99), 99))",
    "modules": "refused(call(313, 0, b'', 0))",
    "ports": "refused(call(172, 3))",
    "descriptors of segments": "refused(call(154, 0, ctypes.create_string_buffer(99), 99))",
    "locked memory": "refused(call(149, ctypes.create_string_buffer(99), 99))",
    "moved pages": "refused(call(279, parent, 0, 0, 0, 0, 0))",
    "sync of everything": "refused(call(162))",
    "permissions": "os.chmod('.', 0o777)",
    "set user id": "(open('f', 'w'), os.chmod('f', 0o4755))",
    "give away": "os.chown('.', 0, 0)",
    "times of files": "os.utime('.', (0, 0))",
    "attributes of files": "os.setxattr('.', 'user.x', b'y')",
    "a device": "os.mknod('null', 0o20666, os.makedev(1, 3))",
    "a link to what is not its own": "os.link(os.__file__, 'f') or open('f', 'a')",
    "a link out": "os.symlink('/etc/passwd', 'f') or open('f')",
    "a folder above": "os.mkdir('../left')",
    "rename out": "os.mkdir('d') or os.rename('d', '/tmp/left')",
    "others' limits": "resource.prlimit(outside, resource.RLIMIT_CPU)",
    "more memory": "resource.setrlimit(resource.RLIMIT_AS, (2**40, 2**40))",
    "more time": "resource.setrlimit(resource.RLIMIT_CPU, (99, 99))",
    "more processes": "resource.setrlimit(resource.RLIMIT_NPROC, (2**40, 2**40))",
    "cores": "resource.setrlimit(resource.RLIMIT_CORE, (9999, 9999))",
    "installed packages": "sys.path.append(os.path.dirname(os.__file__) + '/site-packages') or __import__('pip')",
    "a call of 32 bits": "refused(call(0x40000000 + 39))",
}
"""Numbers of calls are those of x86-64."""
ACTS = {
    "forges its report": r"""
import os, struct
text = b'{"status": "ended", "value": 42}'
for number in range(3, 1100):
    try: os.write(number, b"\3" + struct.pack("=I", len(text)) + text)
    except OSError: pass
os.kill(os.getpid(), 9)""",
    "forges an error with words without end": r"""
import os, struct
text = b'{"status": "runtime_error", "error": "' + b"E" * 30000 + b'", "line": 1, "message": "line '
text += b"9" * 30000 + b'"}'
os.write(LAST, b"\3" + struct.pack("=I", len(text)) + text)
os._exit(1)""",
    "forges numbers without end": r"""
import os, struct
text = b'{"status": "runtime_error", "error": "E", "line": ' + b"9" * 5000 + b', "message": "m"}'
os.write(LAST, b"\3" + struct.pack("=I", len(text)) + text)
os._exit(1)""",
    "forges a deep value": r"""
import os, struct
text = b'{"status": "runtime_error", "error": "E", "message": "m", "line": ' + b"[" * 20000 + b"]" * 20000 + b"}"
os.write(LAST, b"\3" + struct.pack("=I", len(text)) + text)
os._exit(1)""",
    "says that it was not compiled": r"""
import os, struct
text = b'{"status": "compile_error", "error": "E", "message": "m", "line": 1}'
os.write(LAST, b"\1" + bytes(8) + b"\3" + struct.pack("=I", len(text)) + text)
os._exit(1)""",
    "says that it has used no time": "import os\nos.write(LAST, b'\\1' + b'\\xff' * 8)\nwhile True: pass",
    "finds what its callers know": r"""
import os, sys
frame = sys._getframe()
while frame := frame.f_back:
    for name, value in list(frame.f_locals.items()):
        if name == "nonce": os.write(LAST, value + b'{"status": "ended", "value": 42}' + value)
raise ValueError("line " + "9" * 5000)""",
    "half a character": "raise ValueError('\\ud83d bad')",
    "a name of half a character": "raise type('\\xed\\xa0', (Exception,), {'__str__': lambda self: '\\udfff'})",
    "a name without end": "raise type('E' * 10**6, (Exception,), {})('m' * 10**6)",
    "controls": "raise ValueError('\\x00\\x1b[2J\\r\\n\\u202e')",
    "bytes that are no text": "import os\nos.write(1, bytes(range(256)) * 20)",
    "an error that lies": """
class E(Exception):
    def __str__(self): return type("S", (str,), {"__getitem__": lambda *_: 5})("x")
    __class__ = property(lambda self: 1 / 0)
raise E""",
    "an error within an error": "class E(Exception):\n def __str__(self): raise E\nraise E",
    "a chain of errors": "e = None\nfor _ in range(10**5):\n  n = ValueError(); n.__cause__ = e; e = n\nraise e",
    "a deep source": "x = " + "(" * 5000 + ")" * 5000,
    "a long line": "x = '" + "a" * 10**6 + "'\n1 / 0",
    "replaces the ways out": """
import os, sys, json, builtins
for name in ("_exit", "write", "read", "close", "kill"): setattr(os, name, lambda *_: 0)
json.dumps = sys.exit = builtins.len = builtins.type = builtins.isinstance = lambda *_: 0""",
    "replaces the ways out and fails": """
import os
os._exit = os.write = lambda *_: 0
import builtins
builtins.BaseException = builtins.Exception = int
1 / 0""",
    "goes back into its callers": """
import sys
frame = sys._getframe()
while frame := frame.f_back:
    for name, value in list(frame.f_globals.items()):
        if callable(value) and not isinstance(value, type): frame.f_globals[name] = lambda *a, **k: 0""",
    "calls the ways out": """
import sys
for name, module in list(sys.modules.items()):
    if "inside" in name:
        for key, value in list(vars(module).items()):
            if callable(value):
                try: value()
                except BaseException: pass""",
    "confines itself": "import sys\ncell = sys._getframe(3).f_locals['cell']\ntry: cell.clear()\nfinally: cell.leave()",
    "spoils descriptors": "import os\nfor n in range(3, 1100):\n try: os.dup2(0, n)\n except OSError: pass",
    "closes everything": "import os\nos.closerange(0, 5000)",
    "closes everything and goes on": "import os\nos.closerange(0, 5000)\nwhile True: pass",
    "fills its output": "import os\nwhile True: os.write(1, b'x' * 4096)",
    "fills its errors": "import os\nwhile True: os.write(2, b'x' * 4096)",
    "fills its report": "import os\nwhile True: os.write(LAST, b'x' * 4096)",
    "widens its pipes": "import fcntl\nfor n in (1, 2, LAST): fcntl.fcntl(n, 1031, 2**20)\nprint('x' * 60000)",
    "does not let its pipes wait": "import os\nfor n in (1, 2, LAST): os.set_blocking(n, False)\nprint('x' * 60000)",
    "reads its own output": "import os\nfd = os.open('/dev/stdout', os.O_RDONLY)\nprint(5, flush=True)\nos.read(fd, 9)",
    "shuts its input": "import os\nos.ftruncate(0, 0)\nprint(input())",
    "grows its input": "import os\nos.ftruncate(0, 2**40)",
    "a file with holes": "open('f', 'wb').truncate(2**21)\nopen('f', 'r+b').write(b'x')",
    "names of odd bytes": "import os\nfor n in range(1, 256):\n  if n != 47: os.mkdir(bytes([n]) * 200)",
    "folders without permissions": """
import os
for n in range(50):
    os.mkdir('d', 0o700)
    os.chdir('d')
    open('f', 'w')
os.mkdir('e', 0)""",
    "a tree": """
import os
for a in range(9):
    for b in range(9):
        os.makedirs(f'{a}/{b}')
        for c in range(9): os.mkdir(f'{a}/{b}/{c}', 0o500)""",
    "pipes with names": "import os\nfor n in range(50): os.mkfifo(f'p{n}', 0)",
    "a loop of links": "import os\nfor a, b in ('ab', 'ba', '.c', '/d'): os.symlink(a, b)",
    "many links": "import os\nopen('f', 'w')\nfor n in range(200): os.link('f', f'l{n}')",
    "removes its folder": "import os\ntry: os.rmdir(os.getcwd())\nexcept OSError: pass",
    "waits for a pipe": "import os\nos.mkfifo('p')\nos.open('p', os.O_RDONLY)",
    "stops": "import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)\nimport time\ntime.sleep(60)",
    "kills itself": "import os\nos.kill(os.getpid(), 9)",
    "kills its group": "import os\nos.kill(0, 9)",
    "aborts": "import os\nos.abort()",
    "a bad address": "import ctypes\nctypes.string_at(8)",
    "a deep stack": "import sys\nsys.setrecursionlimit(10**9)\ndef f(): return f() + 1\nf()",
    "a stack within C": "import sys\nsys.setrecursionlimit(10**9)\ndef f(x): return sorted([x], key=f)\nf(1)",
    "a large number": "9 ** 9 ** 9",
    "all memory": "x = []\nwhile True: x.append(bytearray(2**20))",
    "all address space": "import mmap\nx = []\nwhile True: x.append(mmap.mmap(-1, 2**24))",
    "all threads": "import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(60,)).start()",
    "all files": "x = []\nwhile True: x.append(open('f', 'w'))",
    "timers": "import signal\nsignal.signal(14, lambda *_: None)\nsignal.setitimer(0, 1e-6, 1e-6)\nwhile True: pass",
    "deaf": "import signal\nsignal.pthread_sigmask(0, range(1, 65))\nwhile True: pass",
    "ends in a thread": "import os, threading\nthreading.Thread(target=os._exit, args=(3,)).start()\nwhile True: pass",
    "never lets go": "import ctypes\nctypes.PyDLL(None).sleep(60)",
    "waits at its end": "import atexit, time\natexit.register(time.sleep, 60)",
    "computes at its end": "class E:\n def __del__(self):\n  while True: pass\ne = E()",
    "forks at its end": "import atexit, os\natexit.register(os.fork)",
    "traces": "import sys\ndef f(*_):\n  sys.settrace(f); exit(0)\nsys.settrace(f)\nsys.setprofile(f)\nraise KeyError",
    "hears audits": "import sys\nsys.addaudithook(lambda *_: 1 / 0)\nopen('f')",
    "imports what hooks it": "import sys\nsys.meta_path.insert(0, None)\nsys.modules['os'] = None\nraise KeyError",
    "collects": "import gc\nfor each in gc.get_objects():\n  if type(each) is dict and len(each) < 50: each.clear()",
    "clears modules": "import sys\nsys.modules.clear()\nimport os\nos.x",
}
"""``LAST`` is the number of the descriptor that the report leaves by."""


def programs(port: int) -> dict[str, str]:
    """All by name."""
    found = {
        name: REACH.format(attempt=attempt.replace("{port}", str(port)), outside=os.getpid())
        for name, attempt in {**FILES, **(CALLS if os.uname().machine == "x86_64" else {})}.items()
    }
    last = "import os, stat\nfor LAST in range(1100, 2, -1):\n  try:\n"
    last += "    if stat.S_ISFIFO(os.fstat(LAST).st_mode): break\n"
    last += "  except OSError: pass\n"
    return {**found, **{name: (last if "LAST" in source else "") + source for name, source in ACTS.items()}}


SLOW = {
    "stops", "never lets go", "waits at its end", "waits for a pipe", "all threads", "closes everything and goes on",
    "says that it has used no time", "a deep stack", "a large number", "timers", "deaf", "computes at its end",
    "ends in a thread",
}  # fmt: skip
"""Those that sleep or compute until they are stopped."""


def broken(sandbox: Sandbox, chosen: dict[str, str]) -> list[str]:
    """What did not hold: no verdict that was not earned, texts of bounded length, the next program in order."""
    found, before = [], _left()
    for name, source in chosen.items():
        [run] = sandbox.submit(Job(source, None, ("",))).result()
        [after] = sandbox.submit(Job("import os\nprint(os.listdir('.'), int(input()) * 2)", None, ("21",))).result()
        found += [f"{name}: {fault}: {run}"[:500] for fault in _faults(run)]
        found += [f"{name}: did not try: {run}"] if name not in ACTS and run.value != "kept\n" else []
        found += [f"{name}: the next program: {after}"] if after.value != "[] 42\n" else []
    return found + [f"left behind: {each}" for each in sorted(_left() - before)]


def _faults(run: Run) -> list[str]:
    found = ["its own fault is the sandbox's"] if run.status == "sandbox_failure" else []
    found += ["long"] if len(run.message) > 400 or len(run.error or "") > 400 else []
    try:
        json.dumps([run.value, run.message, run.error], ensure_ascii=False).encode()
    except UnicodeEncodeError:
        found.append("cannot be written")
    return found


def _left() -> set[str]:
    """Segments, queues, and files where everybody may make them."""
    places = [path for path in ("/dev/shm", "/dev/mqueue", "/tmp", "/var/tmp") if os.path.isdir(path)]
    names = {f"{place}/{name}" for place in places for name in os.listdir(place) if "left" in name}
    tables = [Path(f"/proc/sysvipc/{kind}") for kind in ("shm", "sem", "msg")]
    return names | {
        f"{table.name} {row}" for table in tables if table.exists() for row in table.read_text().split("\n")[1:]
    }


def main(level: str, slow: bool) -> list[str]:
    """The programs that are slow, or the others, as whoever runs this."""
    with socket.create_server(("127.0.0.1", 0)) as listener, tempfile.TemporaryDirectory() as folder:
        tempfile.tempdir = folder
        with closing(Sandbox(limits=LIMITS, workers=1, isolation=level)) as sandbox:  # type: ignore[arg-type]
            chosen = {k: v for k, v in programs(listener.getsockname()[1]).items() if (k in SLOW) == slow}
            found = broken(sandbox, chosen)
        return found + [f"left behind: {name}" for name in os.listdir(folder)]


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], sys.argv[2:] == ["slow"])))
