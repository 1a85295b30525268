"""From YAML to checked objects: the only file that knows how a configuration becomes code.

A mapping with ``_target_`` names a class; its other keys are the arguments of the constructor, which checks ranges
and loads nothing. So a configuration is checked by building all of it, and every fault is reported at once.
"""

import importlib
import inspect
import math
import re
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from rrl.choices import targets
from rrl.errors import ConfigError, shown
from rrl.evaluation import Evaluation
from rrl.interfaces import Objective, Reward, RolloutEngine, StateSampler, Task
from rrl.launch import Launcher
from rrl.loop import LoopSettings
from rrl.models import Model
from rrl.overrides import Composed, compose, compose_run
from rrl.policy_settings import PolicySettings
from rrl.prompts import Prompts
from rrl.rundir import RunSettings
from rrl.sft import WarmStart
from rrl.spelling import nearest
from rrl.tracking import Sink


@dataclass(frozen=True)
class Parts:
    """The components of a run, constructed and checked but not started; None where the slot is empty."""

    task: Task
    model: Model
    prompts: Prompts
    warmstart: WarmStart | None
    policy: PolicySettings
    engine: RolloutEngine
    trainer: LoopSettings
    evaluation: Evaluation
    sampler: StateSampler
    reward: Reward
    objective: Objective
    logger: Sink | None
    launcher: Launcher
    run: RunSettings


SLOTS = tuple(field.name for field in fields(Parts))
OPTIONAL = ("warmstart", "logger")
BROKEN = object()
"""Stands for a part that could not be constructed: told already, so it fits everywhere."""


def load(name: str, overrides: Sequence[str], run: str | None = None) -> tuple[dict[str, Any], Parts]:
    """The configuration ``conf/<name>.yaml``, or that of the directory ``run``, under ``overrides``, and its parts.

    Raises one ConfigError with all faults.
    """
    return checked(compose(name, overrides) if run is None else compose_run(Path(run).expanduser(), overrides))


def checked(composed: Composed) -> tuple[dict[str, Any], Parts]:
    """The configuration and its parts. Raises one ConfigError with all faults."""
    try:
        return composed.config, check(composed.config, composed.faults, composed.sound)
    except ConfigError as error:
        raise ConfigError(*dict.fromkeys(map(composed.at_source, error.faults))) from None


def check(config: Mapping[str, Any], faults: Sequence[str] = (), sound: Mapping[str, Any] | None = None) -> Parts:
    """Build every component that a resolved configuration has; raise one ConfigError with all faults.

    ``faults`` are those found before. ``sound`` is a configuration whose values stand in for faulty ones, so that the
    next fault of the same component is found too.
    """
    faults = list(faults)
    made: dict[str, Any] = dict.fromkeys(SLOTS)
    made |= {slot: _slot(config[slot], slot, faults, sound or {}) for slot in SLOTS if slot in config}
    parts = Parts(**made)
    faults += _misfits(parts)
    if faults:
        raise ConfigError(*faults)
    return parts


def _slot(value: Any, slot: str, faults: list[str], sound: Mapping[str, Any]) -> Any:
    """The part, or None where there is none."""
    if value is None and slot in OPTIONAL:
        return None
    if not isinstance(value, Mapping) or "_target_" not in value:
        faults.append(f"{slot}: expected a part with a _target_, got {shown(value)}")
        return None
    made = _make(value, slot, faults, sound.get(slot))
    return None if made is BROKEN else made


def _misfits(parts: Parts) -> list[str]:
    """Faults between components that are each in order."""
    faults = []
    if parts.objective is not None and parts.policy is not None:
        critic = parts.policy.critic != "none"
        if parts.objective.needs_critic and not critic:
            faults.append("policy.critic: 'none', but this objective trains a critic; use own or shared")
        if critic and not parts.objective.needs_critic:
            faults.append(f"policy.critic: {parts.policy.critic!r}, but this objective trains no critic; use none")
        if parts.sampler is not None and parts.sampler.needs_critic and not parts.objective.needs_critic:
            faults.append(
                "sampler: its selection rule reads the critic, which this objective does not train; "
                "use selection=confidence or objective=ppo"
            )
    if parts.trainer is not None and parts.engine is not None and parts.engine.sampling.temperature == 0:
        faults.append("engine.temperature: 0 is greedy and explores nothing; expected a number > 0 for training")
    if parts.logger is not None:
        faults += parts.logger.check()
    return faults + _needs(parts) + _unannotated(parts) + _length_misfits(parts)


