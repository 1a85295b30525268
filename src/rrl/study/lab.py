"""Tries every rule for choosing states on the failures of one checkpoint, without training."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any

from rrl.config.check import load
from rrl.config.choices import groups, targets
from rrl.contracts import border, examining
from rrl.cuts import Cutter
from rrl.errors import ConfigError, DataError, nearest
from rrl.interfaces import Selection
from rrl.processes.distributed import start_process_group
from rrl.ranges import at_least_one, check_ranges, not_negative
from rrl.records.files import by_step, step_of
from rrl.runs.resume import resume
from rrl.spans import tokens_before_error
from rrl.study.audited_run import AuditedRun, assembled
from rrl.study.rankings import interval, rank_correlation
from rrl.types import Judged, Problem, State, TokenScores

Row = dict[str, Any]
Statistic = Callable[[Sequence[Row]], float | None]


@dataclass(frozen=True, kw_only=True)
class LabSettings:
    """The sizes of a trial: ``n`` responses to each of ``problems``, ``continuations`` of each cut, drawn by ``seed``.

    ``step`` is the checkpoint (None: the last), ``level`` that of the problems (None: all), ``rules`` the selection
    rules (None: all that the run has what they need for).
    """

    problems: int
    n: int
    continuations: int
    seed: int
    step: int | None
    level: str | None
    rules: tuple[str, ...] | None

    def __post_init__(self) -> None:
        check_ranges(self, at_least_one("problems", "n", "continuations"), not_negative("seed"))


@dataclass(frozen=True)
class Failure:
    """A failed response from the prompt, what the checkpoint says of it, and where it may be cut."""

    judged: Judged
    scored: TokenScores
    legal: tuple[int, ...]

    @property
    def problem(self) -> Problem:
        return self.judged.rollout.state.problem

    def state(self, cut: int) -> State:
        return State(self.problem, self.judged.rollout.tokens[:cut], f"{self.problem.id}@{cut}")


def try_rules(
    folder: Path, settings: LabSettings, overrides: Sequence[str], say: Callable[[str], None]
) -> dict[str, Any]:  # fmt: skip
    """What each rule finds, as plain data; ``say`` is told the most tokens that this costs before any is generated."""
    config, parts = resume(folder, overrides)
    start_process_group()
    step = _step(folder, settings.step)
    run = assembled(folder, config, parts)
    run.go_to(step)
    rules, left_out = _rules(settings, _as_in(config), critic=parts.policy.critic is not None)
    longest = parts.engine.sampling.max_new_tokens
    most = settings.problems * (settings.n * (1 + len(rules) * settings.continuations) + settings.continuations)
    more = sum(examining.expense("selection", rule, longest) for rule in rules.values())
    say(f"{folder}, step {step}: at most {most * longest + more:,} tokens are generated")
    found = trial(run, rules, Cutter(run.tokenizer, config["data"]["cut_points"]), settings)
    about = {"run": str(folder), "step": step, "settings": asdict(settings)}
    return {**about, **found, "left_out": left_out | found["left_out"]}


def trial(run: AuditedRun, rules: Mapping[str, Selection], cutter: Cutter, settings: LabSettings) -> dict[str, Any]:
    """The failures of the run as it is, what each rule finds along them, and what comes of going on from there."""
    failures = _failures(run, cutter, settings)
    cuts, left_out, seen = dict[str, list[list[int]]](), dict[str, str](), dict[str, list[Failure]]()
    for name, rule in rules.items():
        rng = Random(f"lab/{settings.seed}")
        try:
            seen[name] = _examined(run, rule, failures, rng)
            cuts[name] = [border.cuts(rule, each.scored, each.legal, rng) for each in seen[name]]
        except DataError as error:
            left_out[name] = error.faults[0]
    return {
        "failures": len(failures),
        "rules": _judged_rules(run, rules, cuts, seen, settings),
        "agreement": _agreement(cuts),
        "tokens": {"generated": run.generated, "scored": run.scored},
        "left_out": left_out,
    }


def _step(folder: Path, asked: int | None) -> int:
    there = [step_of(path) for path in by_step(folder / "checkpoints")]
    if not there or (asked is not None and asked not in there):
        raise DataError(
            f"{folder}: no checkpoint{'' if asked is None else f' of step {asked}'}; expected one; there "
            f"{'are those of ' + ', '.join(map(str, there)) if there else 'is none'}; "
            "rrl-train run.keep_last=N keeps them"
        )
    return there[-1] if asked is None else asked


def _as_in(config: Mapping[str, Any]) -> list[str]:
    """What rules can take of a run's configuration: where it cuts, and the kind of its template."""
    kind = config["template"]["_target_"]
    templates = [option for option, classes in targets("template").items() if classes[0][0] == kind]
    return [f"data.cut_points={config['data']['cut_points']}", *(f"template={option}" for option in templates[:1])]


