"""Faults of parts that need what the run lacks, by the name of the part within that needs it."""

from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import partial
from typing import Any

from rrl.config.choices import targets
from rrl.config.importing import load_class


def critic_readers(sampler: Any) -> list[str]:
    """The fault of a sampler that reads a critic, where none is trained."""
    if not sampler.needs_critic:
        return []
    path, part = _innermost("sampler", sampler, lambda part: getattr(part, "needs_critic", False) is True)
    other = "other keys of it" if path == "sampler" else "selection=confidence or largest_fall with of=logprob"
    return [
        f"{path}: {type(part).__name__} reads the critic, which this objective does not train; use objective=ppo, "
        f"{other}, or another sampler"
    ]


def sibling_readers(sampler: Any, objective: Any) -> list[str]:
    """The fault of a sampler that compares rollouts of one start, under an objective that does not."""
    if not sampler.needs_siblings:
        return []
    return [
        f"sampler: {type(sampler).__name__} compares rollouts of one start, {type(objective).__name__} does not; "
        "expected objective=grpo or rloo with trainer.n of 2 or more, as in 8, or another sampler, as in "
        "sampler=prompt_replay, by which problems come again"
    ]


def task_misfits(parts: Any) -> list[str]:
    """Faults of parts that need more than the task gives, with the tasks that give it."""
    faults = []
    for slot in ("reward", "sampler", "objective", "trainer"):
        whole = getattr(parts, slot)
        if whole is None or parts.task is None or whole.needs <= parts.task.gives:
            continue
        lacking = whole.needs - parts.task.gives
        path, part = _innermost(slot, whole, partial(_needs_some, lacking))
        classes = {option: load_class(nodes[0][0], "task", []) for option, nodes in targets("task").items()}
        names = [option for option, found in classes.items() if found and whole.needs <= found.gives]
        faults.append(
            f"{path}: {type(part).__name__} needs {' and '.join(sorted(lacking))}, which the task "
            f"{type(parts.task).__name__} does not give; expected task={'|'.join(names)}, or another "
            f"{path.rpartition('.')[2]}"
        )
    return faults


def untested(parts: Any) -> list[str]:
    """Faults of a reward that reads the results of tests, under a judge that runs no more after a failure."""
    if parts.reward is None or "programs" not in parts.reward.needs:
        return []
    if not getattr(getattr(parts.task, "judge", None), "stop_at_failure", False):
        return []
    return [
        f"task.judge.stop_at_failure: true, but {type(parts.reward).__name__} reads the results of all tests; expected "
        "false, or reward=verdict"
    ]


def _innermost(path: str, part: Any, needs: Callable[[Any], bool]) -> tuple[str, Any]:
    """The part within a part for whose sake it needs something, or itself; with its path."""
    names = [field.name for field in fields(part) if not field.name.startswith("_")] if is_dataclass(part) else []
    within = [(f"{path}.{name}", getattr(part, name, None)) for name in names]
    return next((_innermost(*inner, needs) for inner in within if needs(inner[1])), (path, part))


def _needs_some(names: frozenset[str], part: Any) -> bool:
    needs = getattr(part, "needs", None)
    return isinstance(needs, set | frozenset) and not names.isdisjoint(needs)
