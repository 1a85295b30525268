"""What parts return, held to their contract at the border, so that a wrong one is told by its name and goes no further.

Every call of a part whose result others go on with is made here. Tokens are told by number, as the model knows them.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any, TypeVar

from torch import Tensor

from rrl.errors import ContractError
from rrl.interfaces import Guidance, Objective, Reward, RolloutEngine, Selection, StateSampler, Task
from rrl.scoring import Judge, Scorer
from rrl.types import (
    Batch,
    Comparison,
    Example,
    Feedback,
    Judgement,
    Metrics,
    Pair,
    PolicyOutput,
    Problem,
    Rollout,
    Scored,
    Show,
    State,
    Verdict,
)

Item = TypeVar("Item")
SHOWN, MOST = 80, 10
"""Characters of a value, and faults of one call, that are shown."""


def examples(task: Task, split: str) -> list[Example]:
    """The examples of a split: texts that can be written as UTF-8, under ids of their own."""
    call = f"examples({split!r})"
    found = _items(task, call, task.examples(split), Example)
    places = defaultdict[str, list[int]](list)
    for number, example in enumerate(found):
        places[example.id].append(number)
    double = [(name, numbers) for name, numbers in places.items() if len(numbers) > 1]
    _refuse(
        task, call, [f"examples {_enumerated(numbers)} have the same id {name!r}" for name, numbers in double],
        "an id of its own for each example",
    )  # fmt: skip
    return found


def demonstrations(task: Task, count: int, seed: int) -> list[Example]:
    """Examples to be shown, of which one may come again."""
    return _items(task, "demonstrations", task.demonstrations(count, seed), Example)


def pairs(task: Task, split: str) -> list[Pair]:
    """The pairs of a split."""
    return _items(task, f"pairs({split!r})", task.pairs(split), Pair)


def feedback(task: Task, rollouts: Sequence[Rollout]) -> list[Feedback]:
    """What the task says of each rollout."""
    found = _items(task, "verify", task.verify(rollouts), Feedback, len(rollouts), "rollout")
    wrong = [f"{fault}, of item {i}" for i, judged in enumerate(found) for fault in _feedback_faults(judged)]
    _refuse(task, "verify", wrong, "a score from 0 to 1, a Verdict, and a mapping with names for keys as evidence")
    return found


def starts(sampler: StateSampler, count: int, progress: float) -> list[State]:
    """Where to start writing."""
    found = _items(sampler, "sample", sampler.sample(count, progress), State, count, "start that was asked for")
    _refuse(
        sampler, "sample", _state_faults(found), "a Problem that start gave, token ids, and a name or None as origin"
    )
    return found


def rollouts(engine: RolloutEngine, states: Sequence[State], *how: Any, **told: Any) -> list[Rollout]:
    """What the engine writes from these states; the other arguments are those of ``generate``."""
    made = engine.generate(states, *how, **told)
    found = _items(engine, "generate", made, Rollout, len(states), "state")
    wrong = [
        f"rollout {i}: {fault}"
        for i, (state, rollout) in enumerate(zip(states, found, strict=True))
        for fault in _rollout_faults(state, rollout)
    ]
    _refuse(engine, "generate", wrong, "what was written from each state, in order, with a finite number a token")
    return found


def pay(reward: Reward, rollout: Rollout, judged: Feedback) -> list[float]:
    """What each action is paid."""
    found = _items(reward, "__call__", reward(rollout, judged), float, len(rollout.actions), "action")
    wrong = [f"{_shown(number)} for action {i}" for i, number in enumerate(found) if not math.isfinite(number)]
    _refuse(reward, "__call__", wrong, "finite numbers")
    return [float(number) for number in found]


def observed(part: Reward | StateSampler, *what: Any) -> Metrics:
    """What a part tells of a batch that it is shown."""
    return _metrics(part, "observe", part.observe(*what))


def credit(objective: Objective, batch: Batch) -> Batch:
    """The batch with advantages and returns; whether these are finite shows in the loss."""
    found = objective.assign_credit(batch)
    if not isinstance(found, Batch) or len(found) != len(batch):
        raise _broken(objective, "assign_credit", _shown(found), f"the Batch of {len(batch)} rows that it was given")
    return found


def experience(objective: Objective, rollouts: Sequence[Rollout], batch: Batch) -> Batch:
    """What to learn from."""
    found = objective.experience(rollouts, batch)
    if not isinstance(found, Batch) or not len(found):
        raise _broken(objective, "experience", _shown(found), "a Batch of at least one row")
    return found


def losses(objective: Objective, batch: Batch, output: PolicyOutput) -> tuple[Tensor, Tensor, Metrics]:
    """Both losses and the metrics."""
    found = objective.loss(batch, output)
    if not isinstance(found, tuple) or len(found) != 3 or not all(map(_is_scalar, found[:2])):
        raise _broken(objective, "loss", _shown(found), "two tensors of one number each, and metrics")
    return found[0], found[1], _metrics(objective, "loss", found[2])


def cuts(selection: Selection, response: Scored, legal: Sequence[int], rng: Random) -> list[int]:
    """Where a response is to be cut."""
    found = _items(selection, "cuts", selection.cuts(response, legal, rng), int)
    if not set(found) <= set(legal) or found != sorted(set(found)):
        raise _broken(selection, "cuts", _shown(found), f"some of {_shown(list(legal))}, in rising order")
    return found


def promise(selection: Selection, response: Scored, cut: int) -> float:
    """How promising a cut is."""
    found = selection.score(response, cut)
    if not _is(found, float) or not math.isfinite(found):
        raise _broken(selection, "score", _shown(found), "a finite number")
    return found


def helped(guidance: Guidance, problem: Problem, attempt: int) -> State | None:
    """Where a guided try starts; None where there is no help."""
    found = guidance.state(problem, attempt)
    if found is None:
        return None
    same = isinstance(found, State) and isinstance(found.problem, Problem) and found.problem.id == problem.id
    if not same or _state_faults([found]) or not isinstance(found.origin, str):
        raise _broken(guidance, "state", _shown(found), f"a State of problem {problem.id!r} with an origin, or None")
    return found


def scores(scorer: Scorer, asked: Sequence[tuple[str, str]]) -> list[float]:
    """A reward model's number for each (prompt, response); whether it is finite is for those to say who read it."""
    return _items(scorer, "score", scorer.score(asked), float, len(asked), "pair")