def _unannotated(parts: Parts) -> list[str]:
    """Faults of parts that learn from what a policy thought of its rollouts, under a loop that does not ask it."""
    if parts.trainer is None or parts.trainer.annotates:
        return []
    made = [(slot, getattr(parts, slot)) for slot in ("sampler", "objective")]
    return [
        f"{slot}: {type(part).__name__} learns from what the policy thought of its rollouts, which "
        f"{type(parts.trainer).__name__} does not ask; expected {slot}={fitting}, or another trainer"
        for (slot, part), fitting in zip(made, ("problems", "supervised"), strict=True)
        if part is not None and part.needs_annotation
    ]


def _needs(parts: Parts) -> list[str]:
    """Faults of parts that count on more than the task gives, with the tasks that would do."""
    faults = []
    for slot in ("reward", "objective", "trainer"):
        part = getattr(parts, slot)
        if part is not None and parts.task is not None and not part.needs <= parts.task.gives:
            lacking = " and ".join(sorted(part.needs - parts.task.gives))
            names = [option for option, gives in _tasks().items() if part.needs <= gives]
            faults.append(
                f"{slot}: {type(part).__name__} needs {lacking}, which the task {type(parts.task).__name__} does not "
                f"give; expected task={'|'.join(names)}, or another {slot}"
            )
    return faults


def _tasks() -> dict[str, frozenset[str]]:
    """What each task gives beyond a score."""
    classes = {option: _load(target, "task", []) for option, target in targets("task").items()}
    return {option: found.gives for option, found in classes.items() if found is not None}


def _length_misfits(parts: Parts) -> list[str]:
    """Faults between the sizes of a step or of training and what depends on them."""
    faults: list[str] = []
    if parts.trainer is None:
        return faults
    if parts.objective is not None and parts.objective.needs_siblings and parts.trainer.n == 1:
        faults.append("trainer.n: 1, but this objective compares rollouts of one start; expected 2 or more, as in 8")
    schedule = "constant" if parts.policy is None else parts.policy.lr_schedule
    if schedule != "constant" and not parts.trainer.knows_length:
        faults.append(
            f"policy.lr_schedule: {schedule!r} falls to zero over trainer.total_training_steps, which is null; "
            "give a number of steps, or use constant"
        )
    return faults


def _make(value: Any, path: str, faults: list[str], sound: Any = None) -> Any:
    """The value with every ``_target_`` mapping in it turned into its object; ``sound`` is its counterpart."""
    if isinstance(value, Mapping):
        spare = sound if isinstance(sound, Mapping) else {}
        if "_target_" in value:
            return _construct(value, path, faults, spare)
        return {key: _make(item, f"{path}.{key}", faults, spare.get(key)) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return tuple(_make(item, f"{path}[{i}]", faults) for i, item in enumerate(value))
    return value


def _construct(node: Mapping[str, Any], path: str, faults: list[str], sound: Mapping[str, Any]) -> Any:
    target = _load(str(node["_target_"]), path, faults)
    known = len(faults)
    arguments = {k: _make(v, f"{path}.{k}", faults, sound.get(k)) for k, v in node.items() if k != "_target_"}
    if target is None:
        return BROKEN
    faults += _binding_faults(target, arguments, path)
    spare = {k: _make(v, path, []) for k, v in sound.items() if sound.get("_target_") == node["_target_"]}
    whole = _build(target, arguments, spare, path, faults)
    return whole if len(faults) == known else BROKEN


def _build(
    target: Any, arguments: Mapping[str, Any], spare: Mapping[str, Any], path: str, faults: list[str]
) -> Any:  # fmt: skip
    """The object. Arguments out of range are told and, to find the next, replaced by the spare ones."""
    arguments, replaced = _mended(target, arguments, spare)
    while arguments.keys() == inspect.signature(target).parameters.keys():
        try:
            return target(**arguments)
        except ValueError as error:
            if replaced & _words(str(error)):  # what was replaced may be what it complains about
                break
            faults.append(f"{path}.{error}")
            named = _words(str(error).partition(":")[0]) & spare.keys()
            if not named:
                break
            replaced |= named
            arguments |= {key: spare[key] for key in named}
    return BROKEN


def _mended(target: Any, arguments: Mapping[str, Any], spare: Mapping[str, Any]) -> tuple[dict[str, Any], set[str]]:
    """The arguments that bind, with spare ones for the others as far as there are any, and the names of those."""
    hints = typing.get_type_hints(target.__init__)
    names = list(inspect.signature(target).parameters)
    good = {
        key: arguments[key]
        for key in names
        if key in arguments and arguments[key] is not BROKEN and _fits(arguments[key], hints.get(key, Any))
    }
    other = {key: spare[key] for key in names if key not in good and key in spare}
    return {**good, **other}, set(other)


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text))


