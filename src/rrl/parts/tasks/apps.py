"""APPS: programming problems from open sites, judged by unit tests.

Hendrycks et al. 2021, "Measuring Coding Challenge Competence With APPS" (arXiv:2105.09938). Most programs are scripts
that read and print; others are a function, or a method of a class ``Solution``, that is called.
"""

from dataclasses import dataclass
from json import JSONDecodeError
from pathlib import Path
from typing import Any

from rrl.parts.tasks.coding import CodingTask, Item
from rrl.parts.tasks.rows import Row, load_hub_file, parse_json, read_rows, split_file
from rrl.verifiers.program_verifier import Suite

FIELDS = ("question", "solutions", "input_output", "difficulty", "starter_code")


@dataclass(frozen=True, kw_only=True)
class APPS(CodingTask):
    """The data set in the format of ``codeparrot/apps`` and its verifier.

    ``path`` is a folder with ``train.jsonl`` and ``test.jsonl`` (or ``.jsonl.gz``), or one such file, of which a share
    is then held out; None loads ``hub_id``. For the rest see ``CodingTask``. An example's level is its difficulty
    (introductory, interview or competition), its reference the first solution that compiles.
    """

    hub_id: str

    def rows(self, split: str) -> tuple[list[Row], bool]:
        """From the split's own file or, where there is none for ``test``, from the only file."""
        if self.path is None:
            return load_hub_file(self.hub_id, split, FIELDS), False
        path = Path(self.path).expanduser()
        if path.is_file():
            return read_rows(path, FIELDS), True
        shared = split_file(path, "train").is_file() and not split_file(path, "test").is_file()
        return read_rows(split_file(path, "train" if shared else split), FIELDS), shared

    def item(self, row: Row, number: int, home: str) -> Item:
        return Item(
            name=f"apps/{home}/{_identity(row)}",
            level=row["difficulty"],
            statement=row["question"],
            starter=row["starter_code"],
            solutions=_solutions(row["solutions"]),
            suite=_suite(row["input_output"]),
        )


def _identity(row: Row) -> int:
    """The hub's file says ``id`` for what its loading script calls ``problem_id``."""
    found = row.get("problem_id", row.get("id"))
    if not isinstance(found, int):
        raise ValueError(f"field 'problem_id': expected an integer, received {found!r}")
    return found


def _solutions(text: str) -> tuple[str, ...]:
    found = _json(text, "solutions") if text.strip() else []
    if not isinstance(found, list) or not all(isinstance(solution, str) for solution in found):
        raise ValueError("field 'solutions': expected a JSON list of programs")
    return tuple(found)


def _suite(text: str) -> Suite:
    found = _json(text, "input_output") if text.strip() else {}
    if not isinstance(found, dict):
        raise ValueError(f"field 'input_output': expected a JSON object, received {type(found).__name__}")
    return suite(found.get("fn_name") or None, found.get("inputs", []), found.get("outputs", []), "input_output")


def suite(function: Any, inputs: Any, outputs: Any, field: str, entry: str | None = None) -> Suite:
    """A problem's tests, checked. Raises ValueError."""
    if not isinstance(inputs, list) or not isinstance(outputs, list):
        raise ValueError(f"field {field!r}: expected lists 'inputs' and 'outputs'")
    if len(inputs) != len(outputs):
        raise ValueError(f"field {field!r}: {len(inputs)} inputs and {len(outputs)} outputs, expected as many")
    if function is None:
        texts = [_text(value, field) for value in (*inputs, *outputs)]
        return Suite(function=None, entry=entry, inputs=(*texts[: len(inputs)],), outputs=(*texts[len(inputs) :],))
    if not isinstance(function, str) or not function.isidentifier():
        raise ValueError(f"field {field!r}: function {function!r}, expected a name")
    if not all(isinstance(arguments, list) for arguments in inputs):
        raise ValueError(f"field {field!r}: expected a list of arguments for each call of {function!r}")
    return Suite(function=function, entry=None, inputs=tuple(inputs), outputs=tuple(outputs))


def _text(value: Any, field: str) -> str:
    """The text that a script reads or prints; some rows give its lines."""
    lines = value if isinstance(value, list) else [value]
    if not all(isinstance(line, str) for line in lines):
        raise ValueError(f"field {field!r}: expected a text for a script, received {value!r:.60}")
    return "\n".join(lines)


def _json(text: str, field: str) -> Any:
    try:
        return parse_json(text)
    except JSONDecodeError as error:
        raise ValueError(f"field {field!r}: malformed JSON, {error}") from error
