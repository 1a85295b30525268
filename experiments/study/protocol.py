"""The protocol of the study on one task: what arms.yml says of its budget, seeds and arms, read and checked."""

import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, NoReturn

from protocol_faults import OWN, STAGES, are, entries, faults_of

from rrl.cli.shell import guarded
from rrl.errors import DataError, nearest, shown
from rrl.records.files import read_object, read_yaml

ARMS = Path(__file__).with_name("arms.yml")
TUNED = "tuned.json"


@dataclass(frozen=True, kw_only=True)
class Arm:
    """``control`` names the arm that differs in one thing, mostly that it starts from the prompts; None: no such arm.

    ``overrides`` make the arm. ``search`` has what tuning tries, by key; ``tuned`` names the arm whose tuned values it
    takes, itself or another. ``extra`` is what a step does beside what the baseline's does, apart from writing, as a
    share of that.
    """

    kind: str
    control: str | None
    overrides: tuple[str, ...]
    search: Mapping[str, str]
    tuned: str
    extra: float


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
    tasks = {name: _flat(each) for name, each in tasks.items()}
    found, faults = tasks[task], []
    tuned_of, stages = task, STAGES
    if "arms_of" in found:
        tuned_of, stages, faults = found["arms_of"], STAGES[-1:], _of_taking(found, tasks, path)
        found = found if faults else _taken(found, tasks[tuned_of])
    arms = entries(found, "arms")
    taking = ("arms_of", "overrides") if "arms_of" in found else ()
    faults = faults or faults_of(found, taking)
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
        arms={name: _arm(name, arm, entries(found, "search")) for name, arm in arms.items()},
    )


def tuned(path: Path) -> dict[str, list[str]]:
    """The overrides that tuning found, by arm; none where there is no file. Raises DataError for another content."""
    found, faults = read_object(path)
    faults += [
        f"{arm}: expected a list of overrides, got {shown(texts)}"
        for arm, texts in found.items()
        if not are(str, texts)
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


def _flat(task: Any) -> Any:
    """The same task with the overrides of each arm in one list: a list among them, as an alias gives, is spread."""
    arms = entries(task, "arms") if isinstance(task, dict) else {}
    lists = [arm for arm in arms.values() if isinstance(arm, dict) and isinstance(arm.get("overrides"), list)]
    for arm in lists:
        spread = [each if isinstance(each, list) else [each] for each in arm["overrides"]]
        arm["overrides"] = [text for each in spread for text in each]
    return task


def _arm(name: str, arm: Mapping[str, Any], search: Mapping[str, str]) -> Arm:
    return Arm(
        kind=arm["kind"],
        control=arm.get("control"),
        overrides=tuple(arm["overrides"]),
        search={**search, **entries(arm, "search")},
        tuned=arm.get("tuned") or name,
        extra=arm.get("extra", 0.0),
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
    arms, every = entries(tasks[name], "arms"), found.get("overrides", [])
    faults = [f"{key}: not of a task with arms_of{nearest(str(key), OWN)}; expected " + ", ".join(OWN)
              for key in found if key not in ("arms_of", *OWN)]  # fmt: skip
    if list(entries(found, "seeds")) != ["reported"]:
        why = f"since arms are tuned and chosen on {name}"
        faults.append(f"seeds: expected those of reported alone, {why}, got {shown(found.get('seeds'))}")
    if not are(str, every) or not are(str, found.get("arms")):
        return [*faults, f"arms, overrides: expected lists, of arms of {name} and of overrides that all of them get"]
    faults += [f"arms: no arm {each!r} of {name}{nearest(str(each), list(arms))}"
               for each in found["arms"] if each not in arms]  # fmt: skip
    return faults + [
        f"overrides: {text!r} and arms.{each} of {name}, {own!r}, set the same key; expected one of them"
        for each in found["arms"]
        for own, text in product(entries(arms, each).get("overrides", ()), every)
        if key_of(own) == key_of(text)
    ]


def key_of(override: str) -> str:
    return override.partition("=")[0]
