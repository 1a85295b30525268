"""MBPP: short functions to write from a sentence and three assertions.

Austin et al. 2021, "Program Synthesis with Large Language Models" (arXiv:2108.07732), GitHub
``google-research/google-research``, ``mbpp/mbpp.jsonl`` and ``mbpp/sanitized-mbpp.json``.
"""

import ast
from collections.abc import Sequence
from dataclasses import dataclass

from rrl.parts.tasks.asserted import Asserted
from rrl.parts.tasks.coding import rendered
from rrl.parts.tasks.rows import Row
from rrl.types import Example
from rrl.verifiers.assertions import Trial
from rrl.verifiers.programs import parsed

NUMBERS = {"test": range(11, 511), "train": range(601, 975), "validation": range(511, 601)}
"""The published splits, by ``task_id``; 1 to 10 are examples for prompts."""


@dataclass(frozen=True, kw_only=True)
class MBPP(Asserted):
    """The problems, split by their numbers; for the fields see ``Asserted``.

    A question shows the assertions, as published, because they name the function. ``with_challenge`` judges by
    ``challenge_test_list`` too, which the question does not show.
    """

    with_challenge: bool

    FILES = ("mbpp.jsonl", "mbpp.jsonl.gz", "sanitized-mbpp.json")
    FIELDS = ("code",)
    SPLITS = tuple(NUMBERS)

    def belongs(self, row: Row, split: str) -> bool:
        return row.get("task_id") in NUMBERS[split]

    def example(self, row: Row) -> Example:
        text, shown = row.get("text", row.get("prompt")), _texts(row, "test_list")
        if not isinstance(text, str) or not shown:
            raise ValueError("expected a field 'text' or 'prompt', and a list 'test_list' of assertions")
        more = _texts(row, "challenge_test_list") if self.with_challenge else []
        setup = "\n".join([*_texts(row, "test_imports"), str(row.get("test_setup_code") or "")])
        tests = [f"{setup}\n{test}" for test in (*shown, *more)]
        functions = _called(row["code"], tests)
        return Example(
            id=f"mbpp/{row['task_id']}",
            level="all",
            question=self.asked("\n".join([text.strip(), "Your code should pass these tests:", "", *shown])),
            reference=rendered(row["code"]),
            answer=Trial(opening="", reference=row["code"], functions=functions, tests=tuple(tests)).as_text(),
        )


def _texts(row: Row, field: str) -> list[str]:
    found = row.get(field) or []
    if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
        raise ValueError(f"field {field!r}: expected a list of texts, received {found!r:.60}")
    return found


def _called(code: str, tests: Sequence[str]) -> tuple[str, ...]:
    """The functions of the solution that the tests name."""
    program, texts = parsed(code.replace("\r\n", "\n")), [parsed(test) for test in tests]
    if program is None or None in texts:
        raise ValueError("'code' or a test is no valid Python")
    defined = [node.name for node in program.body if isinstance(node, ast.FunctionDef)]
    named = {node.id for tree in texts if tree for node in ast.walk(tree) if isinstance(node, ast.Name)}
    functions = tuple(dict.fromkeys(name for name in defined if name in named))
    if not functions:
        raise ValueError(f"the tests name none of the functions that 'code' defines ({', '.join(defined) or 'none'})")
    return functions
