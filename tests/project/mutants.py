"""Tries the tests on mistakes made on purpose: ``python tests/project/mutants.py [TEXT] [-j N]``, or ``make mutants``.

``mutants.yaml`` has them: by file, an old text, the new one, and a test that must then fail. Each is made in a copy of
the tree. The tests are run on the unchanged copy first, for one that fails anyway tells nothing; slow cases are left
out. With TEXT only those mutants are tried whose file, texts or test have it. The exit code is 1 when one survives or
cannot be made.
"""

import argparse
import importlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

ROOT = next(folder for folder in Path(__file__).resolve().parents if (folder / "setup.cfg").is_file())
TABLE = Path(__file__).with_suffix(".yaml")
NEEDED = ("src", "tests", "conf", "docs", "experiments", "setup.cfg", "pyproject.toml", "README.md", "Makefile")
"""What is copied, as far as it is there."""
UNNEEDED = shutil.ignore_patterns("__pycache__", "*.egg-info", "results")
LOADED = ("torch", "deepspeed", "transformers.models.llama.modeling_llama", "transformers.generation", "hydra", "sympy")
"""What takes seconds to import: once, in the process that the others are forked from; nothing of rrl."""
PATIENCE = 900
"""Seconds; a test that takes longer has failed too."""
VERDICTS = {0: "survived", 1: "killed", -signal.SIGALRM: "killed"}
"""By the exit code of pytest; any other is an error."""


@dataclass(frozen=True)
class Mutant:
    """A mistake: in ``file`` the text ``old``, which stands there once, becomes ``new``; ``test`` must then fail."""

    number: int
    file: str
    old: str
    new: str
    test: str

    def __str__(self) -> str:
        return f"{self.file}: {' '.join(self.old.split())} -> {' '.join(self.new.split())} ({self.test})"

    def faults(self, root: Path) -> list[str]:
        """What keeps it from being made and tried."""
        module, _, name = self.test.partition("::")
        old, tests = (path.read_text() if path.is_file() else "" for path in (root / self.file, root / module))
        found = [] if old.count(self.old) == 1 else [f"{self}: the old text stands there {old.count(self.old)} times"]
        return found if f"\ndef {name.partition('[')[0]}(" in tests else [*found, f"{self}: there is no such test"]

    def make(self, copy: Path) -> None:
        """Make the mistake."""
        path = copy / self.file
        path.write_text(path.read_text().replace(self.old, self.new))
        os.utime(path, (self.number, self.number))  # Python compiles anew what has another time


def read(table: Path) -> list[Mutant]:
    """The mutants of a table, in its order."""
    rows = [(file, row) for file, rows in yaml.safe_load(table.read_text()).items() for row in rows]
    return [Mutant(number, file, **row) for number, (file, row) in enumerate(rows, start=1)]


def copied(root: Path, place: Path) -> Path:
    """A copy of what tests need, which any user may read."""
    place.mkdir()
    place.parent.chmod(0o755)
    for path in [root / name for name in NEEDED if (root / name).exists()]:
        shutil.copytree(path, place / path.name, ignore=UNNEEDED) if path.is_dir() else shutil.copy2(path, place)
    return place


def started(tests: Sequence[str], copy: Path) -> int:
    """A process, by its number, that runs tests in a copy and ends as pytest does; what it says is kept there."""
    pid = os.fork()
    if pid:
        return pid
    signal.alarm(PATIENCE)
    said = os.open(copy / "said", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(said, stream)
    os.chdir(copy)
    os.environ["PYTHONPATH"] = str(copy / "src")
    sys.path[:1] = [str(copy / "src")]
    options = ("-x", "-q", "-m", "not slow", "-p", "no:cacheprovider", f"--basetemp={copy / 'tmp'}")
    os._exit(pytest.main([*options, *tests]))


def said(copy: Path) -> str:
    """The last words of the tests in a copy."""
    return (copy / "said").read_text(errors="replace")[-3000:]


def failing(tests: Sequence[str], copies: Sequence[Path]) -> str:
    """What is said of tests that fail without any mutant; nothing where all pass."""
    parts = [tests[number :: len(copies)] for number in range(len(copies))]
    running = {started(part, copy): copy for part, copy in zip(parts, copies, strict=True) if part}
    ends = [os.wait() for _ in running]
    return "\n".join(said(running[pid]) for pid, status in ends if status)


def tried(mutants: Sequence[Mutant], root: Path, copies: Sequence[Path]) -> Counter[str]:
    """How many mutants have which verdict, which is printed of each; the copies are as they were afterwards."""
    found, idle, running, queue = Counter[str](), list(copies), dict[int, tuple[Mutant, Path, float]](), deque(mutants)
    while queue or running:
        if queue and (faults := queue[0].faults(root)):
            queue.popleft()
            verdict, reported = "error", "; ".join(faults)
        elif queue and idle:
            mutant, copy = queue.popleft(), idle.pop()
            mutant.make(copy)
            running[started([mutant.test], copy)] = mutant, copy, time.monotonic()
            continue
        else:
            pid, status = os.wait()
            mutant, copy, begun = running.pop(pid)
            shutil.copy2(root / mutant.file, copy / mutant.file)
            idle.append(copy)
            verdict = VERDICTS.get(os.waitstatus_to_exitcode(status), "error")
            reported = f"{mutant} {time.monotonic() - begun:.1f} s" + (f"\n{said(copy)}" if verdict == "error" else "")
        found[verdict] += 1
        print(f"{verdict:8}  {reported}", flush=True)
    return found


def main(arguments: Sequence[str], root: Path = ROOT, table: Path = TABLE, loaded: Sequence[str] = LOADED) -> int:
    """Try the mutants and print what became of each."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("text", nargs="?", default="", help="try only mutants that have this text")
    parser.add_argument("-j", dest="jobs", type=int, default=1, help="how many at the same time")
    chosen, begun = parser.parse_args(arguments), time.monotonic()
    os.environ["OMP_NUM_THREADS"] = "1"  # torch reads it when it is imported
    mutants = [mutant for mutant in read(table) if chosen.text in f"{mutant}"]
    for name in loaded:
        importlib.import_module(name)
    place = tempfile.mkdtemp(prefix="rrl-mutants.")
    try:
        copies = [copied(root, Path(place, str(number))) for number in range(chosen.jobs)]
        tests = list(dict.fromkeys(mutant.test for mutant in mutants if not mutant.faults(root)))
        if words := failing(tests, copies):
            print(f"{words}\na test fails without any mutant, and so tells nothing of them")
            return 1
        print(f"{len(tests)} tests pass without a mutant, after {time.monotonic() - begun:.0f} s", flush=True)
        found = tried(mutants, root, copies)
    finally:
        subprocess.run(["rm", "-rf", place], check=False)  # a mutant may leave folders too deep for Python's own
    counts = ", ".join(f"{found[name]} {name}" for name in ("killed", "survived", "error"))
    print(f"{len(mutants)} mutants: {counts}, in {time.monotonic() - begun:.0f} s")
    return int(found["killed"] < len(mutants))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
