"""The plan of a run before its start: what will be read, done, trained and saved, and the memory that it takes."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from rrl.config.check import Parts
from rrl.contracts import border
from rrl.preflight import capacity, forecast
from rrl.preflight.capacity import Disk, Here, Phase, Stage
from rrl.preflight.cautions import cautions
from rrl.preflight.forecast import Between, Course, Setting, some
from rrl.preflight.memory_by_phase import Lengths, Need
from rrl.processes.machine import in_words
from rrl.records.secrecy import redacted
from rrl.training.networks import on_meta
from rrl.training.prepared import Prepared, check_levels, encode
from rrl.types import Problem


@dataclass(frozen=True)
class SplitSummary:
    """The problems of a split: how many of each level, and the tokens of their prompts and references (0: none)."""

    split: str
    levels: Mapping[str, int]
    prompts: Sequence[int]
    references: Sequence[int]


@dataclass(frozen=True)
class Plan:
    """Everything that ``dry_run=true`` tells; sizes are in bytes."""

    folder: str
    train: SplitSummary
    test: SplitSummary
    course: Course
    evaluations: Between
    responses: int
    need: Need
    checkpoints: Between
    disk: Disk
    phases: Sequence[Phase]
    stages: Sequence[Stage]
    warnings: Sequence[str]


def plan(config: Mapping[str, Any], parts: Parts) -> Plan:
    """Read the data and count; the model is not allocated, and nothing is written.

    Raises what a start would raise of faults in configuration and data.
    """
    folder = parts.run.choose(f"{config['data']['name']}-{config['algo']}")
    if parts.warmstart is not None:
        parts.run.cache()
    problems = border.examples(parts.task, "train")
    check_levels(problems, config["sampler"].get("level_weights"))
    loaded = parts.model.outline(border.vocabulary(parts.task))
    longest = parts.engine.sampling.max_new_tokens
    train = encode(problems, loaded, parts.prompts, longest)
    examples = border.examples(parts.task, parts.evaluation.split)
    test = parts.evaluation.choose(encode(examples, loaded, parts.prompts, longest))
    prepared = Prepared(loaded.model, loaded.tokenizer, train, test, None, None)
    return lay_out(config, parts, folder, prepared, capacity.look_around())


def lay_out(config: Mapping[str, Any], parts: Parts, folder: Path, prepared: Prepared, here: Here) -> Plan:
    """The plan for data that are read, on a machine that has so much; adapters are put into the model itself."""
    train, test = _about("train", prepared.train), _about(parts.evaluation.split, prepared.test)
    longest = parts.engine.sampling.max_new_tokens
    responses = forecast.responses(parts.evaluation, len(test.prompts))
    need = capacity.need(config, parts, prepared.model, _lengths(train, test, longest), responses)
    phases = capacity.phases(need, parts.launcher.num_processes, here)
    likely = fmean(train.references)
    setting = Setting(parts.policy, need.world.processes, len(train.prompts), longest, likely)
    course, every = forecast.course(parts.trainer, setting), parts.run
    checkpoints = course.steps.over(lambda n: forecast.checkpoints(n, every.save_freq, course.milestones))
    disk = capacity.disk(parts, need, checkpoints.most, folder)
    return Plan(
        folder=str(folder),
        train=train,
        test=test,
        course=course,
        evaluations=course.steps.over(lambda n: forecast.evaluations(n, every.test_freq, course.milestones)),
        responses=responses,
        need=need,
        checkpoints=checkpoints,
        disk=disk,
        phases=phases,
        stages=capacity.stages(need),
        warnings=[
            *capacity.shortages(phases, config, need.world.processes),
            *capacity.full(disk),
            *_missing_weights(config),
            *cautions(parts, course),
        ],
    )


def at_start(config: Mapping[str, Any], parts: Parts, folder: Path, prepared: Prepared, here: Here) -> list[str]:
    """The plan in a few lines, for the start of a run, whose model is left as it is.

    A plan is a convenience: what cannot be planned, with parts of a user's own, is told and trained all the same.
    """
    try:
        return in_short(lay_out(config, parts, folder, replace(prepared, model=on_meta(prepared.model)), here))
    except Exception as error:
        return [f"plan: none could be made ({redacted(' '.join(f'{type(error).__name__}: {error}'.split()))})"]


def _about(split: str, problems: Sequence[Problem]) -> SplitSummary:
    levels = Counter(problem.level for problem in problems)
    return SplitSummary(split, levels, [len(p.prompt) for p in problems], [len(p.reference) for p in problems])


def _lengths(train: SplitSummary, test: SplitSummary, response: int) -> Lengths:
    prompts = (*train.prompts, *test.prompts)
    return Lengths(min(train.prompts), max(prompts), max(train.references), response)


def _missing_weights(config: Mapping[str, Any]) -> list[str]:
    """A local model without weights, which only a start would find out."""
    folder = Path(str(config["model"].get("path"))).expanduser()
    if not folder.is_dir() or any(folder.glob("*.safetensors")) or any(folder.glob("*.bin")):
        return []
    return [f"model.path: {str(folder)!r} holds no weights; a start will need them"]


def as_text(plan: Plan) -> str:
    """The plan for a person."""
    rows = [
        *_told("problems", _of_problems(plan)),
        *_told("a step", plan.course.of_a_step),
        *_told("training", _of_training(plan)),
        *_told("parameters", _of_parameters(plan.need)),
        *_told("memory", _of_memory(plan)),
        *_told("ZeRO stages", _of_stages(plan)),
        *(f"warning: {warning}" for warning in plan.warnings),
    ]
    return "\n".join([f"plan of {plan.folder}; nothing was started, nothing was written", "", *rows])


def in_short(plan: Plan) -> list[str]:
    """The plan in a few lines: sizes of a step, length of training, memory by phase, what to look out for."""
    steps = f"{_between(plan.course.steps)} steps, {_between(plan.course.optimised)} optimiser steps"
    sizes = ", ".join(f"{phase.name} {in_words(phase.total)} of {in_words(phase.room.free)}" for phase in plan.phases)
    return [
        *(f"plan: {line}" for line in plan.course.of_a_step),
        f"plan: {steps}, {plan.course.tokens:,} new tokens at most, {_between(plan.evaluations)} evaluations of "
        f"{some(plan.responses, 'response')}, {_between(plan.checkpoints)} checkpoints",
        f"plan: memory of each process, estimated, of what is free: {sizes}",
        *(f"warning: {warning}" for warning in plan.warnings),
    ]


def _told(label: str, lines: Sequence[str]) -> list[str]:
    return [f"{label if number == 0 else '':12} {line}" for number, line in enumerate(lines)]


def _of_problems(plan: Plan) -> list[str]:
    """How many of which level, and how long."""
    return [
        f"{split.split}: {len(split.prompts):,} ({', '.join(f'{name} {n:,}' for name, n in split.levels.items())}); "
        f"tokens: prompts {min(split.prompts)} to {max(split.prompts)}, references {fmean(split.references):.1f} on "
        "average"
        for split in (plan.train, plan.test)
    ]


def _of_training(plan: Plan) -> list[str]:
    """Steps, tokens, evaluations, checkpoints; bounds where only tokens are limited."""
    steps, disk = plan.course.steps, plan.disk
    return [
        f"{_between(steps)} steps -> {_between(plan.course.optimised)} optimiser steps",
        *(["in brackets: when responses are as long as references"] if "(" in _between(steps) else []),
        f"{plan.course.tokens:,} new tokens at most; a response has {plan.need.lengths.response} at most",
        f"{_between(plan.evaluations)} evaluations of {some(plan.responses, 'response')}",
        f"{_between(plan.checkpoints)} checkpoints of {in_words(disk.size)}, of which {disk.kept} stay: on disk "
        f"{in_words(disk.total)} at most, of {in_words(disk.free)} that are free",
    ]


def _between(number: Between) -> str:
    if number.least == number.most:
        return f"{number.least:,}"
    likely = "" if number.likely is None else f" ({number.likely:,})"
    return f"{number.least:,} to {number.most:,}{likely}"


def _of_parameters(need: Need) -> list[str]:
    critic = {"own": "a network of its own", "shared": "a head on the actor's trunk", "none": "none"}
    base = "the actor's frozen base" if need.settings.lora else "none"
    return [
        *(f"{one.name}: {one.trained:,} trained, {one.frozen:,} frozen" for one in need.networks),
        f"critic: {critic[need.settings.critic]}; reference: "
        + (f"a frozen copy of {need.whole:,}" if need.reference else base),
    ]


def _of_memory(plan: Plan) -> list[str]:
    """Each phase and, largest first, what it is made of."""
    lines = ["of each process: needed (estimated), free now, and what it is made of"]
    for phase in plan.phases:
        sizes = sorted(phase.parts.items(), key=lambda part: -part[1])
        made = ", ".join(f"{name} {in_words(size)}" for name, size in sizes if size)
        lines.append(f"{phase.name:12} {in_words(phase.total):>9} {in_words(phase.room.free):>9}  {made}")
    return lines


def _of_stages(plan: Plan) -> list[str]:
    """A table of what each stage would need."""
    processes, dtype = plan.need.world.processes, plan.need.settings.dtype
    lines = [f"{some(processes, 'process')} in {dtype}: states at rest, update; states while stepping (DeepSpeed)"]
    for stage in plan.stages:
        own = "" if stage.deepspeed is None else in_words(stage.deepspeed)
        chosen = "chosen" if stage.number == plan.need.settings.zero_stage else ""
        lines.append(f"{stage.number} {in_words(stage.rest):>9} {in_words(stage.update):>9} {own:>9} {chosen}".rstrip())
    return lines
