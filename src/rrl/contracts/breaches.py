"""What is wrong with what a part returned, in words; tokens are told by number, as the model knows them."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import Tensor

from rrl.contracts.tracebacks import named
from rrl.errors import ContractError
from rrl.types import Batch, Example, Feedback, Pair, Problem, Rollout, State, Verdict

Item = TypeVar("Item")
SHOWN, MOST = 80, 10
"""Characters of a value, and faults of one call, that are shown."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What states keep to: the ``problems`` that ``start`` gave, by id, and counts of tokens.

    The model embeds ``vocabulary`` of them; a ``response`` and a ``prompt`` are at most so long.
    """

    problems: Mapping[str, Problem]
    vocabulary: int
    response: int
    prompt: int


def items(part: Any, method: str, value: Any, kind: type[Item], count: int | None = None, each: str = "") -> list[Item]:
    """The value as a list of ``count`` items of one kind (None: of any number)."""
    many = "" if count is None else f"{count} "
    one = f", one for each {each}" if each else ""
    expected = f"a list of {many}{kind.__name__}{one}"
    if not isinstance(value, list | tuple):
        raise broken(part, method, shown(value), expected)
    if count is not None and len(value) != count:
        raise broken(part, method, f"{len(value)} items", expected)
    wrong = [f"{shown(item)} as item {i}" for i, item in enumerate(value) if not is_a(item, kind)]
    if kind in (Example, Pair) and not wrong:
        wrong = [f"{fault} of item {i}" for i, item in enumerate(value) for fault in _text_faults(item)]
        expected += " whose texts are strings that UTF-8 can hold"
    refuse(part, method, wrong, expected)
    return list(value)


def is_a(value: Any, kind: type[Any]) -> bool:
    """Whether it is of the kind; a whole number serves as any number, but a tensor does not."""
    if kind is float:
        return isinstance(value, float | int)
    return isinstance(value, kind) and not (kind is int and isinstance(value, bool))


def is_finite(value: Any) -> bool:
    """Whether it is a number that is finite."""
    return is_a(value, float) and math.isfinite(value)


def is_text(value: Any) -> bool:
    """Whether it is a text that can be written as UTF-8."""
    return isinstance(value, str) and (value.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in value))


def feedback_faults(judged: Feedback) -> list[str]:
    """Of a score, a verdict and its evidence."""
    faults = [] if is_a(judged.score, float) and 0 <= judged.score <= 1 else [f"score {shown(judged.score)}"]
    faults += [] if isinstance(judged.verdict, Verdict) else [f"verdict {shown(judged.verdict)}"]
    known = isinstance(judged.evidence, Mapping) and all(isinstance(name, str) for name in judged.evidence)
    return faults if known else [*faults, f"evidence {shown(judged.evidence)}"]


def state_faults(states: Sequence[State], limits: Limits) -> list[str]:
    """Of start states: what they are made of, then whether a model can write from them."""
    faults = [f"problem {shown(s.problem)} of item {i}" for i, s in enumerate(states) if not is_a(s.problem, Problem)]
    faults += [f"prefix {shown(s.prefix)} of item {i}" for i, s in enumerate(states) if not are_tokens(s.prefix)]
    wrong = [i for i, s in enumerate(states) if not isinstance(s.origin, str | None)]
    faults += [f"origin {shown(states[i].origin)} of item {i}" for i in wrong]
    return faults or [f"{fault} of item {i}" for i, state in enumerate(states) for fault in _misfits(state, limits)]


def _misfits(state: State, limits: Limits) -> Iterator[str]:
    """Why a model cannot write from a state, or not within its limits."""
    problem, prefix = state.problem, state.prefix
    if not problem.prompt or not are_tokens(problem.prompt):
        yield f"prompt {shown(problem.prompt)}"
    elif len(problem.prompt) > limits.prompt:
        yield f"a prompt of {len(problem.prompt)} tokens (at most {limits.prompt})"
    elif max(problem.prompt) >= limits.vocabulary:
        yield f"token {max(problem.prompt)} in the prompt (the model embeds {limits.vocabulary})"
    if max(prefix, default=0) >= limits.vocabulary:
        yield f"token {max(prefix)} in the prefix (the model embeds {limits.vocabulary})"
    if len(prefix) >= limits.response:
        yield f"a prefix of {len(prefix)} tokens (a whole response has at most {limits.response})"


def stranger(state: State, limits: Limits) -> bool:
    """Whether it is of a problem that ``start`` did not give."""
    known = limits.problems.get(state.problem.id)
    return known is not state.problem and known != state.problem


def are_tokens(value: Any) -> bool:
    """Whether it is a tuple of numbers that a tokenizer could have given."""
    return isinstance(value, tuple) and all(is_a(token, int) and token >= 0 for token in value)


def rollout_faults(state: State, rollout: Rollout, longest: int, vocabulary: int | None) -> list[str]:
    """Of what was written from a state, in at most ``longest`` tokens with its prefix."""
    faults = [] if rollout.state is state or rollout.state == state else [f"of another state, {shown(rollout.state)}"]
    if not rollout.actions or not are_tokens(rollout.actions):
        return [*faults, f"actions {shown(rollout.actions)}"]
    if vocabulary is not None and max(rollout.actions) >= vocabulary:
        faults.append(f"token {max(rollout.actions)} in the actions (the model embeds {vocabulary})")
    if len(rollout.actions) > max(1, longest - len(state.prefix)):
        faults.append(f"{len(rollout.actions)} actions behind {len(state.prefix)} tokens (at most {longest} together)")
    for name in ("logprobs", "kept"):
        numbers = getattr(rollout, name)
        sound = isinstance(numbers, tuple | list) and len(numbers) == len(rollout.actions)
        if not sound or not all(map(is_finite, numbers)):
            faults.append(f"{name} {shown(numbers)} of {len(rollout.actions)} actions")
    kinds = {"finished": bool, "response": str, "version": int}
    told = {name: getattr(rollout, name) for name, kind in kinds.items() if not is_a(getattr(rollout, name), kind)}
    return [*faults, *(f"{name} {shown(value)}" for name, value in told.items())]


def batch_faults(found: Any, rows: int | None, columns: int | None = None) -> list[str]:
    """Of a batch with so many rows (None: any number but none) and columns: cells missing, or too many."""
    if not isinstance(found, Batch) or not isinstance(found.tokens, Tensor) or found.tokens.dim() != 2:
        return [shown(found)]
    size = (rows or max(1, len(found)), columns or found.tokens.shape[1])
    shapes = {name: tuple(getattr(getattr(found, name), "shape", ())) for name in found.__dataclass_fields__}
    due = {name: size[:1] if name in ("group", "level") else size for name in shapes}
    return [f"{name} of shape {list(shapes[name])}, not {list(due[name])}" for name in due if shapes[name] != due[name]]


def metrics(part: Any, method: str, value: Any, *, finite: bool) -> dict[str, float]:
    """A mapping of names to numbers, as floats."""
    expected = f"a mapping of names to {'finite ' if finite else ''}numbers"
    if not isinstance(value, Mapping):
        raise broken(part, method, shown(value), expected)
    sound = is_finite if finite else lambda number: is_a(number, float)
    wrong = [f"{shown(k)}: {shown(v)}" for k, v in value.items() if not is_text(k) or not sound(v)]
    refuse(part, method, wrong, expected)
    return {name: float(number) for name, number in value.items()}


def refuse(part: Any, method: str, wrong: Sequence[str], expected: str) -> None:
    """Raise for what is wrong, if anything; the first few are shown and the rest counted."""
    if wrong:
        rest = f" and {len(wrong) - MOST} more" if len(wrong) > MOST else ""
        raise broken(part, method, "; ".join(wrong[:MOST]) + rest, expected)


def broken(part: Any, method: str, got: str, expected: str) -> ContractError:
    """That a part returned something else than was expected."""
    return ContractError(
        f"{named(part, method)}: returned {got}; expected {expected}; mend this class (docs/adding-a-part.md)"
    )


def enumerated(numbers: Sequence[int]) -> str:
    """Numbers in words, the first few."""
    return " and ".join(map(str, numbers[:MOST])) + (f" and {len(numbers) - MOST} more" if len(numbers) > MOST else "")


def shown(value: Any) -> str:
    """A value and its type in a few words, whatever its own ``repr`` does."""
    try:
        text = ascii(value)
    except Exception as error:  # it is a stranger's
        text = f"<{type(error).__name__} in its repr>"
    return f"{text if len(text) <= SHOWN else f'{text[:SHOWN]}...'} ({type(value).__name__})"


def _text_faults(item: Example | Pair) -> list[str]:
    """Fields that are no text, or no text that can be written."""
    texts = {name: getattr(item, name) for name in item.__dataclass_fields__ if name not in ("strata", "turns")}
    if not isinstance(item.strata, Mapping):
        return [f"strata = {shown(item.strata)}"]
    texts |= {f"strata[{kind!r}]": stratum for kind, stratum in item.strata.items()}
    faults = [f"{name} = {shown(text)}" for name, text in texts.items() if not is_text(text)]
    sound = isinstance(item, Pair) or (isinstance(item.turns, tuple | list) and all(map(_is_turn, item.turns)))
    return faults if sound else [*faults, f"turns = {shown(item.turns)}"]  # type: ignore[union-attr]


def _is_turn(turn: Any) -> bool:
    known = isinstance(turn, Mapping) and turn.keys() == {"role", "content"}
    return known and turn["role"] in ("user", "assistant", "system") and is_text(turn["content"])
