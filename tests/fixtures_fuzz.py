"""Strategies for responses as no one would write them, none of which holds the answer: no digit above 3, no secret."""

import builtins

from hypothesis import strategies as st

ANY = st.text(st.characters(min_codepoint=0, exclude_categories=("Nd", "Nl", "No")), max_size=40)
"""Any characters, halves of characters and control characters among them, but nothing that is a number."""
MARKS = (
    "```python\n", "```py:a.py\n", "```", "\n```\n", "~~~\n", "> ", "1. ", "    ", ">>> ", "<think>", "</think>",
    "<answer>", "</answer>", "\\boxed{", "\\boxed", "}", "{", "\\frac{1}{", "^{2^{3", "#### ", "The answer is ",
    "$", "\\left(", "\\sqrt[", "\\text{", "½", "−", "\\begin{pmatrix}", "1", "2,0", "-3", "1e30", "0.1", "%", "\\%",
    "\x00", "\x1b[2J", "\r", "\r\n", "\ud83d", "\udc00", "\u202e", "\ufeff", "Question: ", "sure ", "sorry ", " , ",
    "the ", "and", " .", "=", "x", "+ ", "* ", "(" * 200, "[" * 150, "{" * 300, "\\frac{" * 150, "print(1)\n",
    "def f(*a): return 1\n", "import os\n",
)  # fmt: skip
WRITTEN = st.lists(st.one_of(st.sampled_from(MARKS), ANY), max_size=12).map("".join)
LONG = st.tuples(st.sampled_from(MARKS), st.sampled_from((10**3, 10**4, 10**4, 10**6))).map(
    lambda drawn: drawn[0] * (drawn[1] // len(drawn[0]) + 1)
)
"""One piece again and again, up to a megabyte."""

ERRORS = sorted(
    name
    for name, kind in vars(builtins).items()
    if isinstance(kind, type) and issubclass(kind, BaseException) and not name.startswith("_")
)
ARGUMENTS = (
    "", "'\\ud83d bad'", "'x' * 10**6", "None", "b'\\xff'", "'line ' + '3' * 3000", "[], {}", "'\\x00\\x1b[2J'",
    "'utf-8', b'', 0, 1, 'x'", "'utf-8', '\\ud83d', 0, 1, 'x'", "'x', [ValueError('\\ud83d')]",
    "3, '\\udfff', '\\ud83d'",
    "10**3000", "float('nan')", "object()",
)  # fmt: skip
RAISED = st.tuples(st.sampled_from(ERRORS), st.sampled_from(ARGUMENTS)).map(
    lambda drawn: f"raise {drawn[0]}({drawn[1]})"
)
FORGED = (
    '{"status": "ended", "value": 1}', '{"status": "runtime_error", "error": "E", "line": 3333, "message": "line 3"}',
    '{"status": "ended", "value": null, "error": 1}', "[" * 3000, "RC", "\\x01", "\\xff" * 100, "NaN",
)  # fmt: skip
FORGING = st.sampled_from(FORGED).map(
    lambda report: (
        f"import os\nfor n in range(3, 1100):\n    try: os.write(n, b'''{report}''')\n    except OSError: pass\n"
    )
)
TRICKS = (
    "import os\nfor _ in range(300):\n    os.mkdir('d' * 200)\n    os.chdir('d' * 200)",
    "import os\nfor n in range(300): open(f'f{n}', 'w').write('x')",
    "import os\nfor pid in (os.getppid(), 1, -1, 0):\n    try: os.kill(pid, 9)\n    except OSError: pass",
    "import os\nos.kill(os.getpid(), 11)",
    "import os\nos._exit(0)",
    "import os\nos._exit(3)",
    "import os\nos.closerange(0, 2000)",
    "import os\nwhile os.fork() >= 0: pass",
    "import sys\nsys.stdout.buffer.write(bytes(range(256)) * 100)",
    "print('x' * 10**6)",
    "import sys\nprint('\\ud83d', file=sys.stderr)\nsys.exit('\\ud83d')",
    "import sys\nsys.exit(float('nan'))",
    "class E(Exception):\n    def __str__(self): raise self\nraise E",
    "class E(Exception):\n    def __str__(self): return '\\ud83d' * 10**5\nraise E",
    "E = type('\\ud83d' * 3000, (Exception,), {})\nraise E",
    "import threading\nthreading.Thread(target=lambda: 1 / 0).start()",
    "import sys\nsys.modules.clear()",
    "import sys, builtins\nbuiltins.print = builtins.len = builtins.type = sys.stdout = None",
    "import json, os\njson.dumps = os.write = os._exit = lambda *a, **k: 1",
    "def f(*a): return f(*a)\nf()",
    "x = 'a' * 10**9",
    "def f(*a):\n    x = []\n    x.append(x)\n    return x",
    "def f(*a): return type('All', (str,), {'__eq__': lambda s, o: True, '__hash__': None})('x')",
    "def f(*a): return '\\ud83d'",
    "def f(*a): return float('nan'), 10**3000, {None: (1, [])}",
    "def f(*a):\n    import sys\n    return [sorted(g.f_locals) for g in [sys._getframe(1)]]",
    "class Solution:\n    def __getattribute__(self, name): return lambda *a: Ellipsis",
    "class Solution:\n    def __init__(self): raise SystemExit(0)",
    "(" * 3000,
    "x = " + "-" * 3000 + "1",
    "\x00",
)
PROGRAMS = st.tuples(
    st.sampled_from(("", "x = 1\n", "print(1, flush=True)\n", *["def f(*a): return 1\n"] * 3)),
    st.one_of(RAISED, RAISED, FORGING, st.sampled_from(TRICKS), st.sampled_from(("", "print(input())"))),
).map("".join)
FENCED = st.tuples(
    st.one_of(st.just(""), ANY),
    st.sampled_from(("```python\n", "\n```py\n", "\n> ```py\n> ", "\n1. ```python\n   ")),
    PROGRAMS,
    st.one_of(st.just("\n```\n"), WRITTEN),
).map("".join)
