"""Faults in the results of parts, as messages; tokens are shown as ids."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import Tensor

from rrl.contracts.calling import named
from rrl.errors import ContractError
from rrl.types import Batch, Example, Feedback, Pair, Problem, Rollout, State, Verdict

Item = TypeVar("Item")
SHOWN, MOST = 80, 10
"""Characters of a value, and faults of one call, that are shown."""


@dataclass(frozen=True, kw_only=True)
class StateLimits:
    """The limits of states: the ``problems`` that ``start`` gave, by id, and numbers of tokens.

    The model embeds ``vocabulary`` tokens; a ``response`` and a ``prompt`` have at most so many.
    """

    problems: Mapping[str, Problem]
    vocabulary: int
    response: int
    prompt: int


def items(part: Any, method: str, value: Any, kind: type[Item], count: int | None = None, each: str = "") -> list[Item]:
    """The value as a list of ``count`` items of one kind (None: any number)."""
    many = "" if count is None else f"{count} "
    one = f", one for each {each}" if each else ""
    expected = f"a list of {many}{kind.__name__}{one}"
    if not isinstance(value, list | tuple):
        raise contract_error(part, method, typed_repr(value), expected)
    if count is not None and len(value) != count:
        raise contract_error(part, method, f"{len(value)} items", expected)
    wrong = [f"{typed_repr(item)} as item {i}" for i, item in enumerate(value) if not is_a(item, kind)]
    if kind in (Example, Pair) and not wrong:
        wrong = [f"{fault} of item {i}" for i, item in enumerate(value) for fault in _text_faults(item)]
        expected += " with texts that are strings that UTF-8 can encode"
    refuse_result(part, method, wrong, expected)
    return list(value)


def is_a(value: Any, kind: type[Any]) -> bool:
    """Whether the value is of the kind; an int is also a float, a tensor is neither, a bool is no int."""
    if kind is float:
        return isinstance(value, float | int)
    return isinstance(value, kind) and not (kind is int and isinstance(value, bool))


def is_finite(value: Any) -> bool:
    """Whether the value is a finite number."""
    return is_a(value, float) and math.isfinite(value)


def is_text(value: Any) -> bool:
    """Whether the value is a text that UTF-8 can encode."""
    return isinstance(value, str) and (value.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in value))


def feedback_faults(judged: Feedback) -> list[str]:
    """Faults in score, verdict and evidence."""
    faults = [] if is_a(judged.score, float) and 0 <= judged.score <= 1 else [f"score {typed_repr(judged.score)}"]
    faults += [] if isinstance(judged.verdict, Verdict) else [f"verdict {typed_repr(judged.verdict)}"]
    known = isinstance(judged.evidence, Mapping) and all(isinstance(name, str) for name in judged.evidence)
    return faults if known else [*faults, f"evidence {typed_repr(judged.evidence)}"]


def state_faults(states: Sequence[State], limits: StateLimits) -> list[str]:
    """Faults in the types of start states or, without any, in their tokens."""
    faults = [
        f"problem {typed_repr(s.problem)} of item {i}" for i, s in enumerate(states) if not is_a(s.problem, Problem)
    ]
    faults += [f"prefix {typed_repr(s.prefix)} of item {i}" for i, s in enumerate(states) if not are_tokens(s.prefix)]
    for name in ("replayed_from", "help"):
        given = [(i, getattr(state, name)) for i, state in enumerate(states)]
        faults += [f"{name} {typed_repr(value)} of item {i}" for i, value in given if not isinstance(value, str | None)]
    return faults or [
        f"{fault} of item {i}" for i, state in enumerate(states) for fault in _token_faults(state, limits)
    ]


def _token_faults(state: State, limits: StateLimits) -> Iterator[str]:
    """Why a model cannot write from a state within its limits."""
    problem, prefix = state.problem, state.prefix
    if not problem.prompt or not are_tokens(problem.prompt):
        yield f"prompt {typed_repr(problem.prompt)}"
    elif len(problem.prompt) > limits.prompt:
        yield f"a prompt of {len(problem.prompt)} tokens (at most {limits.prompt})"
    elif max(problem.prompt) >= limits.vocabulary:
        yield f"token {max(problem.prompt)} in the prompt (the model embeds {limits.vocabulary})"
    if max(prefix, default=0) >= limits.vocabulary:
        yield f"token {max(prefix)} in the prefix (the model embeds {limits.vocabulary})"
    if len(prefix) >= limits.response:
        yield f"a prefix of {len(prefix)} tokens (a whole response has at most {limits.response})"


def is_foreign(state: State, limits: StateLimits) -> bool:
    """Whether the state's problem differs from all that ``start`` gave."""
    known = limits.problems.get(state.problem.id)
    return known is not state.problem and known != state.problem


def are_tokens(value: Any) -> bool:
    """Whether the value is a tuple of possible token ids."""
    return isinstance(value, tuple) and all(is_a(token, int) and token >= 0 for token in value)


