"""What is wrong with the protocol of a task in arms.yml."""

import math
import re
from collections.abc import Mapping
from itertools import combinations
from typing import Any

from rrl.errors import nearest, shown

STAGES = ("tuning", "choosing", "reported")
KINDS = ("baseline", "rule", "control", "bound")
"""Of arms: PPO; a rule for choosing states; what a rule must beat; what uses the truth."""
OWN = ("experiment", "budget", "judged", "level", "seeds", "arms", "overrides")
"""What a task may say of its own, beside ``arms_of``, where it takes arms of another; a mapping less than a task."""
OF_TASK = ("experiment", "budget", "judged", "level", "trials", "random", "search_seed", "seeds", "search", "arms")
OF_ARM = ("kind", "control", "overrides", "search", "tuned", "extra")
SHARED = ("replay", "uniform", "bounds")
"""Of a task beside its own keys: what its arms refer to."""


def faults_of(found: Mapping[str, Any], taking: tuple[str, ...]) -> list[str]:
    """Every fault of a task, which may have the keys ``taking`` beside the usual ones; none where it is sound."""
    return [
        *_unknown("", found, (*OF_TASK, *SHARED, *taking)),
        *_of_values(found),
        *_of_seeds(found),
        *_of_arms(entries(found, "arms")),
    ]


def entries(found: Mapping[str, Any], key: str) -> dict[str, Any]:
    """The mapping under a key; an empty one where there is none."""
    value = found.get(key)
    return value if isinstance(value, dict) else {}


def are(kind: type, values: Any) -> bool:
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
    seeds = entries(found, "seeds")
    lists = {stage: seeds.get(stage) for stage in STAGES}
    wrong = [
        *_unknown("seeds.", seeds, STAGES),
        *(
            f"seeds.{stage}: expected a list of whole numbers, each once, got {shown(each)}"
            for stage, each in lists.items()
            if not are(int, each) or not each or len(set(each)) < len(each)
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
    if not are(str, overrides):
        faults.append(f"{where}overrides: expected a list of overrides, got {shown(overrides)}")
    if type(extra := arm.get("extra", 0)) not in (int, float) or not 0 <= extra < math.inf:
        faults.append(f"{where}extra: expected a share of a step's work, from 0, as in 0.2, got {shown(extra)}")
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
