"""What parts return, held to their contract at the border, so that a wrong one is told by its name and goes no further.

Every call of a part whose result others go on with is made here; lists and batches that parts are shown are copies.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from random import Random
from typing import Any

from torch import Tensor

from rrl.contracts.breaches import (
    Limits,
    batch_faults,
    broken,
    enumerated,
    feedback_faults,
    is_finite,
    is_text,
    items,
    metrics,
    refuse,
    rollout_faults,
    shown,
    state_faults,
    stranger,
)
from rrl.contracts.calling import calling, is_own
from rrl.contracts.tracebacks import named
from rrl.errors import DataError
from rrl.interfaces import (
    Guidance,
    Judge,
    Objective,
    Reward,
    RewardModel,
    RolloutEngine,
    Selection,
    StateDict,
    Stateful,
    StateSampler,
    Task,
    Written,
)
from rrl.types import (
    Batch,
    Comparison,
    Example,
    Feedback,
    Judgement,
    Metrics,
    Pair,
    PolicyOutput,
    Preference,
    Problem,
    Rollout,
    Show,
    State,
    TokenScores,
)

RUNS = ("training/", "budget/", "timing_s/", "perf/", "val/", "val-core/")
"""What the names of the run's own metrics begin with."""
LEARNERS = ("actor/", "critic/")
"""What the names of an objective's and a policy's metrics begin with."""


def examples(task: Task, split: str) -> list[Example]:
    """The examples of a split: texts that can be written as UTF-8, under ids of their own."""
    call = f"examples({split!r})"
    with calling("task", task, call):
        found = items(task, call, task.examples(split), Example)
    if not found:
        raise DataError(
            f"data: no problem at all in the split {split!r} ({named(task, call)}); expected at least one; give "
            "another data set or split"
        )
    places = defaultdict[str, list[int]](list)
    for number, example in enumerate(found):
        places[example.id].append(number)
    double = [(name, numbers) for name, numbers in places.items() if len(numbers) > 1]
    refuse(
        task, call, [f"examples {enumerated(numbers)} have the same id {name!r}" for name, numbers in double],
        "an id of its own for each example",
    )  # fmt: skip
    return found


def demonstrations(task: Task, count: int, seed: int) -> list[Example]:
    """Examples to be shown, of which one may come again."""
    with calling("task", task, "demonstrations"):
        return items(task, "demonstrations", task.demonstrations(count, seed), Example)


def vocabulary(task: Task) -> tuple[str, ...] | None:
    """The words of a closed language, each once; None for free text."""
    with calling("task", task, "vocabulary"):
        found = task.vocabulary()
    words = found if isinstance(found, tuple | list) else ()
    wrong = [shown(word) for word in words if not is_text(word) or not word]
    if found is not None and (not words or wrong or len(set(words)) < len(words)):
        raise broken(task, "vocabulary", ", ".join(wrong) or shown(found), "a tuple of words, each once, or None")
    return None if found is None else tuple(words)


def pairs(task: Task, split: str) -> list[Pair]:
    """The pairs of a split."""
    with calling("task", task, "pairs"):
        return items(task, f"pairs({split!r})", task.pairs(split), Pair)


def begin(task: Task) -> Written:
    """Lets the task begin to judge rollouts."""

    def written(rollouts: Sequence[Rollout]) -> None:
        with calling("task", task, "begin"):
            task.begin(list(rollouts))

    return written


def feedback(task: Task, rollouts: Sequence[Rollout]) -> list[Feedback]:
    """What the task says of each rollout."""
    with calling("task", task, "verify"):
        found = items(task, "verify", task.verify(list(rollouts)), Feedback, len(rollouts), "rollout")
    wrong = [f"{fault}, of item {i}" for i, judged in enumerate(found) for fault in feedback_faults(judged)]
    refuse(task, "verify", wrong, "a score from 0 to 1, a Verdict, and a mapping with names for keys as evidence")
    return [judged if type(judged.score) is float else replace(judged, score=float(judged.score)) for judged in found]


