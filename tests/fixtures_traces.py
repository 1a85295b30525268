"""Programs that look for what others left: in memory, in files, in names of the kernel's."""

MARK = "zq7#"
"""What those words begin with that are looked for; six digits follow."""
SPEAKER = f'''
import sys
given = input()
print("{MARK}200002", given)
text = "{MARK}300003" * 50
if given.endswith("5"): raise ValueError("{MARK}400004")
'''
FUNCTION = f'''
def f(x):
    return ["{MARK}700007", x]
'''
MEMORY = r"""
import ctypes, gc, os, sys
mark = bytes([122, 113, 55, 35])
libc = ctypes.CDLL(None, use_errno=True)
reader, writer = os.pipe()
os.set_blocking(writer, False)
PAGE = 4096
def mapped(page):
    if libc.write(writer, ctypes.c_void_p(page), ctypes.c_size_t(1)) != 1: return False
    os.read(reader, 1)
    return True
known = {id(each) >> 12 for each in gc.get_objects()} | {id(each) >> 12 for each in sys.modules.values()}
known |= {ctypes.addressof(ctypes.c_int()) >> 12, ctypes.cast(libc.malloc, ctypes.c_void_p).value >> 12}
known |= {id(each) >> 12 for module in list(sys.modules.values()) for each in vars(module).values()}
keep = ctypes.create_string_buffer(100)
known |= {ctypes.addressof(keep) >> 12}
seen, found, pages = set(), set(), 0
for start in sorted(known):
    for step in (1, -1):
        page, missed = start, 0
        while page not in seen and missed < 64:
            seen.add(page)
            if mapped(page * PAGE):
                missed = 0
                pages += 1
                text = ctypes.string_at(page * PAGE, PAGE)
                place = text.find(mark)
                while place >= 0:
                    word = text[place + 4 : place + 10]
                    if word.isdigit(): found.add(int(word))
                    place = text.find(mark, place + 1)
            else: missed += 1
            page += step
print(pages > 1000, sorted(found))
"""
"""Reads what lies around each object that it knows of, page by page."""
NAMES = r"""
import ctypes, gc, os, sys
mark = chr(122) + chr(113) + chr(55) + chr(35)
found = []
def look(name, attempt):
    try:
        text = attempt()
        if mark in (text if isinstance(text, str) else repr(text)): found.append(name)
    except Exception: pass
for path in ("/proc/self/environ", "/proc/self/cmdline", "/proc/self/maps", "/proc/1/cmdline", "/proc/self/mem"):
    look(path, lambda: open(path, "rb").read())
for number in range(3, 1100):
    look(number, lambda: os.pread(number, 2**20, 0))
for folder in (".", "..", "/tmp", "/dev/shm", "/dev/mqueue", "/run", "/var/tmp"):
    look(folder, lambda: [open(os.path.join(folder, each), "rb").read() for each in os.listdir(folder)])
libc = ctypes.CDLL(None)
for number in range(200):
    place = libc.shmat(number, 0, 0o10000)
    if place > 0: look("shm", lambda: ctypes.string_at(place, 64))
frame = sys._getframe()
while frame := frame.f_back:
    kept = {key: value for key, value in frame.f_locals.items() if key not in ("request", "code", "space")}
    look(frame.f_code.co_name, lambda: kept)
look("modules", lambda: [vars(each) for name, each in sys.modules.items() if name != "__main__"])
look("environ", lambda: (dict(os.environ), sys.argv, sys.orig_argv))
print(found)
"""
LEAVES = r"""
import os, sys, threading
word = "zq7#" + "500005"
open("left", "w").write(word)
os.mkdir("d" + word)
os.environ["LEFT"] = word
try: os.setxattr(".", "user.left", word.encode())
except OSError: pass
sys.argv.append(word)
print(word)
"""
