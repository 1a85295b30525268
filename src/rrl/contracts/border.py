"""Calls of parts with checked results, so that an error names the part that caused it.

Every call with a result that other code uses is made here or in judging.py; parts receive copies of lists and batches.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from random import Random
from typing import Any

from torch import Tensor

from rrl.contracts.breaches import (
    StateLimits,
    batch_faults,
    contract_error,
    enumerated,
    feedback_faults,
    is_finite,
    is_foreign,
    is_text,
    items,
    metrics,
    refuse_result,
    rollout_faults,
    state_faults,
    typed_repr,
)
from rrl.contracts.calling import calling, is_own, named
from rrl.contracts.siblings import Siblings
from rrl.errors import DataError
from rrl.interfaces import (
    Objective,
    Reward,
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
    Example,
    Feedback,
    Judged,
    Metrics,
    Pair,
    PolicyOutput,
    Rollout,
    State,
    StateEvent,
    TokenScores,
)

RUNS = ("training/", "budget/", "timing_s/", "perf/", "val/", "val-core/")
"""Prefixes of the run's own metrics."""
LEARNERS = ("actor/", "critic/")
"""Prefixes of the metrics of objectives and policies."""


def examples(task: Task, split: str) -> list[Example]:
    """The examples of a split: with texts that UTF-8 can encode and unique ids."""
    call = f"examples({split!r})"
    with calling("task", task, call):
        found = items(task, call, task.examples(split), Example)
    if not found:
        raise DataError(
            f"data: no problem in the split {split!r} ({named(task, call)}); expected at least one; give "
            "another data set or split"
        )
    places = defaultdict[str, list[int]](list)
    for number, example in enumerate(found):
        places[example.id].append(number)
    repeated = [(name, numbers) for name, numbers in places.items() if len(numbers) > 1]
    wrong = [f"examples {enumerated(numbers)} have the same id {name!r}" for name, numbers in repeated]
    refuse_result(task, call, wrong, "a different id for each example")
    return found


def demonstrations(task: Task, count: int, seed: int) -> list[Example]:
    """Examples for supervised training; ids may repeat."""
    with calling("task", task, "demonstrations"):
        return items(task, "demonstrations", task.demonstrations(count, seed), Example)


def vocabulary(task: Task) -> tuple[str, ...] | None:
    """The words of a closed language, each once; None for free text."""
    with calling("task", task, "vocabulary"):
        found = task.vocabulary()
    words = found if isinstance(found, tuple | list) else ()
    wrong = [typed_repr(word) for word in words if not is_text(word) or not word]
    if found is not None and (not words or wrong or len(set(words)) < len(words)):
        raise contract_error(
            task, "vocabulary", ", ".join(wrong) or typed_repr(found), "a tuple of words, each once, or None"
        )
    return None if found is None else tuple(words)


def pairs(task: Task, split: str) -> list[Pair]:
    with calling("task", task, "pairs"):
        return items(task, f"pairs({split!r})", task.pairs(split), Pair)


def begin(task: Task) -> Written:
    """A callback that lets the task begin to judge rollouts."""

    def written(rollouts: Sequence[Rollout]) -> None:
        with calling("task", task, "begin"):
            task.begin(list(rollouts))

    return written


def feedback(task: Task, rollouts: Sequence[Rollout]) -> list[Feedback]:
    with calling("task", task, "verify"):
        found = items(task, "verify", task.verify(list(rollouts)), Feedback, len(rollouts), "rollout")
    wrong = [f"{fault}, of item {i}" for i, judged in enumerate(found) for fault in feedback_faults(judged)]
    refuse_result(
        task, "verify", wrong, "a score from 0 to 1, a Verdict, and a mapping with names for keys as evidence"
    )
    return [judged if type(judged.score) is float else replace(judged, score=float(judged.score)) for judged in found]


def starts(
    sampler: StateSampler, count: int, progress: float, limits: StateLimits, siblings: Siblings | None = None
) -> list[State]:  # fmt: skip
    """The start states that a sampler chooses: ``count``, or by ``siblings`` those that take as many rollouts."""
    with calling("sampler", sampler, "sample"):
        chosen = sampler.sample(count, progress)
        found = items(sampler, "sample", chosen, State, count if siblings is None else None, "requested start")
    if siblings is not None and not siblings.fill(found, count):
        raise contract_error(sampler, "sample", siblings.got(found), siblings.expected(count))
    wrong = state_faults(found, limits) or [
        f"problem {s.problem.id!r} of item {i}, "
        + ("changed since start gave it" if s.problem.id in limits.problems else "which start did not give")
        for i, s in enumerate(found)
        if is_foreign(s, limits)
    ]
    tokens = f"token ids below {limits.vocabulary}, fewer than {limits.response}, as prefix"
    refuse_result(sampler, "sample", wrong, f"a Problem that start gave, {tokens}, and a name or None as replayed_from")
    return found


def remembered(sampler: StateSampler, limits: StateLimits) -> list[State]:
    """The states that a sampler may go back to."""
    with calling("sampler", sampler, "remembered"):
        found = items(sampler, "remembered", sampler.remembered(), State)
    refuse_result(sampler, "remembered", state_faults(found, limits), "states as sample may give them")
    return found


def rollouts(
    engine: RolloutEngine, states: Sequence[State], *how: Any, vocabulary: int | None = None, **options: Any
) -> list[Rollout]:
    """The engine's rollouts from these states, with tokens below ``vocabulary``; ``how`` is passed to ``generate``."""
    with calling("engine", engine, "generate"):
        made = engine.generate(list(states), *how, **options)
        longest = (how[0] if how and how[0] else engine.sampling).max_new_tokens
    return written(engine, "generate", made, states, longest, vocabulary)