def starts(sampler: StateSampler, count: int, progress: float, limits: Limits) -> list[State]:
    """Where to start writing."""
    with calling("sampler", sampler, "sample"):
        made = sampler.sample(count, progress)
    found = items(sampler, "sample", made, State, count, "start that was asked for")
    wrong = state_faults(found, limits) or [
        f"problem {s.problem.id!r} of item {i}, which start did not give" if s.problem.id not in limits.problems
        else f"problem {s.problem.id!r} of item {i}, changed since start gave it"
        for i, s in enumerate(found) if stranger(s, limits)
    ]  # fmt: skip
    refuse(
        sampler, "sample", wrong,
        f"a Problem that start gave, token ids below {limits.vocabulary}, fewer than {limits.response}, as prefix, and "
        "a name or None as origin",
    )  # fmt: skip
    return found


def rollouts(
    engine: RolloutEngine, states: Sequence[State], *how: Any, vocabulary: int | None = None, **told: Any
) -> list[Rollout]:
    """What the engine writes from these states, of so many tokens; the other arguments are those of ``generate``."""
    with calling("engine", engine, "generate"):
        made = engine.generate(list(states), *how, **told)
        longest = (how[0] if how and how[0] else engine.sampling).max_new_tokens
    found = items(engine, "generate", made, Rollout, len(states), "state")
    wrong = [
        f"rollout {i}: {fault}"
        for i, (state, rollout) in enumerate(zip(states, found, strict=True))
        for fault in rollout_faults(state, rollout, longest, vocabulary)
    ]
    refuse(engine, "generate", wrong, "what was written from each state, in order, with a finite number a token")
    return found


def pay(reward: Reward, rollout: Rollout, judged: Feedback) -> list[float]:
    """What each action is paid."""
    with calling("reward", reward, "__call__"):
        found = items(reward, "__call__", reward(rollout, judged), float, len(rollout.actions), "action")
    wrong = [f"{shown(number)} for action {i}" for i, number in enumerate(found) if not is_finite(number)]
    refuse(reward, "__call__", wrong, "finite numbers")
    return [float(number) for number in found]


def observed(kind: str, part: Reward | StateSampler, taken: Iterable[str], *what: Any) -> Metrics:
    """What a part tells of a batch that it is shown, under names that are not ``taken``."""
    with calling(kind, part, "observe"):
        found = part.observe(*(_lent(each, part) for each in what))
    told = metrics(part, "observe", found, finite=True)
    _refuse_ours(part, "observe", told, taken, (*RUNS, *LEARNERS))
    return told


def credit(objective: Objective, batch: Batch) -> Batch:
    """The batch with advantages and returns; whether these are finite shows in the loss."""
    with calling("objective", objective, "assign_credit"):
        found = objective.assign_credit(batch)
    wrong = batch_faults(found, *batch.tokens.shape)
    refuse(objective, "assign_credit", wrong, f"the Batch of {len(batch)} rows that it was given")
    return found


def experience(objective: Objective, rollouts: Sequence[Rollout], batch: Batch) -> Batch:
    """What to learn from."""
    with calling("objective", objective, "experience"):
        found = objective.experience(list(rollouts), batch)
    refuse(objective, "experience", batch_faults(found, None), "a Batch of at least one row")
    return found


def losses(objective: Objective, batch: Batch, output: PolicyOutput) -> tuple[Tensor, Tensor, Metrics]:
    """Both losses and the metrics."""
    expected = "two tensors of one number each, and metrics"
    with calling("objective", objective, "loss"):
        found = objective.loss(batch, output)
    if not isinstance(found, tuple) or len(found) != 3 or not all(map(_is_scalar, found[:2])):
        raise broken(objective, "loss", shown(found), expected)
    if output.logprobs.requires_grad and not found[0].requires_grad:
        raise broken(objective, "loss", f"{shown(found[0])} as actor loss, without a gradient", expected)
    told = metrics(objective, "loss", found[2], finite=False)
    _refuse_ours(objective, "loss", told, (), RUNS)
    return found[0], found[1], told


