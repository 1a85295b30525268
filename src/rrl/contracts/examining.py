"""Calls of selection rules that have more written, with checked results, as border.py has them for the other parts."""

from collections.abc import Sequence
from random import Random

from rrl.contracts.breaches import contract_error, is_a, is_finite, items, metrics, refuse_result, typed_repr
from rrl.contracts.calling import calling
from rrl.interfaces import Found, Objective, Selection, StateSampler
from rrl.types import Metrics, State


def expense(kind: str, part: Selection | StateSampler | Objective, *sizes: int) -> int:
    """The tokens that a part has written at most in a step; ``sizes`` are what the part is asked with."""
    with calling(kind, part, "expense"):
        found = part.expense(*sizes)
    if not is_a(found, int) or found < 0:
        raise contract_error(part, "expense", typed_repr(found), "a number of tokens, 0 or more")
    return found


def examined(
    selection: Selection, responses: Sequence[State], legal: Sequence[Sequence[int]], rng: Random
) -> tuple[list[Found], Metrics]:
    """What a rule has found out about cuts of these responses, and its metrics."""
    with calling("selection", selection, "examine"):
        result = selection.examine(list(responses), [list(cuts) for cuts in legal], rng)
    if not isinstance(result, tuple) or len(result) != 2:
        raise contract_error(selection, "examine", typed_repr(result), "a list of dicts, and metrics")
    found = items(selection, "examine", result[0], dict, len(responses), "response")
    wrong = [
        f"{typed_repr(one)} for response {i}"
        for i, (one, cuts) in enumerate(zip(found, legal, strict=True))
        if not set(one) <= set(cuts) or not all(map(is_finite, one.values()))
    ]
    refuse_result(selection, "examine", wrong, "finite numbers of legal cuts")
    return found, metrics(selection, "examine", result[1], finite=True)