def _rules(
    settings: LabSettings, overrides: Sequence[str], *, critic: bool
) -> tuple[dict[str, Selection], dict[str, str]]:  # fmt: skip
    """The rules by the names of their choices, to look at all failures at once, and why others are left out."""
    made, left_out = dict[str, Selection](), dict[str, str]()
    for name in settings.rules or groups()["selection"]:
        try:
            rule = load("train", ["sampler=retrospective", f"selection={name}", *overrides])[1].sampler.selection
        except ConfigError as error:
            left_out[name] = error.faults[0]
            continue
        if rule.needs_critic and not critic:
            left_out[name] = "it reads a critic, and the run has none"
        else:
            made[name] = replace(rule, failures=settings.problems * settings.n) if hasattr(rule, "failures") else rule
    return made, left_out


def _failures(run: AuditedRun, cutter: Cutter, settings: LabSettings) -> list[Failure]:
    """The failed ones of the responses to some problems, scored. Raises DataError where there is none."""
    problems = [p for p in run.trainer.limits.problems.values() if settings.level in (None, p.level)]
    if not problems:
        there = sorted({str(p.level) for p in run.trainer.limits.problems.values()})
        raise DataError(
            f"level: no problem of level {settings.level!r} to train on{nearest(str(settings.level), there)}"
        )
    drawn = Random(f"lab/{settings.seed}").sample(problems, min(settings.problems, len(problems)))
    rows = run.continued([State(problem) for problem in drawn], settings.n, settings.seed)
    failed = [each for row in rows for each in row if not each.feedback.solved]
    if not failed:
        raise DataError(f"{run.folder}: every response is right; expected failures; give an earlier step, or a level")
    states = [State(each.rollout.state.problem, each.rollout.tokens) for each in failed]
    scored = run.trainer.policy.inspect(states)
    run.scored += sum(len(state.problem.prompt) + len(state.prefix) for state in states)
    right = [tokens_before_error(each, lambda tokens: str(run.tokenizer.decode(list(tokens)))) for each in failed]
    scored = [replace(each, right=known) for each, known in zip(scored, right, strict=True)]
    longest = run.trainer.engine.sampling.max_new_tokens
    legal = [tuple(cut for cut in cutter.legal(state.prefix) if cut < longest) for state in states]
    return list(map(Failure, failed, scored, legal))


def _examined(run: AuditedRun, rule: Selection, failures: Sequence[Failure], rng: Random) -> list[Failure]:
    """The failures with what the rule finds out about them, where it has more written."""
    trainer = run.trainer
    if not examining.expense("selection", rule, trainer.engine.sampling.max_new_tokens):
        return list(failures)
    assert trainer.author is not None, "the run is assembled"
    rule.start(trainer.author)
    before = trainer.tokens_generated
    responses = [State(each.problem, each.judged.rollout.tokens) for each in failures]
    found, _ = examining.examined(rule, responses, [each.legal for each in failures], rng)
    run.generated += trainer.tokens_generated - before
    return [replace(each, scored=replace(each.scored, found=one)) for each, one in zip(failures, found, strict=True)]


def _success(judged: Sequence[Judged]) -> float:
    return fmean(each.feedback.solved for each in judged)


