"""Two sides answer the same held-out problems, and a judge compares the answers."""

import copy
import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from rrl.config.check import Parts, load
from rrl.contracts import border, judging
from rrl.contracts.calling import calling
from rrl.errors import ConfigError, DataError
from rrl.records.run_directory import cache
from rrl.runs.assemble import start_frozen, warm_start
from rrl.runs.manifest import moment
from rrl.study.win_rates import RULE, Answered, JudgedQuestion, matches, tally
from rrl.training.models import HuggingFace, LoadedModel
from rrl.training.prepared import encode
from rrl.types import Example, Problem, Rollout, Sampling, Show, State

SIDES = "another run's directory, sft (the run's own warm start), reference (the data set's answers), or a model"


@dataclass(frozen=True, kw_only=True)
class Side:
    """A side of the comparison: ``parts`` have the model and its prompts; None means the data set's own answers."""

    name: str
    parts: Parts | None


def opponent(parts: Parts, against: str | None, run: str | None) -> Side:
    """The other side that ``against`` names, with ``parts`` and ``run`` (if any) of this side. Loads no model."""
    if not against:
        raise ConfigError(f"against: missing; a judge compares two sides; expected {SIDES}")
    folder = Path(against).expanduser()
    if against == "reference":
        return Side(name=against, parts=None)
    if against == "sft":
        return Side(name=against, parts=_with_model(parts, _warm_start_of(run)))
    if not (folder / "config.yaml").is_file():
        return Side(name=against, parts=_with_model(parts, against))
    if not (folder / "actor").is_dir():
        raise ConfigError(f"against: {against!r} is a run without actor/; expected a finished run")
    with _named_faults(against):
        _, other = load("evaluate", [], run=str(folder), starting=("engine",))
    other.prompts.template.stand(moment(folder))
    return Side(name=against, parts=replace(parts, model=other.model, prompts=other.prompts, warmstart=None))


def compare_answers(parts: Parts, theirs: Side, show: Show) -> tuple[dict[str, Any], list[JudgedQuestion]]:
    """Both sides' answers to the same problems, judged in both orders: the totals, and every match.

    One model is in memory at a time: ours, theirs, the judge's.
    """
    judge = parts.judge
    assert judge is not None, "the caller checks"
    with calling("judge", judge, "start"):
        judge.start()
    if parts.warmstart is not None:
        cache()
    mine, others, left_out = _in_common(parts, theirs)
    our_texts, about_ours = _answers(Side(name="ours", parts=parts), mine, show)
    with _named_faults(theirs.name):
        their_texts, about_theirs = _answers(theirs, others, show)
    answered = [
        Answered(id=e.id, level=e.level, question=e.question, ours=our_texts[e.id], theirs=their_texts[e.id])
        for e in (problem.example for problem in mine)
    ]
    played = matches(answered, lambda comparisons: judging.judgements(judge, comparisons, show))
    with calling("judge", judge, "account"):
        account = judge.account()
    result = {
        "split": parts.evaluation.split,
        "problems": len(mine),
        "left_out": left_out,
        "seed": parts.evaluation.seed,
        "sampling": asdict(_sampling(parts)),
        "ours": about_ours,
        "against": {"name": theirs.name, **about_theirs},
        "rule": RULE,
        **tally(played),
        "judge": account,
    }
    return result, played


def _warm_start_of(run: str | None) -> str:
    if run is None:
        raise ConfigError("against: sft is the warm start of a run, and no run is given; expected from_run=RUN with it")
    folder = Path(run).expanduser() / "start"
    if not (folder / "config.json").is_file():
        raise ConfigError(
            f"against: sft, but {str(folder)!r} does not exist: the run has no warm start; expected one; give its "
            "initial model, as in against=FOLDER_OR_ID"
        )
    return str(folder)


def _with_model(parts: Parts, path: str) -> Parts:
    """The parts with a model from a folder or the hub, with the attention and trust of the present model if any."""
    attention, trust = getattr(parts.model, "attention", "sdpa"), getattr(parts.model, "trust_remote_code", False)
    model = HuggingFace(path=path, revision=None, attention=attention, trust_remote_code=trust)
    return replace(parts, model=model, warmstart=None)


@contextmanager
def _named_faults(against: str) -> Iterator[None]:
    """Marks faults of the other side, because their keys are not those of this command line."""
    try:
        yield
    except (ConfigError, DataError) as error:
        raise type(error)(*(f"against={against}: {fault}" for fault in error.faults)) from error


def _in_common(parts: Parts, theirs: Side) -> tuple[list[Problem], list[Problem], int]:
    """The chosen problems that both sides can answer, encoded for each, and the number that one of them cannot.

    Loads no weights, so that a missing model is reported before the other one generates.
    """
    examples = border.examples(parts.task, parts.evaluation.split)
    mine = _encoded(parts, examples)
    if theirs.parts is None:
        others = {problem.id: problem for problem in mine if problem.example.reference.strip()}
    else:
        with _named_faults(theirs.name):
            others = {problem.id: problem for problem in _encoded(theirs.parts, examples)}
    both = [problem for problem in mine if problem.id in others]
    if not both:
        raise DataError(
            f"against: {theirs.name!r} answers none of the {len(mine)} problems that our side does (split "
            f"{parts.evaluation.split!r}); expected some in common; give another side, or allow longer prompts"
        )
    chosen = parts.evaluation.choose(both)
    return chosen, [others[problem.id] for problem in chosen], len(examples) - len(both)


def _encoded(parts: Parts, examples: Sequence[Example]) -> list[Problem]:
    """The examples that fit the side's model, encoded by its tokenizer."""
    loaded = parts.model.outline(border.vocabulary(parts.task))
    return encode(examples, loaded, parts.prompts, parts.engine.sampling.max_new_tokens)


def _answers(side: Side, problems: Sequence[Problem], show: Show) -> tuple[dict[str, str], dict[str, Any]]:
    """The side's answer to each problem, by its id, and how it was generated. Frees the side's model."""
    if side.parts is None:
        return {problem.id: problem.example.reference.strip() for problem in problems}, {"model": None}
    rollouts, template = _generate(side.parts, problems, show)
    gc.collect()  # the modules of the model may refer to each other
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    stop = side.parts.engine.sampling.stop
    texts = {rollout.state.problem.id: _without_stop(rollout.response, stop) for rollout in rollouts}
    truncated = fmean(not rollout.finished for rollout in rollouts)
    about = {"class": type(side.parts.model).__name__, **vars(side.parts.model)}
    return texts, {"model": about, "template": template, "truncated": truncated}


def _generate(parts: Parts, problems: Sequence[Problem], show: Show) -> tuple[list[Rollout], str]:
    """One response to each problem, by a copy of the engine, which keeps the model alive; and the template."""
    loaded = parts.model.load(border.vocabulary(parts.task))
    model = loaded.model if parts.warmstart is None else warm_start(loaded, parts, show)[0]
    engine = copy.deepcopy(parts.engine)
    start_frozen(parts, LoadedModel(model, loaded.tokenizer), problems, engine)
    generator = torch.Generator().manual_seed(parts.evaluation.seed)
    rollouts = border.rollouts(engine, [State(problem) for problem in problems], _sampling(parts), generator)
    return rollouts, parts.prompts.template.describe(loaded.tokenizer)


def _sampling(parts: Parts) -> Sampling:
    return replace(parts.engine.sampling, temperature=0.0)


def _without_stop(response: str, stop: Sequence[str]) -> str:
    """The response without the stop text that ended it."""
    for text in stop:
        response = response.partition(text)[0]
    return response.strip()
