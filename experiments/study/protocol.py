"""The protocol of the study on one task: what arms.yaml says of its budget, seeds and arms, read and checked."""

import inspect
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import combinations, product
from pathlib import Path
from typing import Any, NoReturn

from rrl.cli.shell import guarded
from rrl.errors import DataError, nearest, shown
from rrl.records.files import read_object, read_yaml

ARMS = Path(__file__).with_name("arms.yaml")
TUNED = "tuned.json"
STAGES = ("tuning", "choosing", "reported")
KINDS = ("baseline", "rule", "control", "bound")
"""Of arms: PPO; a rule for choosing states; what a rule must beat; what uses the truth."""
OWN = ("experiment", "budget", "judged", "level", "seeds", "arms", "overrides")
"""What a task may say of its own, beside ``arms_of``, where it takes arms of another; a mapping less than a task."""
OF_TASK = ("experiment", "budget", "judged", "level", "trials", "random", "search_seed", "seeds", "search", "arms")
OF_ARM = ("kind", "control", "overrides", "search", "tuned")
SHARED = ("replay",)
"""Of a task beside its own keys: what its arms refer to."""


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

    def tuned_controls(self) -> list[str]:
        """The controls with values of their own, not those of a rule."""
        return [name for name in self.named("control") if self.arms[name].tuned == name]

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
        known = [str(name) for name in tasks] if isinstance(tasks, dict) else []
        raise DataError(f"{path}: no task {task!r}{nearest(task, known)}; expected a task with its protocol")
    found, faults = tasks[task], []
    tuned_of, stages = task, STAGES
    if "arms_of" in found:
        tuned_of, stages, faults = found["arms_of"], STAGES[-1:], _of_taking(found, tasks, path)
        found = found if faults else _taken(found, tasks[tuned_of])
    arms = _entries(found, "arms")
    taking = ("arms_of", "overrides") if "arms_of" in found else ()
    faults = faults or [
        *_unknown("", found, (*OF_TASK, *SHARED, *taking)),
        *_of_values(found),
        *_of_seeds(found),
        *_of_arms(arms),
    ]
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


def tuned(path: Path) -> dict[str, list[str]]:
    """The overrides that tuning found, by arm; none where there is no file. Raises DataError for another content."""
    found, faults = read_object(path)
    faults += [
        f"{arm}: expected a list of overrides, got {shown(texts)}"
        for arm, texts in found.items()
        if not _are(str, texts)
    ]
    if faults:
        remedy = "restore it, or move it away to have every arm tuned anew"
        raise DataError(*(f"{path}: {fault}; expected the overrides of each tuned arm; {remedy}" for fault in faults))
    return found


def run(main: Callable[..., None], about: str | None) -> NoReturn:
    """Call ``main`` with this program's arguments and exit; what a user can mend is told without a traceback."""
    arguments = sys.argv[1:]
    if {"-h", "--help"} & set(arguments):
        print(about)
        sys.exit(0)
    try:
        inspect.signature(main).bind(*arguments)
    except TypeError as error:
        sys.exit(f"arguments: {error}; expected as here:\n\n{about}")
    sys.exit(guarded(lambda: main(*arguments)))