def apart(objective: Objective, told: Iterable[str], taken: Iterable[str]) -> None:
    """Refuse metrics of a loss under names that others have."""
    _refuse_ours(objective, "loss", told, taken, ())


def cuts(selection: Selection, response: TokenScores, legal: Sequence[int], rng: Random) -> list[int]:
    """Where a response is to be cut."""
    with calling("selection", selection, "cuts"):
        found = items(selection, "cuts", selection.cuts(response, list(legal), rng), int)
    if not set(found) <= set(legal) or found != sorted(set(found)):
        raise broken(selection, "cuts", shown(found), f"some of {shown(list(legal))}, in rising order")
    return found


def promise(selection: Selection, response: TokenScores, cut: int) -> float:
    """How promising a cut is."""
    with calling("selection", selection, "score"):
        found = selection.score(response, cut)
    if not is_finite(found):
        raise broken(selection, "score", shown(found), "a finite number")
    return float(found)


def helped(guidance: Guidance, problem: Problem, attempt: int, limits: Limits) -> State | None:
    """Where a guided try starts; None where there is no help."""
    with calling("guidance", guidance, "state"):
        found = guidance.state(problem, attempt)
    if found is None:
        return None
    same = isinstance(found, State) and isinstance(found.problem, Problem) and found.problem.id == problem.id
    wrong = state_faults([found], limits) if same and isinstance(found.origin, str) else [shown(found)]
    refuse(guidance, "state", wrong, f"a State of problem {problem.id!r} with an origin, or None")
    return found


def scores(model: RewardModel, asked: Sequence[tuple[str, str]]) -> list[float]:
    """A reward model's number for each (prompt, response); whether it is finite is for those to say who read it."""
    with calling("reward model", model, "score"):
        return items(model, "score", model.score(list(asked)), float, len(asked), "pair")


def judgements(judge: Judge, comparisons: Sequence[Comparison], show: Show) -> list[Judgement]:
    """What a judge says of each comparison."""
    with calling("judge", judge, "judge"):
        made = judge.judge(list(comparisons), show)
    found = items(judge, "judge", made, Judgement, len(comparisons), "comparison")
    wrong = [
        f"{shown(said)} as item {i}"
        for i, said in enumerate(found)
        if not isinstance(said.preference, Preference) or not isinstance(said.reason, str)
    ]
    refuse(judge, "judge", wrong, "a Preference and a text as reason")
    return found


def state(kind: str, part: Stateful) -> StateDict:
    """What a part would be saved as."""
    with calling(kind, part, "state_dict"):
        found = part.state_dict()
    if not isinstance(found, dict):
        raise broken(part, "state_dict", shown(found), "a dict of plain data, as in {'seen': 3}; {} if nothing changes")
    return found


def _lent(thing: Any, part: Any) -> Any:
    """A copy, so that what a stranger does to it changes nothing here."""
    if isinstance(thing, Batch) and is_own(part):
        return Batch(**{name: getattr(thing, name).clone() for name in thing.__dataclass_fields__})
    return list(thing) if isinstance(thing, list) else thing


def _refuse_ours(
    part: Any, method: str, told: Iterable[str], taken: Iterable[str], reserved: tuple[str, ...]
) -> None:  # fmt: skip
    """Refuse names of metrics that the run itself has."""
    names = set(taken)
    wrong = [f"a metric named {shown(name)}" for name in told if name in names or name.startswith(reserved)]
    words = ", ".join(reserved)
    rule = f", and that do not begin with {words}" if words else ""
    refuse(part, method, wrong, f"names that the run has not itself{rule}")


def _is_scalar(value: Any) -> bool:
    return isinstance(value, Tensor) and value.numel() == 1
