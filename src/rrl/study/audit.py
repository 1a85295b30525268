"""Audits the remembered states of runs: are they solvable, does the critic rank them, do they stay likely."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from statistics import fmean
from typing import Any

from rrl.config.check import Parts
from rrl.errors import DataError
from rrl.processes.distributed import start_process_group
from rrl.ranges import at_least_one, check_ranges, not_negative
from rrl.records.files import by_step, read_object, step_of
from rrl.runs.resume import resume
from rrl.study.audited_run import AuditedRun, assembled, remembers
from rrl.study.rankings import calibration, interval, rank_correlation
from rrl.types import State

Row = dict[str, Any]
Statistic = Callable[[Sequence[Row]], float | None]
STATISTICS: dict[str, Statistic] = {
    "solvable": lambda rows: fmean(row["success"] > 0 for row in rows),
    "solvable_from_prompt": lambda rows: fmean(row["from_prompt"] > 0 for row in rows),
    "success": lambda rows: fmean(row["success"] for row in rows),
    "success_from_prompt": lambda rows: fmean(row["from_prompt"] for row in rows),
    "gain": lambda rows: fmean(row["success"] - row["from_prompt"] for row in rows),
    "rank_correlation": lambda rows: rank_correlation(*_columns(rows)),
}
"""Numbers of the states of a checkpoint; the last needs a critic."""


@dataclass(frozen=True, kw_only=True)
class AuditSettings:
    """The sizes of an audit.

    At each checkpoint ``continuations`` are written from each of ``states`` remembered states, drawn by ``seed``, and
    as many from their prompts; ``steps`` are the checkpoints (None: all). ``prefixes`` early states are followed by
    their log-probability; ``bins`` are the groups of the calibration.
    """

    continuations: int
    states: int
    prefixes: int
    bins: int
    seed: int
    steps: tuple[int, ...] | None

    def __post_init__(self) -> None:
        check_ranges(self, at_least_one("continuations", "states", "prefixes", "bins"), not_negative("seed"))


def audit(
    folders: Sequence[Path], states_of: Path | None, settings: AuditSettings, overrides: Sequence[str],
    say: Callable[[str], None],
) -> dict[str, Any]:  # fmt: skip
    """The results of all runs as plain data.

    The early prefixes are those of ``states_of``, or of the first run that remembers states; ``overrides`` are changes
    that a resume would accept. ``say`` is told the most tokens that this costs before any is generated. Interrupted
    after its first checkpoint, an audit returns what it has found so far, with the checkpoints that are ``left``.
    """
    extra = [states_of] if states_of else []
    runs = {folder: resume(folder, overrides) for folder in dict.fromkeys([*folders, *extra])}
    source = _source({folder: runs[folder][1] for folder in extra or folders})
    _refuse_others(folders, source)
    steps = {folder: _steps(folder, settings.steps if folder in folders else None) for folder in runs}
    start_process_group()  # for ``say``, which knows the first process
    say(_forecast([(runs[folder][1], len(steps[folder])) for folder in folders], settings))
    prefixes: list[State] = []
    found: dict[Path, list[Row]] = {folder: [] for folder in folders}
    spent: dict[Path, tuple[int, int]] = {}
    try:
        for folder in dict.fromkeys([source, *folders]):
            run = assembled(folder, *runs[folder])
            if folder == source:
                prefixes = _early(run, steps[folder], settings.prefixes)
            for step in steps[folder] if folder in folders else ():
                found[folder].append(_at(run, step, prefixes, settings))
                spent[folder] = run.generated, run.scored
                say(f"{folder}, step {step}: {run.generated:,} tokens generated, {run.scored:,} scored")
    except KeyboardInterrupt:
        if not any(found.values()):
            raise
    left = {str(folder): steps[folder][len(rows) :] for folder, rows in found.items() if len(rows) < len(steps[folder])}
    return {
        "settings": asdict(settings),
        "prefixes": {"of": str(source), "count": len(prefixes)},
        "tokens": dict(zip(("generated", "scored"), map(sum, zip(*spent.values(), strict=True)), strict=True)),
        "runs": [
            {"run": str(folder), "checkpoints": _with_changes(rows, prefixes, settings.seed)}
            for folder, rows in found.items()
        ],
        **({"left": left} if left else {}),
    }


def _source(candidates: Mapping[Path, Parts]) -> Path:
    """The first run that remembers states."""
    able = [folder for folder, parts in candidates.items() if remembers(parts)]
    if not able:
        raise DataError(
            *(f"{folder}: {type(parts.sampler).__name__} remembers no states" for folder, parts in candidates.items()),
            "remedy: give the prefixes of a run with replay on the same data, states_of=RUN",
        )
    return able[0]


def _refuse_others(folders: Sequence[Path], source: Path) -> None:
    """Raise DataError for runs that have other prompts than the run of the prefixes."""
    prompts = {folder: _prompts(folder) for folder in (*folders, source)}
    others = [folder for folder in folders if prompts[folder] != prompts[source]]
    if others:
        raise DataError(
            *(f"{folder}: other training prompts than {source} (manifest.json: prompts_sha256)" for folder in others),
            "remedy: audit runs together only where they have the same data and prompts",
        )


def _prompts(folder: Path) -> Any:
    about, _ = read_object(folder / "manifest.json")
    return about.get("data", {}).get("train", {}).get("prompts_sha256")


def _steps(folder: Path, asked: tuple[int, ...] | None) -> list[int]:
    """The steps of the checkpoints to look at. Raises DataError where one is missing."""
    there = [step_of(path) for path in by_step(folder / "checkpoints")]
    missing = sorted(set(asked or ()) - set(there))
    if missing or not there:
        raise DataError(
            f"{folder}: no checkpoint{f' of step {missing[0]}' if missing else ''}; expected one; there "
            f"{'are those of ' + ', '.join(map(str, there)) if there else 'is none'}; "
            "a run keeps more of them with run.keep_last=N"
        )
    return there if asked is None else sorted(set(asked))


def _forecast(runs: Sequence[tuple[Parts, int]], settings: AuditSettings) -> str:
    """The most tokens that an audit of these runs, with so many checkpoints each, generates and scores."""
    generated = scored = 0
    for parts, checkpoints in runs:
        longest, states = parts.engine.sampling.max_new_tokens, settings.states if remembers(parts) else 0
        generated += checkpoints * 2 * states * settings.continuations * longest
        scored += checkpoints * (states + settings.prefixes) * (parts.prompts.max_prompt_length + longest)
    return (
        f"{sum(checkpoints for _, checkpoints in runs)} checkpoints: at most {generated:,} tokens are generated, "
        f"{settings.continuations} continuations of each of {settings.states} states and of its prompt, and {scored:,} "
        "are scored"
    )


def _early(run: AuditedRun, steps: Sequence[int], count: int) -> list[State]:
    """The first states of the earliest checkpoint that holds any."""
    for step in steps:
        run.go_to(step)
        if states := run.remembered():
            return states[:count]
    where = "replay/buffer_size, and with sampler=reanalyse replay/uncut_frac"
    raise DataError(f"{run.folder}: no checkpoint holds a state; expected some; see {where} of this run")


def _at(run: AuditedRun, step: int, prefixes: Sequence[State], settings: AuditSettings) -> Row:
    """What is found at one checkpoint."""
    run.go_to(step)
    held = run.remembered()
    drawn = Random(f"audit/{settings.seed}").sample(range(len(held)), min(settings.states, len(held)))
    return {
        "step": step,
        "done": run.trainer.progress,
        "tokens_generated": run.trainer.tokens_generated,
        "held": len(held),
        **(of_states(run, [held[number] for number in sorted(drawn)], settings) if drawn else {"states": []}),
        "logprobs": run.scores(prefixes)[0],
    }


def of_states(run: AuditedRun, states: Sequence[State], settings: AuditSettings) -> Row:
    """Success from states and from their prompts, and how the critic ranks the states."""
    problems = list(dict.fromkeys(state.problem for state in states))
    found = run.successes([*states, *map(State, problems)], settings.continuations, settings.seed)
    from_prompt = dict(zip((problem.id for problem in problems), found[len(states) :], strict=True))
    rows = [
        {
            "key": state.replayed_from,
            "problem": state.problem.id,
            "tokens": len(state.prefix),
            "value": value,
            "success": fmean(own),
            "from_prompt": fmean(from_prompt[state.problem.id]),
        }
        for state, value, own in zip(states, run.scores(states)[1], found, strict=False)
        if own and from_prompt[state.problem.id]
    ]
    return {"states": rows, **_summarised(rows, settings, critic=run.parts.policy.critic is not None)}


def _summarised(rows: Sequence[Row], settings: AuditSettings, *, critic: bool) -> Row:
    """The statistics of states with intervals over problems, and the calibration; nothing of no states."""
    if not rows:
        return {}
    found: Row = {
        name: {"value": statistic(rows), "interval95": interval(rows, _problem, statistic, settings.seed)}
        for name, statistic in STATISTICS.items()
        if critic or name != "rank_correlation"
    }
    return {**found, **({"calibration": calibration(*_columns(rows), settings.bins)} if critic else {})}


def _columns(rows: Sequence[Row]) -> tuple[list[float], list[float]]:
    return [row["value"] for row in rows], [row["success"] for row in rows]


def _problem(row: Row) -> Any:
    return row["problem"]


def _with_changes(rows: list[Row], prefixes: Sequence[State], seed: int) -> list[Row]:
    """The rows with the mean log-probability of the prefixes, and its change since the first row."""

    def mean(changes: Sequence[Row]) -> float:
        return fmean(change["nats"] for change in changes)

    for row in rows:
        both = zip(prefixes, row["logprobs"], rows[0]["logprobs"], strict=True)
        changes: list[Row] = [{"problem": s.problem.id, "nats": now - first} for s, now, first in both]
        row["logprob"] = fmean(row["logprobs"])
        row["change"] = {"value": mean(changes), "interval95": interval(changes, _problem, mean, seed)}
    return rows