def _load(name: str, path: str, faults: list[str]) -> Any:
    module, _, attribute = name.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        faults.append(f"{path}._target_: {name!r} cannot be imported ({error}); expected package.module.Class")
        return None
    if not isinstance(found, type):
        faults.append(f"{path}._target_: {name!r} is no class; expected package.module.Class")
        return None
    return found


def _binding_faults(target: Any, arguments: Mapping[str, Any], path: str) -> list[str]:
    """Arguments that are missing, unknown or of another type than the signature says."""
    parameters = inspect.signature(target).parameters
    hints = typing.get_type_hints(target.__init__)
    faults = [f"{path}.{key}: missing; {target.__name__} needs it" for key in parameters if key not in arguments]
    for key, value in arguments.items():
        if key not in parameters:
            hint = nearest(key, list(parameters))
            faults.append(f"{path}.{key}: {target.__name__} takes no such argument{hint}")
        elif value is not BROKEN and not _fits(value, hints.get(key, Any)):
            finite = "a finite " if isinstance(value, float) and not math.isfinite(value) else ""
            faults.append(f"{path}.{key}: expected {finite}{_spell(hints[key])}, got {shown(value)}")
    return faults


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value is of the annotated type; an int serves as a float, a Protocol accepts any object."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return any(_fits(value, option) for option in arguments)
    if origin is Literal:
        return any(value == option and type(value) is type(option) for option in arguments)
    if origin is tuple:
        items = arguments[:1] * len(value) if isinstance(value, tuple) and Ellipsis in arguments else arguments
        return isinstance(value, tuple) and len(value) == len(items) and all(map(_fits, value, items))
    if origin is dict:
        pairs = value.items() if isinstance(value, dict) else [(None, None)]
        return all(_fits(key, arguments[0]) and _fits(item, arguments[1]) for key, item in pairs)
    if hint in (float, int):
        return _is_number(value, hint)
    if hint in (str, bool, type(None)):
        return isinstance(value, hint)
    return hint is Any or not isinstance(value, str | int | float | dict | tuple | None)


def _is_number(value: Any, kind: type) -> bool:
    whole = isinstance(value, int) and not isinstance(value, bool)
    return whole or (kind is float and isinstance(value, float) and math.isfinite(value))


def _spell(hint: Any) -> str:
    """The annotation in a user's words."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(_spell(option) for option in arguments)
    if origin is Literal:
        return " | ".join(repr(option) for option in arguments)
    if origin is tuple:
        count = "" if Ellipsis in arguments else f"{len(arguments)} "
        return f"a list of {count}{_spell(arguments[0])}"
    if origin is dict:
        return f"a mapping of names to {_spell(arguments[1])}"
    return {type(None): "null"}.get(hint, getattr(hint, "__name__", str(hint)))
