r"""APPS+: problems of APPS, cleaned, with one function each.

Dou et al. 2024, "StepCoder" (arXiv:2402.01391), GitHub ``Ablustrund/APPS_Plus``, ``data/v1/data.json``: one JSON list.
Where tests give texts, a function without arguments reads standard input and prints; where they give lists, a function
is called with them.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from rrl.parts.tasks.apps import suite
from rrl.parts.tasks.coding import CodingTask, Item
from rrl.parts.tasks.rows import Row, read_objects, refuse
from rrl.verifiers.program_verifier import Suite

STATEMENTS = ("prompt", "question", "description", "problem")
SOLUTIONS = ("canonical_solution", "solution")
NAMES = ("fn_name", "function_name", "entry_point", "name")
"""Names that a field may have; the first is the likeliest (see docs/apps.md)."""
TESTS = ("inputs", "outputs", "starter_code")
PLACES = ("", "data.json", "data/v1/data.json", "APPS_PLUS_FINAL.json")


@dataclass(frozen=True, kw_only=True)
class APPSPlus(CodingTask):
    """The data set and its verifier.

    ``path`` is the file, or a folder that holds it as ``data.json`` or ``data/v1/data.json``; there is no official
    test split, so the share ``holdout`` is held out. For the rest see ``CodingTask``.
    """

    def rows(self, split: str) -> tuple[list[Row], bool]:
        """All rows: the splits share them. Raises DataError when they do not look like APPS+."""
        if self.path is None:
            refuse(
                ["data.path: null; APPS+ is not on the hub"], "get data/v1/data.json from GitHub Ablustrund/APPS_Plus"
            )
        root = Path(str(self.path)).expanduser()
        files = [root / place for place in PLACES if (root / place).is_file()]
        rows = read_objects(files[0] if files else root)
        faults = [f"{(files or [root])[0]}: fields {list(rows[0])}, expected also {name}" for name in _missing(rows[0])]
        refuse(faults, "rename the fields of the file, or add their names to tasks/apps_plus.py")
        return rows, True

    def item(self, row: Row, number: int, home: str) -> Item:
        missing = _missing(row)
        if missing:
            raise ValueError(f"fields {list(row)}, expected also {', '.join(missing)}")
        starter, solution, statement = row["starter_code"], _given(row, SOLUTIONS), _given(row, STATEMENTS)
        if not all(isinstance(text, str) for text in (starter, solution, statement)):
            raise ValueError("starter code, solution and statement: expected texts")
        return Item(
            name=f"apps_plus/{row.get('problem_id', row.get('id', number))}",
            level=str(row.get("difficulty", "unknown")),
            statement=str(statement),
            starter=starter,
            solutions=(str(solution),),
            suite=_suite(row, starter, str(solution)),
        )


def _missing(row: Row) -> list[str]:
    several = [f"one of {', '.join(names)}" for names in (STATEMENTS, SOLUTIONS) if _given(row, names) is None]
    return several + [name for name in TESTS if name not in row]


def _given(row: Row, names: tuple[str, ...]) -> object:
    return next((row[name] for name in names if name in row), None)


def _suite(row: Row, starter: str, solution: str) -> Suite:
    name = _given(row, NAMES) or _defined(starter) or _defined(solution)
    inputs = row["inputs"]
    called = isinstance(inputs, list) and any(isinstance(given, list) for given in inputs)
    if called:
        if name is None:
            raise ValueError("inputs are lists of arguments, but neither a field nor the starter code names a function")
        return suite(name, inputs, row["outputs"], "inputs")
    entry = name if isinstance(name, str) and name.isidentifier() else _defined(starter)
    return suite(None, inputs, row["outputs"], "inputs", entry=entry)


def _defined(source: str) -> str | None:
    """The first function, or method of ``Solution``, that a program defines."""
    found = re.search(r"^[ \t]*def[ \t]+(?!__)(\w+)", source, re.MULTILINE)
    return found[1] if found else None