def rollout_faults(state: State, rollout: Rollout, longest: int, vocabulary: int | None) -> list[str]:
    """Faults in a rollout from a state of at most ``longest`` tokens, its prefix included."""
    same = rollout.state is state or rollout.state == state
    faults = [] if same else [f"of another state, {typed_repr(rollout.state)}"]
    if not rollout.actions or not are_tokens(rollout.actions):
        return [*faults, f"actions {typed_repr(rollout.actions)}"]
    if vocabulary is not None and max(rollout.actions) >= vocabulary:
        faults.append(f"token {max(rollout.actions)} in the actions (the model embeds {vocabulary})")
    if len(rollout.actions) > max(1, longest - len(state.prefix)):
        faults.append(f"{len(rollout.actions)} actions behind {len(state.prefix)} tokens (at most {longest} together)")
    for name in ("logprobs", "kept"):
        numbers = getattr(rollout, name)
        sound = isinstance(numbers, tuple | list) and len(numbers) == len(rollout.actions)
        if not sound or not all(map(is_finite, numbers)):
            faults.append(f"{name} {typed_repr(numbers)} of {len(rollout.actions)} actions")
    kinds = {"finished": bool, "response": str, "version": int}
    values = {name: getattr(rollout, name) for name in kinds}
    return faults + [f"{name} {typed_repr(value)}" for name, value in values.items() if not is_a(value, kinds[name])]


def batch_faults(found: Any, rows: int | None, columns: int | None = None) -> list[str]:
    """Faults in the shapes of a batch with so many rows (None: at least one) and columns (None: any number)."""
    if not isinstance(found, Batch) or not isinstance(found.tokens, Tensor) or found.tokens.dim() != 2:
        return [typed_repr(found)]
    size = (rows or max(1, len(found)), columns or found.tokens.shape[1])
    shapes = {name: tuple(getattr(getattr(found, name), "shape", ())) for name in found.__dataclass_fields__}
    due = {name: size[:1] if name in ("group", "level", "replayed") else size for name in shapes}
    return [f"{name} of shape {list(shapes[name])}, not {list(due[name])}" for name in due if shapes[name] != due[name]]


def metrics(part: Any, method: str, value: Any, *, finite: bool) -> dict[str, float]:
    """A mapping of names to numbers, as floats."""
    expected = f"a mapping of names to {'finite ' if finite else ''}numbers"
    if not isinstance(value, Mapping):
        raise contract_error(part, method, typed_repr(value), expected)
    sound = is_finite if finite else lambda number: is_a(number, float)
    wrong = [f"{typed_repr(k)}: {typed_repr(v)}" for k, v in value.items() if not is_text(k) or not sound(v)]
    refuse_result(part, method, wrong, expected)
    return {name: float(number) for name, number in value.items()}


def refuse_result(part: Any, method: str, wrong: Sequence[str], expected: str) -> None:
    """Raise ContractError for faults, if any; the first MOST are shown and the rest counted."""
    if wrong:
        rest = f" and {len(wrong) - MOST} more" if len(wrong) > MOST else ""
        raise contract_error(part, method, "; ".join(wrong[:MOST]) + rest, expected)


def contract_error(part: Any, method: str, got: str, expected: str) -> ContractError:
    """The error for a part that returned something else than expected."""
    return ContractError(
        f"{named(part, method)}: returned {got}; expected {expected}; fix this class (docs/adding-a-part.md)"
    )


def enumerated(numbers: Sequence[int]) -> str:
    """The first MOST numbers, as in 1 and 2."""
    return " and ".join(map(str, numbers[:MOST])) + (f" and {len(numbers) - MOST} more" if len(numbers) > MOST else "")


def typed_repr(value: Any) -> str:
    """A value, shortened, and its type; safe against errors in its ``repr``."""
    try:
        text = ascii(value)
    except Exception as error:  # a user's ``repr`` may raise anything
        text = f"<{type(error).__name__} in its repr>"
    return f"{text if len(text) <= SHOWN else f'{text[:SHOWN]}...'} ({type(value).__name__})"


def _text_faults(item: Example | Pair) -> list[str]:
    """Fields that are not texts, or that UTF-8 cannot encode."""
    texts = {name: getattr(item, name) for name in item.__dataclass_fields__ if name not in ("strata", "turns")}
    if not isinstance(item.strata, Mapping):
        return [f"strata = {typed_repr(item.strata)}"]
    texts |= {f"strata[{kind!r}]": stratum for kind, stratum in item.strata.items()}
    faults = [f"{name} = {typed_repr(text)}" for name, text in texts.items() if not is_text(text)]
    sound = isinstance(item, Pair) or (isinstance(item.turns, tuple | list) and all(map(_is_turn, item.turns)))
    return faults if sound else [*faults, f"turns = {typed_repr(item.turns)}"]  # type: ignore[union-attr]


def _is_turn(turn: Any) -> bool:
    known = isinstance(turn, Mapping) and turn.keys() == {"role", "content"}
    return known and turn["role"] in ("user", "assistant", "system") and is_text(turn["content"])
