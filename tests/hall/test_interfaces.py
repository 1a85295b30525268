import ast
from pathlib import Path
from typing import Any

import pytest

from rrl.contracts.guiding import Guidance
from rrl.contracts.judging import RewardModelTrainer
from rrl.interfaces import (
    Objective,
    Reward,
    RolloutEngine,
    Selection,
    StateSampler,
)

ROOT = Path(__file__).resolve().parents[2]
FILES = [*(ROOT / "src" / "rrl" / "parts").rglob("*.py"), *(ROOT / "docs" / "examples").rglob("*.py")]


@pytest.mark.parametrize(
    ("kind", "flags"),
    [
        (Reward, {"needs": frozenset()}),
        (
            StateSampler,
            {
                "needs": frozenset(),
                "needs_critic": False,
                "needs_annotation": False,
                "needs_entropies": False,
                "needs_siblings": False,
            },
        ),
        (
            Selection,
            {"needs": frozenset(), "needs_critic": False, "needs_entropies": False, "needs_siblings": False},
        ),
        (Guidance, {"needs": frozenset()}),
        (
            Objective,
            {
                "needs": frozenset(),
                "needs_annotation": True,
                "needs_critic": False,
                "needs_entropies": False,
                "needs_reference": False,
                "needs_siblings": False,
                "pays_entropy": True,
            },
        ),
        (RewardModelTrainer, {"needs_model": False}),
    ],
)
def test_a_part_needs_nothing_unless_it_says_so(kind: Any, flags: dict[str, Any]) -> None:
    silent = type("Silent", (kind,), {})()
    assert {name: getattr(silent, name) for name in dir(silent) if name.startswith(("needs", "pays"))} == flags


@pytest.mark.parametrize("kind", [Reward, StateSampler, Selection, RolloutEngine, Objective])
def test_a_part_has_nothing_to_save_unless_it_says_so(kind: Any) -> None:
    silent = type("Silent", (kind,), {})()
    assert silent.state_dict() == {}
    silent.load_state_dict({})


def test_what_a_part_needs_is_a_class_attribute_or_a_property() -> None:
    class Plain(Objective):
        needs = frozenset({"references"})
        needs_critic = True

    class Depends(Plain):
        @property
        def needs_reference(self) -> bool:
            return self.needs_critic

    part = Depends()
    assert (part.needs, part.needs_critic, part.needs_reference, part.needs_siblings) == ({"references"}, True, True, 0)


def _repeated(tree: ast.Module) -> list[str]:
    """Statements by which a class says no more than its Protocol does."""
    lines = [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Assign)]
    saved = [ast.unparse(n) for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == "state_dict"]
    return [
        *(line for line in lines if line.startswith("needs") and line.endswith(("frozenset()", " False"))),
        *(text for text in saved if text.endswith("return {}")),
    ]


def test_no_part_repeats_that_it_needs_and_saves_nothing() -> None:
    said = {path.stem: _repeated(ast.parse(path.read_text(encoding="utf-8"))) for path in FILES}
    assert {name: lines for name, lines in said.items() if lines} == {"supervised": ["needs_annotation = False"]}
