"""The plan of a run before its start: data, steps, parameters, checkpoints and memory."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from rrl.config.check import Parts
from rrl.contracts import border, examining
from rrl.contracts.breaches import contract_error, typed_repr
from rrl.contracts.calling import calling
from rrl.preflight import capacity, cards, memory
from rrl.preflight.capacity import Disk, Here, Phase
from rrl.preflight.cards import Fit
from rrl.preflight.cautions import cautions
from rrl.preflight.memory import Need
from rrl.processes.machine import in_words
from rrl.records.run_directory import cache
from rrl.records.secrecy import redacted
from rrl.records.texts import one_line
from rrl.training.course import Between, Course, some
from rrl.training.models import LoadedModel
from rrl.training.networks import on_meta
from rrl.training.policy_settings import OwnCritic, PolicySettings, SharedCritic
from rrl.training.prepared import Prepared, check_levels, encode
from rrl.types import Problem


@dataclass(frozen=True)
class Plan:
    """The content of ``dry_run=true``: problems by split, the course of training, memory and disk in bytes."""

    folder: Path
    problems: Mapping[str, Sequence[Problem]]
    course: Course
    of_a_step: Sequence[str]
    evaluations: str
    checkpoints: Between
    need: Need
    disk: Disk
    phases: Sequence[Phase]
    smallest: Fit | None
    warnings: Sequence[str]


def plan(config: Mapping[str, Any], parts: Parts) -> Plan:
    """Read the data and count, without allocating the model or writing anything.

    Raises the faults in configuration and data that a start would raise.
    """
    folder = parts.run.choose(f"{config['data']['name']}-{config['algo']}")
    prepared = before_warm_start(parts, parts.model.outline if parts.policy.lora else parts.model.sketch)
    return lay_out(config, parts, folder, prepared, capacity.look_around())


def before_warm_start(
    parts: Parts, load: Callable[[tuple[str, ...] | None], LoadedModel], *, training: bool = True
) -> Prepared:  # fmt: skip
    """The problems, those to train on only if ``training``, and the model that ``load`` makes for a vocabulary."""
    if parts.warmstart is not None:
        cache()
    longest = parts.engine.sampling.max_new_tokens
    examples = border.examples(parts.task, "train") if training else []
    if training:
        check_levels(examples, getattr(parts.sampler, "level_weights", None))
    held_out = border.examples(parts.task, parts.evaluation.split)
    vocabulary = border.vocabulary(parts.task)
    if getattr(parts.engine, "tensor_parallel_size", 1) > 1:
        capacity.refuse_indivisible(parts, parts.model.outline(vocabulary).model.config)
    loaded = load(vocabulary)
    train = encode(examples, loaded, parts.prompts, longest) if training else []
    test = parts.evaluation.choose(encode(held_out, loaded, parts.prompts, longest))
    return Prepared(loaded.model, loaded.tokenizer, train, test, None, None)


def lay_out(config: Mapping[str, Any], parts: Parts, folder: Path, prepared: Prepared, here: Here) -> Plan:
    """The plan for data that are read, on this machine; adapters are added to the model itself."""
    train, test, every = prepared.train, prepared.test, parts.run
    need = capacity.need(config, parts, prepared.model, train, test)
    likely, longest = fmean(len(problem.reference) for problem in train) or None, parts.engine.sampling.max_new_tokens
    expense = examining.expense("sampler", parts.sampler, longest)
    expense += examining.expense("objective", parts.objective, parts.trainer.sequences, longest)
    more = {"expense": expense} if expense else {}  # a trainer of a user's own need not know it
    with calling("trainer", parts.trainer, "course"):
        course = parts.trainer.course(len(train), longest, likely, **more)
    if not isinstance(course, Course):
        raise contract_error(parts.trainer, "course", typed_repr(course), "a Course")
    checkpoints, evaluations = course.checkpoints(every.save_freq), course.evaluations(every.test_freq)
    disk = capacity.disk_use(parts, need, checkpoints.most, folder)
    phases = capacity.phases(need, parts.launcher.num_processes, here)
    smallest = cards.smallest(config, parts, need, parts.evaluation.responses(len(test)))
    shortages = capacity.shortages(phases, disk, config, need.processes)
    written = some(parts.evaluation.responses(len(test)), "response")
    passed = _passed(parts.trainer.mini_batch, need.processes, parts.policy)
    return Plan(
        folder=folder,
        problems={"train": train, parts.evaluation.split: test},
        course=course,
        of_a_step=[*course.of_a_step, passed],
        evaluations=f"{_between(evaluations, 'evaluation')} of {written}",
        checkpoints=checkpoints,
        need=need,
        disk=disk,
        phases=phases,
        smallest=smallest,
        warnings=[
            *shortages,
            *capacity.too_small_a_share(need, config, phases),
            *_missing_weights(config),
            *cautions(parts, course),
        ],
    )


def at_start(config: Mapping[str, Any], parts: Parts, folder: Path, prepared: Prepared, here: Here) -> list[str]:
    """The plan in a few lines, for the start of a run; the model is not changed.

    A plan is a convenience: where it fails, with a user's own parts, the failure is reported and the run starts.
    """
    try:
        return in_short(lay_out(config, parts, folder, replace(prepared, model=on_meta(prepared.model)), here))
    except Exception as error:
        return [f"plan: none could be made ({redacted(one_line(error))})"]


def _passed(mini_batch: int, processes: int, settings: PolicySettings) -> str:
    """The division of a mini-batch into micro-batches."""
    split = settings.split(math.ceil(mini_batch / processes))
    return f"mini-batch: {some(mini_batch, 'sequence')} = {some(processes, 'process')} x {split}"


def _missing_weights(config: Mapping[str, Any]) -> list[str]:
    """A warning for a local model without weights, which only a start would detect."""
    folder = Path(str(config["model"].get("path"))).expanduser()
    if not folder.is_dir() or any(folder.glob("*.safetensors")) or any(folder.glob("*.bin")):
        return []
    return [f"model.path: {str(folder)!r} holds no weights; a start will need them"]


def plan_text(plan: Plan) -> str:
    parts = {
        "problems": [_problems_line(split, problems) for split, problems in plan.problems.items()],
        "a step": plan.of_a_step,
        "training": _training_lines(plan),
        "parameters": _parameter_lines(plan.need),
        "memory": _memory_lines(plan.phases),
        "fits on": [_machine_line(plan.smallest)],
        "ZeRO stages": _stage_lines(plan.need),
    }
    rows = [f"{label if i == 0 else '':12} {line}" for label, lines in parts.items() for i, line in enumerate(lines)]
    rows += [f"warning: {warning}" for warning in plan.warnings]
    return "\n".join([f"plan of {plan.folder}; nothing was started, nothing was written", "", *rows])


def in_short(plan: Plan) -> list[str]:
    """The plan in a few lines: sizes of a step, length of training, memory by phase, warnings."""
    steps = f"{_between(plan.course.steps, 'step')}, {_between(plan.course.optimised, 'optimiser step')}"
    sizes = ", ".join(f"{phase.name} {in_words(phase.total)} of {in_words(phase.room.free)}" for phase in plan.phases)
    return [
        *(f"plan: {line}" for line in plan.of_a_step),
        f"plan: {steps}, {plan.course.tokens:,} new tokens at most, {plan.evaluations}, "
        f"{_between(plan.checkpoints, 'checkpoint')}",
        f"plan: memory of each process, estimated, of the free memory: {sizes}",
        *(f"warning: {warning}" for warning in plan.warnings),
    ]


def _problems_line(split: str, problems: Sequence[Problem]) -> str:
    """Numbers by level, and lengths."""
    levels = Counter(problem.level for problem in problems)
    prompts = [len(problem.prompt) for problem in problems]
    return (
        f"{split}: {len(problems):,} ({', '.join(f'{name} {n:,}' for name, n in levels.items())}); tokens: prompts "
        f"{min(prompts)} to {max(prompts)}, references {fmean(len(each.reference) for each in problems):.1f} on average"
    )


def _training_lines(plan: Plan) -> list[str]:
    """Steps, tokens, evaluations, checkpoints; bounds where only tokens are limited."""
    steps, disk = _between(plan.course.steps, "step"), plan.disk
    return [
        f"{steps} -> {_between(plan.course.optimised, 'optimiser step')}",
        *(["in brackets: for responses as long as references"] if "(" in steps else []),
        f"{plan.course.tokens:,} new tokens at most; a response has {plan.need.longest_response} at most",
        plan.evaluations,
        f"{_between(plan.checkpoints, 'checkpoint')} of {in_words(disk.size)}, {disk.kept} kept: on disk "
        f"{in_words(disk.total)} at most, of {in_words(disk.free)} free",
    ]


def _between(number: Between, thing: str) -> str:
    if number.least == number.most:
        return some(number.least, thing)
    likely = "" if number.likely is None else f" ({number.likely:,})"
    return f"{number.least:,} to {number.most:,}{likely} {thing}s"


def _parameter_lines(need: Need) -> list[str]:
    critic = {OwnCritic: "a network of its own", SharedCritic: "a head on the actor's trunk", type(None): "none"}
    base = "the actor's frozen base" if need.settings.lora else "none"
    return [
        *(f"{one.name}: {one.trained:,} trained, {one.frozen:,} frozen" for one in need.networks),
        f"critic: {critic[type(need.settings.critic)]}; reference: "
        + (f"a frozen copy of {need.whole:,}" if need.reference else base),
    ]


def _memory_lines(phases: Sequence[Phase]) -> list[str]:
    """Each phase with its parts, the largest first."""
    lines = ["of each process: needed (estimated), free now, and the parts"]
    for phase in phases:
        sizes = sorted(phase.parts.items(), key=lambda part: -part[1])
        parts = ", ".join(f"{name} {in_words(size)}" for name, size in sizes if size)
        lines.append(f"{phase.name:12} {in_words(phase.total):>9} {in_words(phase.room.free):>9}  {parts}")
    return lines


def _machine_line(smallest: Fit | None) -> str:
    machines = ", ".join(f"{count} x {size}" for count, size in cards.MACHINES)
    return f"{smallest or 'none'}; the smallest of {machines} GiB"


def _stage_lines(need: Need) -> list[str]:
    """The memory at each ZeRO stage."""
    lines = [f"{some(need.processes, 'process')} in {need.settings.dtype}: states at rest, update"]
    for there in memory.by_stage(need):
        rest, update = memory.at_rest(there), sum(memory.update_actor(there).values())
        chosen = " chosen" if there == need else ""
        lines.append(f"{there.settings.zero_stage} {in_words(rest):>9} {in_words(update):>9}{chosen}")
    return lines
