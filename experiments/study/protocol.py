"""The protocol of the study on one task: what arms.yaml says of its budget, seeds and arms, read and checked."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from rrl.errors import DataError, nearest, shown
from rrl.records.files import read_yaml

ARMS = Path(__file__).with_name("arms.yaml")
STAGES = ("tuning", "choosing", "reported")
KINDS = ("baseline", "rule", "control", "bound")
"""Of arms: PPO; a rule for choosing states; what a rule must beat; what uses the truth."""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """``control`` names the arm with the same problems from their prompts; None where there is none."""

    kind: str
    control: str | None


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """``budget`` is generated tokens, ``judged`` the share of it at which arms are judged, on problems of ``level``."""

    task: str
    budget: int
    judged: float
    level: str
    seeds: Mapping[str, tuple[int, ...]]
    arms: Mapping[str, Arm]

    def named(self, kind: str) -> list[str]:
        """The arms of a kind, in the order of the file."""
        return [name for name, arm in self.arms.items() if arm.kind == kind]

    @property
    def baseline(self) -> str:
        return self.named("baseline")[0]


def read(task: str, path: Path = ARMS) -> Protocol:
    """The protocol of a task; raises DataError with every fault of its part of the file."""
    tasks, faults = read_yaml(path)
    if faults:
        raise DataError(f"{path}: {faults[0]}; expected the protocol of each task")
    if not isinstance(tasks, dict) or not isinstance(tasks.get(task), dict):
        known = list(tasks) if isinstance(tasks, dict) else []
        raise DataError(f"{path}: no task {task!r}{nearest(task, known)}; expected a task with its protocol")
    found = tasks[task]
    arms = _entries(found, "arms")
    faults = [f"{path}: {task}.{fault}" for fault in [*_of_values(found), *_of_seeds(found), *_of_arms(arms)]]
    if faults:
        raise DataError(*faults)
    return Protocol(
        task=task,
        budget=found["budget"],
        judged=float(found["judged"]),
        level=found["level"],
        seeds={stage: tuple(found["seeds"][stage]) for stage in STAGES},
        arms={name: Arm(kind=arm["kind"], control=arm.get("control")) for name, arm in arms.items()},
    )


def _entries(found: Mapping[str, Any], key: str) -> dict[str, Any]:
    entries = found.get(key)
    return entries if isinstance(entries, dict) else {}


def _of_values(found: Mapping[str, Any]) -> list[str]:
    budget, judged, level = (found.get(key) for key in ("budget", "judged", "level"))
    checks = (
        ("budget", budget, type(budget) is int and budget > 0, "generated tokens, a whole number above 0"),
        ("judged", judged, type(judged) is float and 0 < judged < 1, "a share of the budget between 0 and 1"),
        ("level", level, isinstance(level, str), "a level of held-out problems, as in L10"),
    )
    return [f"{key}: expected {expected}, got {shown(value)}" for key, value, sound, expected in checks if not sound]


def _of_seeds(found: Mapping[str, Any]) -> list[str]:
    seeds = _entries(found, "seeds")
    lists = {stage: seeds.get(stage) for stage in STAGES}
    wrong = [
        f"seeds.{stage}: expected a list of whole numbers, got {shown(each)}"
        for stage, each in lists.items()
        if not isinstance(each, list) or not each or not all(type(seed) is int for seed in each)
    ]
    if wrong:
        return wrong
    return [
        f"seeds: {shown(sorted(both))} stand in {one} and in {other}; expected other seeds in each, so that nothing is "
        "chosen on what is reported"
        for one, other in combinations(STAGES, 2)
        if (both := set(lists[one] or ()) & set(lists[other] or ()))
    ]


def _of_arms(arms: Mapping[str, Any]) -> list[str]:
    others = {name: arm for name, arm in arms.items() if type(arm) is not dict}
    wrong = [f"arms.{name}: expected a mapping, got {shown(arm)}" for name, arm in others.items()]
    if wrong or not arms:
        return wrong or ["arms: expected one or more"]
    faults = [
        f"arms.{name}.kind: expected one of {', '.join(KINDS)}, got {shown(arm.get('kind'))}"
        for name, arm in arms.items()
        if arm.get("kind") not in KINDS
    ]
    for name, arm in arms.items():
        control = arm.get("control")
        if control is not None and (control not in arms or control == name):
            others = [other for other in arms if other != name]
            faults.append(f"arms.{name}.control: no other arm {control!r}{nearest(str(control), others)}")
    for kind, least, most in (("baseline", 1, 1), ("bound", 0, 1)):
        named = [name for name, arm in arms.items() if arm.get("kind") == kind]
        if not least <= len(named) <= most:
            faults.append(f"arms: expected {'one' if least else 'at most one'} of kind {kind}, got {shown(named)}")
    return faults
