"""Mutants that passed a problem's tests, tried on inputs of our own: are the tests weak, or is the mutant equivalent?

    python experiments/apps/survivors.py <folder or file>

For each case the solution and the mutant run on the same inputs, which are drawn by hand-written generators that keep
to the statement; told is on how many the two differ. None is no proof of equivalence.
"""

import json
import random
import sys
import warnings
from collections.abc import Callable
from typing import Any

from mutation import mutants

from rrl.config.check import load
from rrl.parts.tasks.apps import APPS
from rrl.parts.tasks.coding import Item
from rrl.sandbox.runs import Job

Draw = Callable[[random.Random], Any]


def _numbers(rng: random.Random, count: int, most: int) -> str:
    return " ".join(str(rng.randint(1, most)) for _ in range(count))


def _list(longest: int, most: int | None = None) -> Draw:
    def draw(rng: random.Random) -> str:
        count = rng.randint(1, longest)
        return f"1\n{count}\n{_numbers(rng, count, most or count)}\n"

    return draw


def _permutation(rng: random.Random) -> str:
    count = rng.randint(2, 7)
    return f"1\n{count}\n{' '.join(map(str, rng.sample(range(1, count + 1), count)))}\n"


def _matrix(rng: random.Random) -> str:
    side = rng.randint(1, 4)
    return f"1\n{side}\n" + "".join("".join(rng.choice("01") for _ in range(side)) + "\n" for _ in range(side))


def _two_words(letters: str) -> Draw:
    def draw(rng: random.Random) -> str:
        count = rng.randint(1, 6)
        words = ["".join(rng.choice(letters) for _ in range(count)) for _ in range(2)]
        return f"1\n{count}\n{words[0]}\n{words[1]}\n"

    return draw


def _pairs(rng: random.Random) -> str:
    count, most = 2 * rng.randint(1, 3), rng.randint(1, 5)
    return f"1\n{count} {most}\n{_numbers(rng, count, most)}\n"


def _fares(rng: random.Random) -> str:
    way = "".join(rng.choice("AB") for _ in range(rng.randint(2, 7)))
    return f"1\n{rng.randint(1, 5)} {rng.randint(1, 5)} {rng.randint(1, 12)}\n{way}\n"


def _days(rng: random.Random) -> str:
    count = rng.randint(1, 7)
    return f"1\n{count} 9 {rng.randint(1, count)}\n{_numbers(rng, count, 4)}\n"


def _colours(rng: random.Random) -> str:
    count = rng.randint(1, 8)
    return f"1\n{count} {rng.randint(1, count)}\n{''.join(rng.choice('RGB') for _ in range(count))}\n"


def _barrels(rng: random.Random) -> str:
    count = rng.randint(1, 6)
    return f"1\n{count} {rng.randint(0, count - 1)}\n{_numbers(rng, count, 9)}\n"


CASES: tuple[tuple[int, str, str, Draw], ...] = (
    # problem, operator, what is new in the mutant's text, inputs
    (2408, "short range", "ord('z') + 1 - 1", lambda rng: ["".join(rng.choice("yz") for _ in range(4))]),
    (2403, "off by one", "497", lambda rng: [rng.choice([6, 28, 495, 496, 497])]),
    (4184, "swapped branches", "2 if (n + 1) % 6 else 4", lambda rng: [rng.randint(2, 2000)]),
    (14, "and for or", "or a1 == b1", lambda rng: f"1\n{_numbers(rng, 2, 4)}\n{_numbers(rng, 2, 4)}\n"),
    (3, "dropped line", "list(map(int, input().split()))\n    pass", _barrels),
    (10, "off by one", "range(2, n - 1)", _permutation),
    (2373, "short range", "2 * k + 1 - 1", _pairs),
    (2373, "dropped line", "1] += 1\n        pass\n    ans", _pairs),
    (10, "boundary (< for <=)", "arr[i - 1] <= arr[i]", _permutation),
    (4, "boundary (< for <=)", ">= maxx", _permutation),
    (26, "boundary (< for <=)", "n <= m", lambda rng: f"1\n{_numbers(rng, 2, 6)}\n"),
    (17, "short range", "range(n - 1)", _list(8)),
    (39, "dropped line", "cost = [0] * n\n    pass", _fares),
    (19, "off by one", "s.get(a[q], 1)", _days),
    (2361, "boundary (< for <=)", "mid >= lo", lambda rng: f"1\n{rng.randint(1, 60)}\n"),
    (2367, "short range", "False] * n\n        for i in range(n - 1)", _two_words("abc")),
    (2374, "off by one", "f = 2", _two_words("123456")),
    (2375, "boundary (< for <=)", "l >= r", _list(6, 3)),
    (2389, "off by one", "dp = [1", _colours),
    (2390, "boundary (< for <=)", "ne < 0", _list(9)),
    (2393, "short range", "for i in range(n):\n        for j in range(n - 1)", _matrix),
    (2011, "short range", "n + 1 - 1", lambda rng: f"{rng.randint(1, 500)}\n"),
)  # fmt: skip
INPUTS = 100


def main() -> None:
    """Print a table."""
    warnings.simplefilter("ignore", SyntaxWarning)
    _, parts = load("train", ["task=apps", f"data.path={sys.argv[1]}", *sys.argv[2:]])
    task = parts.task
    assert isinstance(task, APPS)
    items = {item.name: item for i, row in enumerate(task.rows("train")[0]) for item in [task.item(row, i, "train")]}
    print("| problem | operator | differs | first difference |\n| --- | --- | --- | --- |")
    for number, operator, new, draw in CASES:
        compared = _compare(task, items[f"apps/train/{number}"], operator, new, draw)
        print(f"| {number} | {operator} | {compared[0]} of {INPUTS} | {compared[1]} |", flush=True)
    task.judge.sandbox.close()


def _compare(task: APPS, item: Item, operator: str, new: str, draw: Draw) -> tuple[int, str]:
    """On how many inputs solution and mutant differ, and the first of them."""
    found = [
        (solution, mutant.source)
        for solution in item.solutions[:3]
        if _compiles(solution)
        for mutant in mutants(solution)
        if mutant.operator == operator and new in mutant.source
    ]
    rng = random.Random(0)
    inputs = tuple(draw(rng) for _ in range(INPUTS))
    jobs = [Job(source, item.suite.function, inputs) for source in found[0]]
    begun = [task.judge.sandbox.submit(job) for job in jobs]
    ours, theirs = [[future.result() for future in futures] for futures in begun]
    differ = [
        f"`{json.dumps(given)}`: {a.value!r}, mutant {b.value if b.status == 'ended' else b.error!r}"
        for given, a, b in zip(inputs, ours, theirs, strict=True)
        if a.status == "ended" and (a.value, a.status) != (b.value, b.status)
    ]
    return len(differ), differ[0] if differ else "-"


def _compiles(source: str) -> bool:
    try:
        compile(source, "<solution>", "exec")
    except SyntaxError:
        return False
    return True


if __name__ == "__main__":
    main()
