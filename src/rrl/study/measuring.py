"""One model measured on one task or on several: all faults come before it is loaded, and it is loaded once."""

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rrl.config.check import Parts, load
from rrl.config.choices import files
from rrl.contracts import border
from rrl.errors import ConfigError, DataError, UsageError
from rrl.preflight.plan import before_warm_start
from rrl.runs.assemble import measure, prepare_evaluation, start_frozen, start_task
from rrl.runs.manifest import moment
from rrl.training.evaluation import Answers
from rrl.training.models import HuggingFace, LoadedModel
from rrl.training.prepared import Prepared

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Exam:
    """A task to measure on: its choice on the command line, and its configuration and parts."""

    name: str
    config: Mapping[str, Any]
    parts: Parts


def by_task(arguments: Sequence[str]) -> dict[str, list[str]]:
    """The arguments for each task of ``task=A,B``; ``A.key=value`` is for task A alone, what names no task for all.

    Without a choice of a task there is one, "". Raises ConfigError with all faults.
    """
    chosen = [argument for argument in arguments if argument.startswith("task=")]
    if len(chosen) != 1:
        return {"": list(arguments)}
    names = chosen[0].removeprefix("task=").split(",")
    owners = {argument: _owner(argument, names) for argument in arguments if argument != chosen[0]}
    faults = [f"task: {name!r} twice; give it once" for name, count in Counter(names).items() if name and count > 1]
    if len(names) > 1 and "" in names:
        faults.append(f"{chosen[0]}: a name is empty; expected names between commas, as in task=gsm8k,math")
    faults += [
        f"{argument}: for the task {owner}, which is not measured here; expected one of {', '.join(names)}"
        for argument, owner in owners.items()
        if owner and owner not in names
    ]
    if faults:
        raise ConfigError(*faults)
    return {
        name: [f"task={name}", *(a.removeprefix(f"{name}.") for a, owner in owners.items() if owner in ("", name))]
        for name in names
    }


def _owner(argument: str, names: Sequence[str]) -> str:
    """The task that an argument is for, one of ``names`` or another; "" for all of them."""
    name, dot, _ = argument.partition("=")[0].partition(".")
    return name if dot and name in (*names, *files("task")) else ""


def exams(arguments: Sequence[str], run: str | None) -> list[Exam]:
    """The tasks to measure on, checked with all their faults; of the directory ``run`` where it is given."""
    given = by_task(arguments)
    made: list[Exam] = []

    def make(name: str) -> None:
        config, parts = load("evaluate", given[name], run=run)
        if run is not None:
            parts.prompts.template.stand(moment(Path(run).expanduser()))
        made.append(Exam(name, config, parts))

    _all_faults(list(given), make)
    _refuse_misfits(made)
    return made


def measured(chosen: Sequence[Exam]) -> Iterator[tuple[Exam, dict[str, Any], Answers, Any]]:
    """For each task its exam, result, responses and tokenizer, as soon as it is measured.

    The data of all tasks are read before the model is loaded.
    """
    first = chosen[0].parts
    for exam in chosen:
        start_task(exam.parts)
    prepared = [prepare_evaluation(first, lambda progress, metrics: None)] if len(chosen) == 1 else _prepared(chosen)
    loaded = LoadedModel(prepared[0].model, prepared[0].tokenizer)
    start_frozen(first, loaded, prepared[0].test, first.engine)
    for exam, own in zip(chosen, prepared, strict=True):
        if len(chosen) > 1:
            log.info("measuring on %s: %d problems", exam.name, len(own.test))
        yield exam, *measure(exam.parts, own, first.engine), own.tokenizer


def _prepared(chosen: Sequence[Exam]) -> list[Prepared]:
    """The problems of each task, and the model of all."""
    outlined: dict[str, Prepared] = {}
    by_name = {exam.name: exam.parts for exam in chosen}

    def read(name: str) -> None:
        outlined[name] = before_warm_start(by_name[name], by_name[name].model.outline, training=False)

    _all_faults(list(by_name), read)
    first = chosen[0].parts
    model, tokenizer = first.model.load(border.vocabulary(first.task))
    return [replace(prepared, model=model, tokenizer=tokenizer) for prepared in outlined.values()]


def _refuse_misfits(made: Sequence[Exam]) -> None:
    """Raise ConfigError where several tasks do not go together."""
    if len(made) == 1:
        return
    first = made[0].parts
    faults = []
    if any(exam.parts.judge is not None for exam in made):
        faults.append("judge: compares two models on one task; expected one task, or judge=none")
    if any(exam.parts.warmstart is not None for exam in made):
        faults.append(
            "warmstart: is trained on the examples of one task; for several tasks give warmstart=none, or from_run=RUN "
            "or model=hf model.path=FOLDER for a model that is there"
        )
    if any(exam.config["model"] != made[0].config["model"] for exam in made):
        faults.append("model: one model is measured on all tasks; give model keys without the name of a task")
    if not isinstance(first.model, HuggingFace) and len({border.vocabulary(exam.parts.task) for exam in made}) > 1:
        faults.append("model: made of the words of a task, and these tasks have different words; give one task")
    if faults:
        raise ConfigError(*faults)


def _all_faults(names: Sequence[str], work: Callable[[str], None]) -> None:
    """Do the work for every task; raises the faults of all together, with their task unless all have them."""
    found: list[tuple[str, UsageError]] = []
    for name in names:
        try:
            work(name)
        except (ConfigError, DataError) as error:
            found.append((name, error))
    if not found:
        return
    shared = Counter(fault for _, error in found for fault in error.faults)
    faults = [
        fault if shared[fault] == len(names) else f"{name}: {fault}" for name, error in found for fault in error.faults
    ]
    raise type(found[0][1])(*dict.fromkeys(faults))
