"""From YAML to checked objects: the only file in which a configuration becomes code.

A mapping with ``_target_`` names a class; its other keys are the arguments of the constructor, which checks ranges
and loads nothing. So a configuration is checked by building all of it, and every fault is reported at once.
"""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from inspect import getattr_static
from typing import Any, get_args, get_type_hints

from rrl.config.binding import BROKEN, Binder, Source
from rrl.config.choices import group_names, walk
from rrl.config.compose import Composed, compose, compose_run
from rrl.config.effects import collected, takers_of, without_effect
from rrl.config.needs import critic_readers, sibling_readers, task_misfits, untested
from rrl.contracts.breaches import items, typed_repr
from rrl.contracts.calling import calling, named
from rrl.contracts.judging import Judge, RewardModelTrainer
from rrl.errors import ConfigError, ContractError, shown
from rrl.interfaces import Objective, Reward, RolloutEngine, StateSampler, Task
from rrl.processes.launch import Launcher
from rrl.records.run_directory import Place, RunSettings
from rrl.records.secrecy import exposed_secrets
from rrl.records.status import finished_run
from rrl.records.tracking import Sink
from rrl.training.evaluation import Evaluation
from rrl.training.loop import LoopSettings
from rrl.training.models import Model
from rrl.training.policy_settings import PolicySettings
from rrl.training.preference_pairs import PairChoice
from rrl.training.prompts import Prompts
from rrl.training.warm_start import WarmStart

log = logging.getLogger(__name__)


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
    judge: Judge | None


@dataclass(frozen=True)
class RewardModelParts:
    """The components of the training of a reward model, likewise."""

    task: Task
    model: Model
    fit: RewardModelTrainer
    pairs: PairChoice
    run: Place


PARTS: dict[str, type[Any]] = {"train": Parts, "evaluate": Parts, "train_reward_model": RewardModelParts}
"""By the name of the configuration."""
SLOTS = tuple(field.name for field in fields(Parts))
KEPT = ("algo", "data", "seed")
"""Keys that every configuration keeps."""
SHARED = ("data", "reward_model", "sandbox", "template", "seed", "start_seed")
"""Keys of a reward model's configuration that are no part but values for parts."""
UNUSED = {
    "train": ("judge",),
    "evaluate": ("policy", "trainer", "sampler", "reward", "objective", "logger", "launcher"),
}
"""Parts that are checked but not used, by the name of the configuration."""
STARTING = ("task", "engine")
"""What is at work in most commands."""
OPTIONAL = ("warmstart", "logger", "judge")


def load(
    name: str, overrides: Sequence[str], run: str | None = None, *, starting: Collection[str] = STARTING
) -> tuple[dict[str, Any], Any]:  # fmt: skip
    """The configuration ``conf/<name>.yaml``, or that of the directory ``run``, under ``overrides``, and its parts.

    ``starting`` are the parts that will be at work, whose ``faults`` on this machine count. Raises one ConfigError with
    all faults.
    """
    kind = PARTS[name]
    only = None if kind is Parts else (*(field.name for field in fields(kind)), *SHARED)
    composed = compose(name, overrides, only) if run is None else compose_run(finished_run(run), overrides)
    used = [field.name for field in fields(kind) if field.name not in UNUSED.get(name, ())]
    return checked(composed, kind, used, starting=starting)


def checked(
    composed: Composed, kind: type[Any] = Parts, used: Sequence[str] = SLOTS, *, starting: Collection[str] = STARTING
) -> tuple[dict[str, Any], Any]:  # fmt: skip
    """The configuration, without what no part takes, and its parts, of which some are ``used``.

    Raises one ConfigError with all faults.
    """
    faults = [*composed.faults, *exposed_secrets(dict(walk(composed.config)))]
    parts, taken = _bound(composed.config, faults, kind, starting=starting)
    for text in idle(composed, parts, taken, used):
        _warn(text)
    needed = {*KEPT, *(key.partition(".")[0] for keys in taken.values() for key in keys)}
    slots = [field.name for field in fields(kind)]
    config = {key: value for key, value in composed.config.items() if key in needed or key in slots}
    known = group_names()  # an absent one is null; a null key of a user's own is needed as it is
    return {key: value for key, value in config.items() if value is not None or key not in known}, parts


