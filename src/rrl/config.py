"""From YAML to checked objects: the only file that knows how a configuration becomes code.

A mapping with ``_target_`` names a class; its other keys are the arguments of the constructor, which checks ranges
and loads nothing. So a configuration is checked by building all of it, and every fault is reported at once.
"""

import importlib
import inspect
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from rrl.errors import ConfigError
from rrl.overrides import compose, compose_run, nearest

SLOTS = (
    "task", "model", "prompts", "warmstart", "policy", "engine", "trainer", "evaluation", "sampler", "reward",
    "objective", "logger", "run",
)  # fmt: skip


@dataclass(frozen=True)
class Parts:
    """The components of a run, constructed and checked but not started; None where the slot is empty."""

    task: Any
    model: Any
    prompts: Any
    warmstart: Any
    policy: Any
    engine: Any
    trainer: Any
    evaluation: Any
    sampler: Any
    reward: Any
    objective: Any
    logger: Any
    run: Any


def load(name: str, overrides: Sequence[str], run: str | None = None) -> tuple[dict[str, Any], Parts]:
    """The configuration ``conf/<name>.yaml``, or that of the directory ``run``, under ``overrides``, and its parts.

    Raises one ConfigError with all faults.
    """
    config, faults = compose(name, overrides) if run is None else compose_run(Path(run).expanduser(), overrides)
    return config, check(config, faults)


def check(config: Mapping[str, Any], faults: Sequence[str] = ()) -> Parts:
    """Build every component that a resolved configuration has; raise one ConfigError with all faults.

    ``faults`` are those found before.
    """
    faults = list(faults)
    made = {slot: _make(config[slot], slot, faults) for slot in SLOTS if slot in config}
    parts = Parts(**{slot: made.get(slot) for slot in SLOTS})
    if not faults:
        faults = _misfits(parts)
    if faults:
        raise ConfigError(*faults)
    return parts


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
    return faults


def _make(value: Any, path: str, faults: list[str]) -> Any:
    """The value with every ``_target_`` mapping in it turned into its object."""
    if isinstance(value, Mapping):
        if "_target_" in value:
            return _construct(value, path, faults)
        return {key: _make(item, f"{path}.{key}", faults) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return tuple(_make(item, f"{path}[{i}]", faults) for i, item in enumerate(value))
    return value


def _construct(node: Mapping[str, Any], path: str, faults: list[str]) -> Any:
    target = _load(str(node["_target_"]), path, faults)
    known = len(faults)
    arguments = {key: _make(item, f"{path}.{key}", faults) for key, item in node.items() if key != "_target_"}
    if target is None:
        return None
    faults += _binding_faults(target, arguments, path)
    if len(faults) > known:
        return None
    try:
        return target(**arguments)
    except ValueError as error:
        faults.append(f"{path}.{error}")
        return None


def _load(name: str, path: str, faults: list[str]) -> Any:
    module, _, attribute = name.rpartition(".")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        faults.append(f"{path}._target_: {name!r} cannot be imported ({error}); expected package.module.Class")
        return None


def _binding_faults(target: Any, arguments: Mapping[str, Any], path: str) -> list[str]:
    """Arguments that are missing, unknown or of another type than the signature says."""
    parameters = inspect.signature(target).parameters
    hints = typing.get_type_hints(target.__init__)
    faults = [f"{path}.{key}: missing; {target.__name__} needs it" for key in parameters if key not in arguments]
    for key, value in arguments.items():
        if key not in parameters:
            hint = nearest(key, list(parameters))
            faults.append(f"{path}.{key}: {target.__name__} takes no such argument{hint}")
        elif not _fits(value, hints.get(key, Any)):
            expected = _spell(hints[key])
            faults.append(f"{path}.{key}: expected {expected}, got {value!r}")
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
        return isinstance(value, dict) and all(_fits(item, arguments[1]) for item in value.values())
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint in (str, bool, type(None)):
        return isinstance(value, hint)
    return hint is Any or not isinstance(value, str | int | float | dict | tuple | None)


def _spell(hint: Any) -> str:
    """The annotation in a user's words."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(_spell(option) for option in arguments)
    if origin is Literal:
        return " | ".join(repr(option) for option in arguments)
    if origin is tuple:
        return f"a list of {_spell(arguments[0])}"
    if origin is dict:
        return f"a mapping of names to {_spell(arguments[1])}"
    return {type(None): "null"}.get(hint, getattr(hint, "__name__", str(hint)))