def _judged_rules(
    run: AuditedRun, rules: Mapping[str, Selection], cuts: Mapping[str, Sequence[Sequence[int]]],
    seen: Mapping[str, Sequence[Failure]], settings: LabSettings,
) -> dict[str, Row]:  # fmt: skip
    """Each rule's numbers; a state that several rules found is continued once.

    The control is as many fresh responses to the problems of these states: those that failed would flatter the rules.
    Failures, continuations and control are drawn by random numbers of their own.
    """
    found = {
        (number, cut): seen[name][number].state(cut)
        for name, rows in cuts.items()
        for number, row in enumerate(rows)
        for cut in row
    }
    places, states = list(found), list(found.values())
    went_on = dict(zip(places, run.continued(states, settings.continuations, settings.seed + 1), strict=True))
    problems = list(dict.fromkeys(state.problem for state in states))
    again = run.continued(list(map(State, problems)), settings.continuations, settings.seed + 2)
    redrawn = {problem.id: row for problem, row in zip(problems, again, strict=True)}
    return {
        name: _summarised(
            [
                _row(seen[name][number], cut, went_on[number, cut], redrawn, rules[name])
                for number, row in enumerate(rows)
                for cut in row
                if went_on[number, cut] and redrawn[found[number, cut].problem.id]
            ],
            fmean(bool(row) for row in rows),
            settings.seed,
        )
        for name, rows in cuts.items()
    }


def _row(
    failure: Failure, cut: int, went_on: Sequence[Judged], redrawn: Mapping[str, Sequence[Judged]], rule: Selection
) -> Row:
    """One state with what came of it and of its problem's prompt."""
    again = redrawn[failure.problem.id]
    return {
        "problem": failure.problem.id,
        "position": cut / len(failure.judged.rollout.tokens),
        "error_free": None if failure.scored.right is None else cut <= failure.scored.right,
        "score": border.cut_score(rule, failure.scored, cut),
        "success": _success(went_on),
        "solved": sum(each.feedback.solved for each in went_on),
        "tokens": sum(len(each.rollout.actions) for each in went_on),
        "from_prompt": _success(again),
        "prompt_solved": sum(each.feedback.solved for each in again),
        "prompt_tokens": sum(len(each.rollout.actions) for each in again),
    }


def _rate(rows: Sequence[Row], solved: str, tokens: str) -> float:
    return float(1000 * sum(row[solved] for row in rows) / sum(row[tokens] for row in rows))


STATISTICS: dict[str, Statistic] = {
    "error_free": lambda rows: fmean(row["error_free"] for row in rows),
    "position": lambda rows: fmean(row["position"] for row in rows),
    "success": lambda rows: fmean(row["success"] for row in rows),
    "gain": lambda rows: fmean(row["success"] - row["from_prompt"] for row in rows),
    "mixed": lambda rows: fmean(0 < row["success"] < 1 for row in rows),
    "redraw_mixed": lambda rows: fmean(0 < row["from_prompt"] < 1 for row in rows),
    "per_kilotoken": partial(_rate, solved="solved", tokens="tokens"),
    "redraw_per_kilotoken": partial(_rate, solved="prompt_solved", tokens="prompt_tokens"),
    "lead_per_kilotoken": lambda rows: _rate(rows, "solved", "tokens") - _rate(rows, "prompt_solved", "prompt_tokens"),
    "rank_correlation": lambda rows: rank_correlation([row["score"] for row in rows], [row["success"] for row in rows]),
}
"""Numbers of a rule's states: the last is that of its score with success."""


def _summarised(rows: Sequence[Row], found: float, seed: int) -> Row:
    """The statistics with intervals over problems; ``found`` is the share of failures in which there was a cut."""
    told = rows and rows[0]["error_free"] is not None
    names = [name for name in STATISTICS if rows and (told or name != "error_free")]
    numbers = {
        name: {
            "value": STATISTICS[name](rows),
            "interval95": interval(rows, lambda row: row["problem"], STATISTICS[name], seed),
        }
        for name in names
    }
    return {"found": found, "states": len(rows), **numbers}


def _agreement(cuts: Mapping[str, Sequence[Sequence[int]]]) -> dict[str, dict[str, float | None]]:
    """Of the failures in which both of two rules find a cut, the share in which they have one in common."""

    def shared(one: Sequence[Sequence[int]], other: Sequence[Sequence[int]]) -> float | None:
        both = [bool(set(a) & set(b)) for a, b in zip(one, other, strict=True) if a and b]
        return fmean(both) if both else None

    return {name: {other: shared(rows, cuts[other]) for other in cuts} for name, rows in cuts.items()}