def idle(composed: Composed, parts: Any, taken: Mapping[str, Collection[str]], used: Sequence[str]) -> list[str]:
    """A message for each given key without effect: no ``used`` part reads it, or its part's ``idle`` says so.

    ``taken`` are the keys that each part takes by name.
    """
    read = [*used, *(key for slot in used for key in taken.get(slot, ()))]
    takers = {key: takers_of(key, used)[:6] for key in without_effect(composed.given, composed.values, read)}
    remedies = {key: f"; {', '.join(choices)} would" if choices else "" for key, choices in takers.items()}
    reasons = {f"{path}.{key}": why for path, keys in collected(parts, "idle") for key, why in keys.items()}
    return [
        *(f"{key}: without effect; nothing in use reads it{remedy}" for key, remedy in remedies.items()),
        *(f"{key}: without effect; {reasons[key]}" for key in composed.given if key in reasons),
    ]


@cache
def _warn(text: str) -> None:
    """Warn once in a process, however many variants of a configuration it checks."""
    log.warning("%s", text)


def check(config: Mapping[str, Any]) -> Any:
    """The parts of a run's resolved configuration; raises one ConfigError with all faults."""
    return _bound(config, [], Parts)[0]


def _bound(
    config: Mapping[str, Any], faults: list[str], kind: type[Any], *, starting: Collection[str] = STARTING
) -> tuple[Any, dict[str, set[str]]]:  # fmt: skip
    """The parts of a resolved configuration, and the keys that each takes by name.

    Raises one ConfigError with all faults, the given ones included.
    """
    hints = get_type_hints(kind)
    slots = [field.name for field in fields(kind)]
    shared, taken = _shared(config, slots), dict[str, set[str]]()
    made: dict[str, Any] = dict.fromkeys(slots)
    for slot in [slot for slot in slots if slot in config]:
        binder = Binder(faults, shared)
        made[slot], taken[slot] = _slot(config[slot], slot, hints[slot], binder), binder.taken
    parts = kind(**made)
    if kind is Parts:
        faults += _misfits(parts)
    replaced = {"task"} if config.get("judge") is not None else set()  # a judge takes the task's place
    for slot in [slot for slot in starting if made.get(slot) is not None and slot not in replaced]:
        with calling(slot, made[slot], "faults"):
            faults += items(made[slot], "faults", made[slot].faults(), str)
    if faults:
        raise ConfigError(*dict.fromkeys(faults))
    return parts, taken


def _shared(config: Mapping[str, Any], slots: Collection[str]) -> dict[str, Source]:
    """The values that parts take by name: of ``data``, of top-level keys that are no part, null for absent groups."""
    data = config.get("data") or {}
    names = [name for name in (*group_names(), *config) if name not in (*slots, "data")]
    return {
        **{name: Source("data.", name, data) for name in data},
        **{name: Source("", name, config) for name in names},
    }


def _slot(value: Any, slot: str, hint: Any, binder: Binder) -> Any:
    """The part, or None where there is none."""
    faults = binder.faults
    if value is None and slot in OPTIONAL:
        return None
    if not isinstance(value, Mapping) or "_target_" not in value:
        faults.append(f"{slot}: expected a part with a _target_, got {shown(value)}")
        return None
    made = binder.make(value, slot)
    if made is BROKEN:
        return None
    lacking = ", ".join(name for name in _required_names(hint) if getattr_static(made, name, BROKEN) is BROKEN)
    incomplete = f"{slot}: {type(made).__name__} has no {lacking}; expected a {slot} (docs/adding-a-part.md)"
    wrong = [incomplete] if lacking else _misstated(made, slot)
    faults += wrong
    return None if wrong else made


