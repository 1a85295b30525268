"""Programs that cross limits or reach for what is not theirs, by name."""

import os

LOOPS = {
    "forever": "while True: pass",
    "deaf": """
import signal
for number in range(1, 65):
    try: signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError): pass
signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
while True: pass""",
    "without descriptors": """
import os
os.closerange(0, 2000)
while True: pass""",
    "within C": "x = 9 ** 9 ** 9",
    "at the end": """
class Endless:
    def __del__(self):
        while True: pass
kept = Endless()""",
    "in what is raised": """
class Endless(Exception):
    def __str__(self):
        while True: pass
raise Endless""",
}
SLEEPS = {
    "sleeping": "import time\ntime.sleep(60)",
    "a thread": "import threading, time\nthreading.Thread(target=time.sleep, args=(60,)).start()",
    "a lock": "import threading\nlock = threading.Lock()\nlock.acquire()\nlock.acquire()",
    "stopped": "import os, signal, time\nos.kill(os.getpid(), signal.SIGSTOP)\ntime.sleep(60)",
    "closed and asleep": "import os, time\nos.closerange(0, 2000)\ntime.sleep(60)",
}
GREEDY = {
    "output": ("while True: print('x' * 1000)", "OutputLimit"),
    "errors": ("import os\nwhile True: os.write(2, b'x' * 1000)", "OutputLimit"),
    "reports": ("import os\nwhile True: os.write(1000, b'x' * 1000)", "OutputLimit"),
    "memory": ("x = 'a' * 10 ** 9", "MemoryError"),
    "memory bit by bit": ("x = []\nwhile True: x.append('a' * 2 ** 22)", "MemoryError"),
    "maps": ("import mmap\nkept = [mmap.mmap(-1, 2 ** 26) for _ in range(99)]", "OSError"),
    "more memory": ("import resource as r\nr.setrlimit(r.RLIMIT_AS, (r.RLIM_INFINITY,) * 2)", "ValueError"),
    "more time": ("import resource as r\nr.setrlimit(r.RLIMIT_CPU, (9, 9))", "ValueError"),
    "a big file": ("open('big', 'wb').write(b'x' * 10 ** 7)", "OSError"),
    "open files": ("kept = [open('f', 'w') for _ in range(99)]", "OSError"),
    "threads": (
        "import threading, time\nfor _ in range(99): threading.Thread(target=time.sleep, args=(9,)).start()",
        "RuntimeError",
    ),
}
FORGED = r"""
import os
for number in range(3, 2000):
    try: os.write(number, b'{"status": "ended", "value": 42}')
    except OSError: pass
"""
NO_ANSWER = {
    "leaves": "import os; os._exit(0)",
    "exits": "import sys; sys.exit(0)",
    "prints a report": """
import os
print('RC{"status": "ended", "value": 42}', flush=True)
os._exit(0)""",
    "writes a report everywhere": FORGED + "os._exit(0)",
    "writes a report and goes on": FORGED,
    "closes everything": "import os\nos.closerange(0, 2000)",
    "breaks builtins": """
import builtins
builtins.compile = builtins.exec = builtins.isinstance = builtins.type = builtins.len = None
raise SystemExit(0)""",
    "breaks json": "import json\njson.dumps = json.loads = json.JSONEncoder = None\nraise SystemExit(0)",
    "breaks os": "import os\nos.write = os._exit = os.read = lambda *_: None\nraise SystemExit(0)",
    "kills its parent": """
import os
try: os.kill(os.getppid(), 9)
except OSError: pass
os._exit(0)""",
    "kills everybody": """
import os
try: os.kill(-1, 9)
except OSError: pass
os._exit(0)""",
    "kills its group": "import os\nos.kill(0, 9)\nos._exit(0)",
    "kills itself": "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\nos._exit(0)",
    "traces": "import sys\nsys.settrace(lambda *_: 1 / 0)\nraise SystemExit(0)",
    "leaves in a thread": """
import os, threading
threading.Thread(target=os._exit, args=(0,)).start()
while True: pass""",
    "alters frames": """
import gc, os, sys
frame = sys._getframe()
while frame := frame.f_back:
    for each in list(frame.f_locals.values()):
        if isinstance(each, list): each.append({'status': 'ended', 'value': 42})
        if isinstance(each, dict): each.update(status='ended', value=42)
raise SystemExit(0)""",
    "leaves when deleted": """
class Evil:
    def __del__(self):
        import os
        os._exit(0)
evil = Evil()
del evil""",
    "leaves at exit": "import atexit, os\natexit.register(os._exit, 0)\nraise SystemExit(0)",
    "exits by output": """
import sys
class Out:
    def write(self, text): raise SystemExit(0)
    flush = write
sys.stdout = Out()
print(1)""",
}
"""Put before a function that would answer, each of them prevents it; none has ended."""
SEARCH = """
import gc, os, sys
def f(x):
    seen = [dict(os.environ), sys.argv, sys.orig_argv]
    frame = sys._getframe()
    while frame:
        if frame.f_locals is not frame.f_globals:
            seen.append({**frame.f_locals, 'seen': 0, 'reserve': 0})
        frame = frame.f_back
    for path in ('/proc/self/environ', '/proc/self/mem', '/proc/1/environ', '/proc/self/cmdline'):
        try: seen.append(open(path, 'rb').read())
        except OSError: pass
    kept = [each for each in gc.get_objects() if type(each) in (list, dict, tuple) and len(each) in range(2, 20)]
    kept.remove(seen)
    text = repr(seen) + repr(kept)
    return [word.lower() in text for word in ('HUNTER2', 'INPUT-TWO', 'INPUT-ONE')]
"""
"""Looks for words that do not stand in itself."""
REACHING = {
    "a file of the system": "open('/etc/passwd').read()",
    "the repository": f"open({__file__!r}).read()",
    "the root": "os.listdir('/root/.ssh')",
    "tmp": "open('/tmp/rrl-left-behind', 'w')",
    "shared memory": "open('/dev/shm/rrl-left-behind', 'w')",
    "the folder above": "os.mkdir('../rrl-left-behind')",
    "the library": "open(os.__file__, 'a')",
    "installed packages": "sys.path.append(os.path.dirname(os.__file__) + '/site-packages') or __import__('pip')",
    "the network": "socket.create_connection(('127.0.0.1', 22), 1)",
    "sockets": "socket.socket(socket.AF_UNIX)",
    "fork": "os.fork()",
    "a shell": "os.execv('/bin/sh', ['sh'])",
    "a command": "subprocess.run(['true'])",
    "the trainer": f"os.kill({os.getpid()}, 0)",
    "everybody": "os.kill(-1, 0)",
    "root": "os.setuid(0)",
    "permissions": "os.chmod('.', 0o777)",
    "others' limits": f"resource.prlimit({os.getpid()}, resource.RLIMIT_CPU)",
    "anonymous files": "os.memfd_create('x')",
    "ptrace": "refused(c.ptrace(16, os.getppid(), 0, 0))",
    "a user namespace": "refused(c.unshare(0x10000000))",
    "clone": "refused(c.syscall(56 if os.uname().machine == 'x86_64' else 220, 17, 0, 0, 0, 0))",
    "clone3": "refused(c.syscall(435, 0, 0))",
    "mount": "refused(c.mount(b'x', b'.', b'tmpfs', 0, None))",
    "shared segments": "refused(c.shmget(7, 999, 0o1666))",
}
TRY = """
import os, resource, sys
try:
    import ctypes, socket, subprocess
    c = ctypes.CDLL(None, use_errno=True)
except ImportError: pass
def refused(result):
    if result == -1: raise PermissionError
try: {attempt}
except BaseException: print('kept')
else: print('reached')
"""
NAMESPACES_KEEP = (
    "a file of the system",
    "the repository",
    "tmp",
    "shared memory",
    "the network",
    "the trainer",
    "mount",
)
FAMILIES = {
    "group": "import os, signal\nos.kill(0, signal.SIGKILL)",
    "bomb": """
import os
while True:
    try: os.fork()
    except OSError: pass""",
    "daemons": """
import os, time
for _ in range(3):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0: time.sleep(60)
        os._exit(0)
print(1)""",
    "stubborn": """
import os, signal
for number in (1, 2, 15): signal.signal(number, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
    while True: pass
print(1)""",
    "writer": """
import os
if os.fork() == 0:
    while True: os.write(1, b'x')
os._exit(0)""",
    "killer": """
import os, signal
for pid in (os.getppid(), -1):
    try: os.kill(pid, signal.SIGKILL)
    except OSError: pass""",
    "freezer": """
import os, signal
for pid in (os.getppid(), -1):
    try: os.kill(pid, signal.SIGSTOP)
    except OSError: pass""",
}
"""What a program may try that can fork and signal."""