def _arm(name: str, arm: Mapping[str, Any], search: Mapping[str, str]) -> Arm:
    return Arm(
        kind=arm["kind"],
        control=arm.get("control"),
        overrides=tuple(arm["overrides"]),
        search={**search, **_entries(arm, "search")},
        tuned=arm.get("tuned") or name,
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
    known = [str(each) for each, task in tasks.items() if isinstance(task, dict) and "arms_of" not in task]
    if name not in known:
        return [f"arms_of: no task {name!r} with arms of its own{nearest(str(name), known)}"]
    read(name, path)
    arms, every = _entries(tasks[name], "arms"), found.get("overrides", [])
    faults = [f"{key}: not of a task with arms_of{nearest(str(key), OWN)}; expected " + ", ".join(OWN)
              for key in found if key not in ("arms_of", *OWN)]  # fmt: skip
    if list(_entries(found, "seeds")) != ["reported"]:
        why = f"since arms are tuned and chosen on {name}"
        faults.append(f"seeds: expected those of reported alone, {why}, got {shown(found.get('seeds'))}")
    if not _are(str, every) or not _are(str, found.get("arms")):
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


def _are(kind: type, values: Any) -> bool:
    """Whether it is a list of nothing else."""
    return isinstance(values, list) and all(type(value) is kind for value in values)


def _unknown(where: str, found: Mapping[str, Any], keys: tuple[str, ...]) -> list[str]:
    return [f"{where}{key}: no such key{nearest(str(key), list(keys))}; correct or remove it"
            for key in found if key not in keys]  # fmt: skip


def _of_search(where: str, found: Mapping[str, Any]) -> list[str]:
    search = found.get("search", {})
    if isinstance(search, dict) and all(type(text) is str for text in (*search, *search.values())):
        return []
    return [f"{where}search: expected for each key what is tried, as in choice(0.25, 0.5), got {shown(search)}"]


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
    faults = [f"{key}: expected {expected}, got {shown(value)}" for key, value, sound, expected in checks if not sound]
    return [*faults, *_of_search("", found)]


def _of_seeds(found: Mapping[str, Any]) -> list[str]:
    seeds = _entries(found, "seeds")
    lists = {stage: seeds.get(stage) for stage in STAGES}
    wrong = [
        *_unknown("seeds.", seeds, STAGES),
        *(
            f"seeds.{stage}: expected a list of whole numbers, each once, got {shown(each)}"
            for stage, each in lists.items()
            if not _are(int, each) or not each or len(set(each)) < len(each)
        ),
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
    wrong += [
        f"arms.{name}: expected a name of letters, digits, - and _, which names a folder; write another one"
        for name in arms
        if not (isinstance(name, str) and re.fullmatch(r"[\w-]+", name))
    ]
    if wrong or not arms:
        return wrong or ["arms: expected one or more"]
    faults = [fault for name, arm in arms.items() for fault in _of_arm(name, arm, arms)]
    for kind, least, most in (("baseline", 1, 1), ("bound", 0, 1)):
        named = [name for name, arm in arms.items() if arm.get("kind") == kind]
        if not least <= len(named) <= most:
            faults.append(f"arms: expected {'one' if least else 'at most one'} of kind {kind}, got {shown(named)}")
    return faults


def _of_arm(name: str, arm: Mapping[str, Any], arms: Mapping[str, Any]) -> list[str]:
    where, kind, overrides = f"arms.{name}.", arm.get("kind"), arm.get("overrides")
    faults = [*_unknown(where, arm, OF_ARM), *_of_search(where, arm)]
    if kind not in KINDS:
        faults.append(f"{where}kind: expected one of {', '.join(KINDS)}, got {shown(kind)}")
    if not _are(str, overrides):
        faults.append(f"{where}overrides: expected a list of overrides, got {shown(overrides)}")
    for key in ("control", "tuned"):
        other = arm.get(key)
        if other is not None and (not isinstance(other, str) or other not in arms or other == name):
            others = [each for each in arms if each != name]
            faults.append(f"{where}{key}: no other arm {other!r}{nearest(str(other), others)}")
    return faults or _of_tuned(where, arm, arms)


def _of_tuned(where: str, arm: Mapping[str, Any], arms: Mapping[str, Any]) -> list[str]:
    """Of an arm that takes the values of another."""
    other = arm.get("tuned")
    if other is None:
        return []
    faults = []
    if arm.get("search"):
        faults.append(f"{where}search: is of no use with tuned, which takes the values of {other}; keep one of the two")
    if arms[other].get("tuned") is not None:
        faults.append(f"{where}tuned: {other} takes the values of {arms[other]['tuned']} itself; name that one")
    return faults