def _misstated(part: Any, slot: str) -> list[str]:
    """Faults of a part's statements about itself (``needs``, ``gives``, ``needs_critic``) of another type."""
    faults: list[str] = []
    for name in [name for name in dir(part) if name in ("needs", "gives") or name.startswith("needs_")]:
        try:
            with calling(slot, part, name):
                value = getattr(part, name)
        except ContractError as error:
            faults += error.faults
            continue
        names = isinstance(value, set | frozenset) and all(isinstance(each, str) for each in value)
        if not (isinstance(value, bool | None) if name.startswith("needs_") else names):
            expected = "true or false" if name.startswith("needs_") else "a set of names"
            faults.append(f"{slot}: {named(part, name)} is {typed_repr(value)}; expected {expected}; fix this class")
    return faults


def _required_names(hint: Any) -> list[str]:
    """The public names of a part's Protocol."""
    wanted = next(kind for kind in (*get_args(hint), hint) if kind is not type(None))
    if not getattr(wanted, "_is_protocol", False):
        return []
    return [name for name in dir(wanted) if not name.startswith("_") or (name == "__call__" and name in vars(wanted))]


def _misfits(parts: Parts) -> list[str]:
    """Faults of combinations of components that are each valid."""
    faults = []
    if parts.objective is not None and parts.policy is not None:
        critic = parts.policy.critic is not None
        if parts.objective.needs_critic and not critic:
            faults.append("critic: none, but this objective trains a critic; use critic=own or critic=shared")
        if critic and not parts.objective.needs_critic:
            faults.append("critic: there is one, but this objective trains no critic; use critic=none")
        if parts.sampler is not None and not parts.objective.needs_critic:
            faults += critic_readers(parts.sampler)
        if parts.sampler is not None and not parts.objective.needs_siblings:
            faults += sibling_readers(parts.sampler, parts.objective)
    if (taken := getattr(parts.trainer, "old_log_prob", None)) is not None:  # not every trainer has one
        faults += taken.misfits(parts.engine, parts.policy, parts.objective, parts.sampler)
    if parts.logger is not None:
        faults += parts.logger.check()
    faults += _unfit_engine(parts) + task_misfits(parts) + untested(parts)
    return faults + _unannotated(parts) + _length_misfits(parts)


def _unfit_engine(parts: Parts) -> list[str]:
    """Faults of an engine that cannot write for this training."""
    if (trainer := parts.trainer) is None or (engine := parts.engine) is None:
        return []
    greedy = "engine.temperature: 0 is greedy and explores nothing; expected a number > 0 for training"
    faults = [greedy] if engine.sampling.temperature == 0 else []
    return faults + (trainer.ahead_faults(parts.objective) if engine.ahead else [])


def _unannotated(parts: Parts) -> list[str]:
    """Faults of parts that read the policy's scores of its rollouts, under a loop that does not compute them."""
    if parts.trainer is None or parts.trainer.annotates:
        return []
    made = [(slot, getattr(parts, slot)) for slot in ("sampler", "objective")]
    return [
        f"{slot}: {type(part).__name__} reads the policy's log-probabilities or values of its rollouts, which "
        f"{type(parts.trainer).__name__} does not compute; expected {slot}={fitting}, or another trainer"
        for (slot, part), fitting in zip(made, ("problems", "supervised"), strict=True)
        if part is not None and part.needs_annotation
    ]


def _length_misfits(parts: Parts) -> list[str]:
    """Faults of parts for which a step or the training has the wrong size."""
    faults: list[str] = []
    if parts.trainer is None:
        return faults
    if parts.objective is not None and parts.objective.needs_siblings:
        faults += parts.trainer.sibling_faults()
    schedule = "constant" if parts.policy is None else parts.policy.lr_schedule
    if schedule != "constant" and not parts.trainer.knows_length:
        faults.append(
            f"policy.lr_schedule: {schedule!r} falls to zero over trainer.total_training_steps, which is null; "
            "give a number of steps, or use constant"
        )
    return faults
