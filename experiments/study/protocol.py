"""The protocol of the study on one task: what arms.yaml says of its budget, seeds and arms, read and checked."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import combinations, product
from pathlib import Path
from typing import Any

from rrl.errors import DataError, nearest, shown
from rrl.records.files import read_yaml

ARMS = Path(__file__).with_name("arms.yaml")
STAGES = ("tuning", "choosing", "reported")
KINDS = ("baseline", "rule", "control", "bound")
"""Of arms: PPO; a rule for choosing states; what a rule must beat; what uses the truth."""
OWN = ("experiment", "budget", "judged", "level", "seeds", "arms", "overrides")
"""What a task may say of its own, beside ``arms_of``, where it takes arms of another; a mapping less than a task."""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """``control`` names the arm with the same problems from their prompts; None where there is none.

    ``overrides`` make the arm. ``search`` has what tuning tries, by key; ``tuned`` names the arm whose tuned values it
    takes, itself or another.
    """

    kind: str
    control: str | None
    overrides: tuple[str, ...]
    search: Mapping[str, str]
    tuned: str


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """``experiment`` makes a run of the task; ``budget`` is generated tokens, ``judged`` the share of it at which arms
    are judged, on problems of ``level``.

    Each arm's tuning has ``trials``, of which ``random`` are drawn at random, by ``search_seed``. Tuned values stand
    with the task ``tuned_of``; where that is another, ``seeds`` has reported ones alone.
    """

    task: str
    tuned_of: str
    experiment: str
    budget: int
    judged: float
    level: str
    trials: int
    random: int
    search_seed: int
    seeds: Mapping[str, tuple[int, ...]]
    arms: Mapping[str, Arm]

    def named(self, kind: str) -> list[str]:
        """The arms of a kind, in the order of the file."""
        return [name for name, arm in self.arms.items() if arm.kind == kind]

    def at(self, stage: str) -> "Protocol":
        """The same of a stage: runs that are not reported end where the reported ones are judged."""
        early = replace(self, budget=round(self.judged * self.budget), judged=1.0)
        return self if stage == "reported" else early

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
    found, faults = tasks[task], []
    tuned_of, stages = task, STAGES
    if "arms_of" in found:
        tuned_of, stages, faults = found["arms_of"], STAGES[-1:], _of_taking(found, tasks, path)
        found = found if faults else _taken(found, tasks[tuned_of])
    arms = _entries(found, "arms")
    faults = faults or [*_of_values(found), *_of_seeds(found), *_of_arms(arms)]
    if faults:
        raise DataError(*(f"{path}: {task}.{fault}" for fault in faults))
    return Protocol(
        task=task,
        tuned_of=tuned_of,
        experiment=found["experiment"],
        budget=found["budget"],
        judged=float(found["judged"]),
        level=found["level"],
        trials=found["trials"],
        random=found["random"],
        search_seed=found["search_seed"],
        seeds={stage: tuple(found["seeds"][stage]) for stage in stages},
        arms={name: _arm(name, arm, _entries(found, "search")) for name, arm in arms.items()},
    )


def _arm(name: str, arm: Mapping[str, Any], search: Mapping[str, str]) -> Arm:
    return Arm(
        kind=arm["kind"],
        control=arm.get("control"),
        overrides=tuple(arm["overrides"]),
        search={**search, **_entries(arm, "search")},
        tuned=arm.get("tuned", name),
    )


def _taken(found: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """A whole task, from one that names arms of another: what it does not say is as there."""
    every = found.get("overrides", [])
    arms = {name: {**other["arms"][name], "overrides": [*other["arms"][name]["overrides"], *every]}
            for name in found["arms"]}  # fmt: skip
    return {**other, **found, "arms": arms, "seeds": {**other["seeds"], **found["seeds"]}}


def _of_taking(found: Mapping[str, Any], tasks: Mapping[str, Any], path: Path) -> list[str]:
    """What keeps a task from taking arms of another; raises DataError with the faults of that."""
    name = found["arms_of"]
    known = [each for each, task in tasks.items() if isinstance(task, dict) and "arms_of" not in task]
    if name not in known:
        return [f"arms_of: no task {name!r} with arms of its own{nearest(str(name), known)}"]
    read(name, path)
    arms, every = _entries(tasks[name], "arms"), found.get("overrides", [])
    faults = [f"{key}: not of a task with arms_of{nearest(key, OWN)}; expected " + ", ".join(OWN)
              for key in found if key not in ("arms_of", *OWN)]  # fmt: skip
    if list(_entries(found, "seeds")) != ["reported"]:
        why = f"since arms are tuned and chosen on {name}"
        faults.append(f"seeds: expected those of reported alone, {why}, got {shown(found.get('seeds'))}")
    if not isinstance(every, list) or not isinstance(found.get("arms"), list):
        return [*faults, f"arms, overrides: expected lists, of arms of {name} and of overrides that all of them get"]
    faults += [f"arms: no arm {each!r} of {name}{nearest(str(each), list(arms))}"
               for each in found["arms"] if each not in arms]  # fmt: skip
    return faults + [
        f"overrides: {text!r} and arms.{each} of {name}, {own!r}, set the same key; expected one of them"
        for each in found["arms"]
        for own, text in product(_entries(arms, each).get("overrides", ()), every)
        if key_of(own) == key_of(text)
    ]


def key_of(override: str) -> str:
    return override.partition("=")[0]


def _entries(found: Mapping[str, Any], key: str) -> dict[str, Any]:
    entries = found.get(key)
    return entries if isinstance(entries, dict) else {}


def _of_values(found: Mapping[str, Any]) -> list[str]:
    budget, judged, level = (found.get(key) for key in ("budget", "judged", "level"))
    numbers = (("trials", 1), ("random", 1), ("search_seed", 0))
    checks = (
        *(
            (key, found.get(key), type(found.get(key)) is int and found[key] >= least, f"a whole number from {least}")
            for key, least in numbers
        ),
        ("budget", budget, type(budget) is int and budget > 0, "generated tokens, a whole number above 0"),
        ("judged", judged, type(judged) is float and 0 < judged < 1, "a share of the budget between 0 and 1"),
        ("experiment", found.get("experiment"), isinstance(found.get("experiment"), str), "one, as in study/trace"),
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
    faults += [
        f"arms.{name}.overrides: expected a list of overrides, got {shown(arm.get('overrides'))}"
        for name, arm in arms.items()
        if not isinstance(arm.get("overrides"), list)
    ]
    for (name, arm), key in product(arms.items(), ("control", "tuned")):
        other = arm.get(key)
        if other is not None and (other not in arms or other == name):
            others = [each for each in arms if each != name]
            faults.append(f"arms.{name}.{key}: no other arm {other!r}{nearest(str(other), others)}")
    for kind, least, most in (("baseline", 1, 1), ("bound", 0, 1)):
        named = [name for name, arm in arms.items() if arm.get("kind") == kind]
        if not least <= len(named) <= most:
            faults.append(f"arms: expected {'one' if least else 'at most one'} of kind {kind}, got {shown(named)}")
    return faults