def written(
    engine: RolloutEngine, call: str, made: Any, states: Sequence[State], longest: int, vocabulary: int | None
) -> list[Rollout]:
    """What an engine has written from these states."""
    found = items(engine, call, made, Rollout, len(states), "state")
    wrong = [
        f"rollout {i}: {fault}"
        for i, (state, rollout) in enumerate(zip(states, found, strict=True))
        for fault in rollout_faults(state, rollout, longest, vocabulary)
    ]
    refuse_result(engine, call, wrong, "a rollout from each state, in order, with a finite number for each token")
    return found


def token_rewards(reward: Reward, judged: Judged) -> list[float]:
    with calling("reward", reward, "__call__"):
        found = items(reward, "__call__", reward(judged), float, len(judged.rollout.actions), "action")
    wrong = [f"{typed_repr(number)} for action {i}" for i, number in enumerate(found) if not is_finite(number)]
    refuse_result(reward, "__call__", wrong, "finite numbers")
    return [float(number) for number in found]


def observed(kind: str, part: Reward | StateSampler | Objective, taken: Iterable[str], *what: Any) -> Metrics:
    """The metrics of a part that observes a batch, under names that are not ``taken``."""
    with calling(kind, part, "observe"):
        found = part.observe(*(_copied(each, part) for each in what))
    checked = metrics(part, "observe", found, finite=True)
    _refuse_names(part, "observe", checked, taken, (*RUNS, *LEARNERS))
    return checked


def credit(objective: Objective, batch: Batch) -> Batch:
    """The batch with advantages and returns, which may be infinite: the loss is checked later."""
    with calling("objective", objective, "assign_credit"):
        found = objective.assign_credit(batch)
    wrong = batch_faults(found, *batch.tokens.shape)
    refuse_result(objective, "assign_credit", wrong, f"the Batch of {len(batch)} rows that it was given")
    return found


def experience(objective: Objective, sampler: StateSampler, rollouts: Sequence[Rollout], batch: Batch) -> Batch:
    """The batch to learn from: the objective's, as the sampler completes it."""
    chosen = _experience("objective", objective, rollouts, batch)
    return _experience("sampler", sampler, chosen)


def _experience(kind: str, part: Objective | StateSampler, *what: Any) -> Batch:
    with calling(kind, part, "experience"):
        found = part.experience(*(_copied(each, part) for each in what))
    refuse_result(part, "experience", batch_faults(found, None), "a Batch of at least one row")
    return found


def losses(objective: Objective, batch: Batch, output: PolicyOutput) -> tuple[Tensor, Tensor, Metrics]:
    expected = "two tensors of one number each, and metrics"
    with calling("objective", objective, "loss"):
        found = objective.loss(batch, output)
    three = found if isinstance(found, tuple) and len(found) == 3 else ()
    if [value.numel() for value in three[:2] if isinstance(value, Tensor)] != [1, 1]:
        raise contract_error(objective, "loss", typed_repr(found), expected)
    if output.logprobs.requires_grad and not found[0].requires_grad:
        raise contract_error(objective, "loss", f"{typed_repr(found[0])} as actor loss, without a gradient", expected)
    checked = metrics(objective, "loss", found[2], finite=False)
    _refuse_names(objective, "loss", checked, (), RUNS)
    return found[0], found[1], checked


def refuse_taken(objective: Objective, names: Iterable[str], taken: Iterable[str]) -> None:
    """Refuse metrics of a loss under ``taken`` names."""
    _refuse_names(objective, "loss", names, taken, ())


def cuts(selection: Selection, response: TokenScores, legal: Sequence[int], rng: Random) -> list[int]:
    """The positions at which to cut a response."""
    with calling("selection", selection, "cuts"):
        found = items(selection, "cuts", selection.cuts(response, list(legal), rng), int)
    if not set(found) <= set(legal) or found != sorted(set(found)):
        raise contract_error(
            selection, "cuts", typed_repr(found), f"some of {typed_repr(list(legal))}, in rising order"
        )
    return found


def cut_score(selection: Selection, response: TokenScores, cut: int) -> float:
    """The selection's score of a cut."""
    with calling("selection", selection, "score"):
        found = selection.score(response, cut)
    if not is_finite(found):
        raise contract_error(selection, "score", typed_repr(found), "a finite number")
    return float(found)


def events(sampler: StateSampler) -> list[StateEvent]:
    """What became of remembered states in the last step."""
    with calling("sampler", sampler, "events"):
        return items(sampler, "events", sampler.events(), StateEvent)


def state(kind: str, part: Stateful) -> StateDict:
    """The state that a part is saved as."""
    with calling(kind, part, "state_dict"):
        found = part.state_dict()
    if not isinstance(found, dict):
        raise contract_error(
            part, "state_dict", typed_repr(found), "a dict of plain data, as in {'seen': 3}; {} if nothing changes"
        )
    return found


def _copied(value: Any, part: Any) -> Any:
    """A copy, so that changes by a user's part have no effect here."""
    if isinstance(value, Batch) and is_own(part):
        return Batch(**{name: getattr(value, name).clone() for name in value.__dataclass_fields__})
    return list(value) if isinstance(value, list) else value


def _refuse_names(
    part: Any, method: str, names: Iterable[str], taken: Iterable[str], reserved: tuple[str, ...]
) -> None:
    """Refuse names of metrics that are taken or begin with a reserved prefix."""
    known = set(taken)
    wrong = [f"a metric named {typed_repr(name)}" for name in names if name in known or name.startswith(reserved)]
    rule = f", and that do not begin with {', '.join(reserved)}" if reserved else ""
    refuse_result(part, method, wrong, f"names that the run does not use itself{rule}")