def judgements(judge: Judge, comparisons: Sequence[Comparison], show: Show) -> list[Judgement]:
    """What a judge says of each comparison."""
    return _items(judge, "judge", judge.judge(comparisons, show), Judgement, len(comparisons), "comparison")


# --- what is wrong ----------------------------------------------------------------------------------------------------


def _items(
    part: Any, method: str, value: Any, kind: type[Item], count: int | None = None, each: str = ""
) -> list[Item]:
    """The value as a list of ``count`` items of one kind (None: of any number)."""
    many = "" if count is None else f"{count} "
    one = f", one for each {each}" if each else ""
    expected = f"a list of {many}{kind.__name__}{one}"
    if not isinstance(value, list | tuple):
        raise _broken(part, method, _shown(value), expected)
    if count is not None and len(value) != count:
        raise _broken(part, method, f"{len(value)} items", expected)
    wrong = [f"{_shown(item)} as item {i}" for i, item in enumerate(value) if not _is(item, kind)]
    if kind in (Example, Pair) and not wrong:
        wrong = [f"{fault} of item {i}" for i, item in enumerate(value) for fault in _text_faults(item)]
        expected += " whose texts are strings that UTF-8 can hold"
    _refuse(part, method, wrong, expected)
    return list(value)


def _is(value: Any, kind: type[Any]) -> bool:
    """Whether it is of the kind; a whole number serves as any number, but a tensor does not."""
    if kind is float:
        return isinstance(value, float | int)
    return isinstance(value, kind) and not (kind is int and isinstance(value, bool))


