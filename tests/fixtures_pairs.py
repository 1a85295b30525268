"""Pairs of programs, a reference and a candidate each, for the tests that compare programs."""

SUM = "n = int(input())\ntotal = 0\nfor i in range(n):\n    total += i\nprint(total)\n"
AREA = "def area(w, h):\n    a = w * h\n    return a\n"
CHOOSE = "x = int(input())\nif x > 3:\n    y = x\nelse:\n    y = 3\nprint(y)\n"
WHILE = "a, b = 1, 1\nwhile a < 100:\n    a, b = b, a + b\nprint(a)\n"
READ = "import sys\nrows = sys.stdin.read()\nprint(rows)\n"

PAIRS = {
    "the same": (SUM, SUM),
    "other names": (SUM, "m = int(input())\ns = 0\nfor k in range(m):\n    s += k\nprint(s)\n"),
    "another operator": (AREA, AREA.replace("*", "+")),
    "another constant": (SUM, SUM.replace("= 0", "= 7")),
    "another kind of constant": (SUM, SUM.replace("= 0", "= 0.5")),
    "a line less": (SUM, "n = int(input())\ntotal = 0\nprint(total)\n"),
    "a line more at the end": (SUM, SUM + "print(n)\n"),
    "a new variable first": (SUM, "zero = 0\n" + SUM.replace("= 0", "= zero")),
    "comments and a docstring": (AREA, 'def area(w, h):\n    """Its area."""\n    a = w * h  # so\n    return a\n'),
    "swapped arguments": (AREA, "def area(h, w):\n    a = w * h\n    return a\n"),
    "no variable": (AREA, "def area(w, h):\n    return w * h\n"),
    "another branch": (CHOOSE, CHOOSE.replace("x > 3", "x < 3")),
    "no else": (CHOOSE, "x = int(input())\ny = 3\nif x > 3:\n    y = x\nprint(y)\n"),
    "a conditional expression": (CHOOSE, "x = int(input())\ny = x if x > 3 else 3\nprint(y)\n"),
    "a helper variable": (WHILE, "a, b = 1, 1\nwhile a < 100:\n    c = a + b\n    a = b\n    b = c\nprint(a)\n"),
    "half of it": (WHILE, "a, b = 1, 1\nwhile a < 100:\n    a = b\nprint(a)\n"),
    "unrelated": (WHILE, "import sys\nprint(sys.stdin.read().upper())\n"),
    "a sum by builtin": (SUM, "print(sum(range(int(input()))))\n"),
    "a reference without variables": ("print(3)\n", "x = 3\nprint(x)\n"),
    "repeated statements": ("a = 1\nb = 1\nc = 1\n", "a = 1\n"),
    "an attribute": (READ, READ.replace("read()", "readlines()")),
    "no Python": (SUM, "n = int(input()\ntotal = 0\n"),
}  # fmt: skip
