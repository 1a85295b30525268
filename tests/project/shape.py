"""Measures the shape of src/rrl and fails where it is out of bounds: ``make shape``."""

import sys
from graphlib import CycleError, TopologicalSorter
from statistics import median, quantiles
from typing import NamedTuple

from house import SOURCE, TESTS, arrows, file_lengths, function_lengths, upward


class Measure(NamedTuple):
    """A number that may be so large at most."""

    name: str
    found: float
    most: float


def measures() -> list[Measure]:
    """Everything that is measured."""
    files, functions = file_lengths(), function_lengths()
    here = [path for path in SOURCE.iterdir() if path.name != "__pycache__"]
    tests = [len(path.read_text(encoding="utf-8").splitlines()) for path in TESTS.rglob("*.py")]
    return [
        Measure("files of Python at the top", sum(path.suffix == ".py" for path in here), 9),
        Measure("folders at the top", sum(path.is_dir() for path in here), 12),
        Measure("lines of a file, median", median(files.values()), 130),
        Measure("lines of a file, most", max(files.values()), 300),
        Measure("lines of a test file, most", max(tests), 400),
        Measure("lines of a function, median", median(functions), 6),
        Measure("lines of a function, 90 % have at most", quantiles(functions, n=10)[-1], 20),
        Measure("imports that run up", len(upward()), 0),
        Measure("imports that go round in circles", circles(), 0),
    ]


def circles() -> int:
    """1 where some files import each other in a circle, 0 where none do."""
    try:
        TopologicalSorter(arrows()).prepare()
    except CycleError:
        return 1
    return 0


def main() -> None:
    """Print each measure with its bound; exit code 1 where one is out of bounds."""
    found = measures()
    for name, value, most in found:
        print(f"{name:40} {value:6g}   at most {most:g}" + ("" if value <= most else "   TOO MANY"))
    sys.exit(any(measure.found > measure.most for measure in found))


if __name__ == "__main__":
    main()