def _text_faults(item: Example | Pair) -> list[str]:
    """Fields that are no text, or no text that can be written."""
    texts = {name: getattr(item, name) for name in item.__dataclass_fields__ if name not in ("strata", "turns")}
    if not isinstance(item.strata, Mapping):
        return [f"strata = {_shown(item.strata)}"]
    texts |= {f"strata[{kind!r}]": stratum for kind, stratum in item.strata.items()}
    return [f"{name} = {_shown(text)}" for name, text in texts.items() if not _is_text(text)]


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and (value.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in value))


def _feedback_faults(judged: Feedback) -> list[str]:
    faults = [] if _is(judged.score, float) and 0 <= judged.score <= 1 else [f"score {_shown(judged.score)}"]
    faults += [] if isinstance(judged.verdict, Verdict) else [f"verdict {_shown(judged.verdict)}"]
    named = isinstance(judged.evidence, Mapping) and all(isinstance(name, str) for name in judged.evidence)
    return faults if named else [*faults, f"evidence {_shown(judged.evidence)}"]


def _state_faults(states: Sequence[State]) -> list[str]:
    faults = [f"problem {_shown(s.problem)} of item {i}" for i, s in enumerate(states) if not _is(s.problem, Problem)]
    faults += [f"prefix {_shown(s.prefix)} of item {i}" for i, s in enumerate(states) if not _are_tokens(s.prefix)]
    named = [isinstance(s.origin, str | None) for s in states]
    return faults + [f"origin {_shown(states[i].origin)} of item {i}" for i, sound in enumerate(named) if not sound]


def _are_tokens(value: Any) -> bool:
    return isinstance(value, tuple) and all(_is(token, int) and token >= 0 for token in value)


def _rollout_faults(state: State, rollout: Rollout) -> list[str]:
    faults = [] if rollout.state is state or rollout.state == state else [f"of another state, {_shown(rollout.state)}"]
    if not rollout.actions or not _are_tokens(rollout.actions):
        faults.append(f"actions {_shown(rollout.actions)}")
    for name in ("logprobs", "kept"):
        numbers = getattr(rollout, name)
        sound = len(numbers) == len(rollout.actions) and all(_is(n, float) and math.isfinite(n) for n in numbers)
        faults += [] if sound else [f"{name} {_shown(numbers)} of {len(rollout.actions)} actions"]
    return faults if isinstance(rollout.response, str) else [*faults, f"response {_shown(rollout.response)}"]


def _metrics(part: Any, method: str, value: Any) -> Metrics:
    """A mapping of names to numbers."""
    if not isinstance(value, Mapping):
        raise _broken(part, method, _shown(value), "a mapping of names to numbers")
    wrong = [f"{_shown(k)}: {_shown(v)}" for k, v in value.items() if not isinstance(k, str) or not _is(v, float)]
    _refuse(part, method, wrong, "a mapping of names to numbers")
    return dict(value)


def _is_scalar(value: Any) -> bool:
    return isinstance(value, Tensor) and value.numel() == 1


def _refuse(part: Any, method: str, wrong: Sequence[str], expected: str) -> None:
    """Raise for what is wrong, if anything; the first few are shown and the rest counted."""
    if wrong:
        rest = f" and {len(wrong) - MOST} more" if len(wrong) > MOST else ""
        raise _broken(part, method, "; ".join(wrong[:MOST]) + rest, expected)


def _broken(part: Any, method: str, got: str, expected: str) -> ContractError:
    name = f"{type(part).__module__}.{type(part).__qualname__}.{method}"
    return ContractError(f"{name}: returned {got}; expected {expected}; mend this class (docs/adding-a-part.md)")


def _enumerated(numbers: Sequence[int]) -> str:
    return " and ".join(map(str, numbers[:MOST])) + (f" and {len(numbers) - MOST} more" if len(numbers) > MOST else "")


def _shown(value: Any) -> str:
    """A value and its type in a few words, whatever its own ``repr`` does."""
    try:
        text = ascii(value)
    except Exception as error:  # it is a stranger's
        text = f"<{type(error).__name__} in its repr>"
    return f"{text if len(text) <= SHOWN else f'{text[:SHOWN]}...'} ({type(value).__name__})"
