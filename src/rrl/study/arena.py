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
from rrl.contracts import border
from rrl.contracts.calling import calling
from rrl.errors import ConfigError, DataError
from rrl.interfaces import Judge
from rrl.runs.assemble import start_frozen, warm_start
from rrl.runs.manifest import moment
from rrl.study.win_rates import RULE, Answered, Match, matches, tally
from rrl.training.models import HuggingFace, LoadedModel
from rrl.training.prepared import encode
from rrl.types import Example, Problem, Rollout, Sampling, Show, State

SIDES = "another run's directory, sft (the run's own warm start), reference (the data set's answers), or a model"


@dataclass(frozen=True, kw_only=True)
class Side:
    """Who answers: ``parts`` have the model and its prompts; None stands for the data set's own answers."""

    name: str
    parts: Parts | None


def opponent(parts: Parts, against: str | None, run: str | None) -> Side:
    """The other side that ``against`` names, seen from ``parts``, those of ``run`` if there is one. Loads no model."""
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
        raise ConfigError(f"against: {against!r} is a run without actor/; expected one that came to its end")
    with _told(against):
        _, other = load("evaluate", [], run=str(folder), judging=False)
    other.prompts.template.stand(moment(folder))
    return Side(name=against, parts=replace(parts, model=other.model, prompts=other.prompts, warmstart=None))


def compare(parts: Parts, theirs: Side, show: Show) -> tuple[dict[str, Any], list[Match]]:
    """Both sides' answers to the same problems, judged in both orders: what it comes to, and every match.

    One model is in memory at a time: ours, theirs, the judge's.
    """
    judge = parts.judge
    assert judge is not None, "who compares has a judge"
    with calling("judge", judge, "start"):
        judge.start()
    if parts.warmstart is not None:
        parts.run.cache()
    mine, others, left_out = _in_common(parts, theirs)
    our_texts, about_ours = _answers(Side(name="ours", parts=parts), mine, show)
    with _told(theirs.name):
        their_texts, about_theirs = _answers(theirs, others, show)
    answered = [
        Answered(id=e.id, level=e.level, question=e.question, ours=our_texts[e.id], theirs=their_texts[e.id])
        for e in (problem.example for problem in mine)
    ]
    played = matches(answered, lambda comparisons: border.judgements(judge, comparisons, show))
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
        "judge": _account(judge),
    }
    return result, played


def _account(judge: Judge) -> dict[str, Any]:
    with calling("judge", judge, "account"):
        return judge.account()


def _warm_start_of(run: str | None) -> str:
    if run is None:
        raise ConfigError("against: sft is the warm start of a run, and no run is given; expected from_run=RUN with it")
    folder = Path(run).expanduser() / "start"
    if not (folder / "config.json").is_file():
        raise ConfigError(
            f"against: sft, but {str(folder)!r} is not there: the run had no warm start; expected one; give the model "
            "that it began with, as in against=FOLDER_OR_ID"
        )
    return str(folder)


def _with_model(parts: Parts, path: str) -> Parts:
    """The same with a model from a folder or the hub, in our model's attention and trust where it has these."""
    attention, trust = getattr(parts.model, "attention", "sdpa"), getattr(parts.model, "trust_remote_code", False)
    model = HuggingFace(path=path, revision=None, attention=attention, trust_remote_code=trust)
    return replace(parts, model=model, warmstart=None)


@contextmanager
def _told(against: str) -> Iterator[None]:
    """Faults of the other side are told as such: their keys are not those of this command line."""
    try:
        yield
    except (ConfigError, DataError) as error:
        raise type(error)(*(f"against={against}: {fault}" for fault in error.faults)) from error


def _in_common(parts: Parts, theirs: Side) -> tuple[list[Problem], list[Problem], int]:
    """The problems that both sides can answer, as many of each level as are wanted: as ours, as theirs, in one order.

    And how many one of them cannot. No weights are loaded for it, so that a model that is not there is told before the
    other one begins to write.
    """
    examples = border.examples(parts.task, parts.evaluation.split)
    mine = _read(parts, examples)
    if theirs.parts is None:
        others = {problem.id: problem for problem in mine if problem.example.reference.strip()}
    else:
        with _told(theirs.name):
            others = {problem.id: problem for problem in _read(theirs.parts, examples)}
    both = [problem for problem in mine if problem.id in others]
    if not both:
        raise DataError(
            f"against: {theirs.name!r} answers none of the {len(mine)} problems that our side does (split "
            f"{parts.evaluation.split!r}); expected some in common; give another side, or allow longer prompts"
        )
    chosen = parts.evaluation.choose(both)
    return chosen, [others[problem.id] for problem in chosen], len(examples) - len(both)


def _read(parts: Parts, examples: Sequence[Example]) -> list[Problem]:
    """The examples that fit the side's model, as its tokenizer reads them."""
    loaded = parts.model.outline(border.vocabulary(parts.task))
    return encode(examples, loaded, parts.prompts, parts.engine.sampling.max_new_tokens)


def _answers(side: Side, problems: Sequence[Problem], show: Show) -> tuple[dict[str, str], dict[str, Any]]:
    """The side's answer to each problem, by its id, and how it came about. Its model is gone afterwards."""
    if side.parts is None:
        return {problem.id: problem.example.reference.strip() for problem in problems}, {"model": None}
    rollouts, template = _write(side.parts, problems, show)
    gc.collect()  # of the model, whose modules may know each other
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    stop = side.parts.engine.sampling.stop
    texts = {rollout.state.problem.id: _without_stop(rollout.response, stop) for rollout in rollouts}
    truncated = fmean(not rollout.finished for rollout in rollouts)
    about = {"class": type(side.parts.model).__name__, **vars(side.parts.model)}
    return texts, {"model": about, "template": template, "truncated": truncated}


def _write(parts: Parts, problems: Sequence[Problem], show: Show) -> tuple[list[Rollout], str]:
    """One response to each problem, by an engine of its own, which would keep the model alive; and the template."""
    loaded = parts.model.load(border.vocabulary(parts.task))
    model = loaded.model if parts.warmstart is None else warm_start(loaded, parts, show)[0]
    engine = copy.deepcopy(parts.engine)
    start_frozen(parts, LoadedModel(model, loaded.tokenizer), problems, engine)
    generator = torch.Generator().manual_seed(parts.evaluation.seed)
    rollouts = border.rollouts(engine, [State(problem) for problem in problems], _sampling(parts), generator)
    return rollouts, parts.prompts.template.describe(loaded.tokenizer)


def _sampling(parts: Parts) -> Sampling:
    return parts.evaluation.one_answer(parts.engine.sampling)


def _without_stop(response: str, stop: Sequence[str]) -> str:
    """The response up to the text that ended it, which is not part of the answer."""
    for text in stop:
        response = response.partition(text)[0]
    return response.strip()
