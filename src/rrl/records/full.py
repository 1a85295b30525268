"""Full records, by key: the numbers of every token of dumped rollouts, and what became of every remembered state."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # a sweep's launcher starts faster without torch
    from torch import Tensor

    from rrl.types import Batch, Judged, Rollout, StateEvent

NUMBERS = ("old_logprobs", "ref_logprobs", "values", "entropies", "advantages", "rewards")
"""The tensors of a batch that are recorded."""
OPTIONAL = ("ref_logprobs", "values", "entropies")
"""Those that are zero where no network has computed them."""


@dataclass(frozen=True, kw_only=True)
class FullRecords:
    """What is recorded beside the rows of metrics, evaluations and rollouts (docs/records.md)."""

    def rows(
        self, rows: Sequence[Mapping[str, Any]], judged: "Sequence[Judged]",
        learnt: "tuple[Sequence[Rollout], Batch] | None", tokenizer: Any,
    ) -> list[dict[str, Any]]:  # fmt: skip
        """The rows of dumped rollouts with texts and numbers of their tokens.

        ``learnt`` are the rollouts that the step's batch holds, and the batch; others have texts only.
        """
        numbers = {} if learnt is None else dict(_numbers(*learnt))
        decode = cache(tokenizer.decode)  # the same few tokens come again and again
        full = []
        for row, each in zip(rows, judged, strict=True):
            texts, cut = token_texts(each.rollout.tokens, decode), len(each.rollout.state.prefix)
            of_new = {"texts": texts[cut:], **numbers.get(id(each.rollout), {})}
            full.append({**row, "numbers": of_new, "prefix_texts": texts[:cut]})
        return full

    def states(
        self, step: int, judged: "Sequence[Judged]", events: "Sequence[StateEvent]"
    ) -> Iterator[dict[str, Any]]:  # fmt: skip
        """The rows of a step in states.jsonl: visits in the order of the rollouts, then what the sampler reports."""
        number = {id(each.rollout): row for row, each in enumerate(judged)}
        for row, each in enumerate(judged):
            if (key := each.rollout.state.replayed_from) is not None:
                verdict = each.feedback.verdict.value
                yield {"step": step, "event": "visited", "key": key, "row": row, "verdict": verdict}
        for event in events:
            yield {"step": step, "event": type(event).__name__.lower(), **_told(event, number)}


def token_texts(tokens: tuple[int, ...], decode: Callable[[tuple[int, ...]], str]) -> list[str]:
    """The text that each token adds, which together are what all decode to.

    A character of several tokens stands at the last of them. Each is decoded after the one before, since some decoders
    drop a blank at the very beginning.
    """
    texts: list[str] = []
    before = begin = 0  # tokens[before:begin] are decoded again, for what follows them
    for end in range(1, len(tokens) + 1):
        text, known = decode(tokens[before:end]), decode(tokens[before:begin])
        whole = not text.endswith("\ufffd") or end == len(tokens)
        texts.append(text[len(known) :] if whole else "")
        before, begin = (begin, end) if whole else (before, begin)
    return texts


def _numbers(rollouts: "Sequence[Rollout]", batch: "Batch") -> "Iterator[tuple[int, dict[str, list[float]]]]":
    """For each rollout, by its identity, the numbers of its new tokens."""
    for row, rollout in enumerate(rollouts):
        cells = {name: getattr(batch, name)[row][batch.mask[row]] for name in NUMBERS}
        there = {name: cell for name, cell in cells.items() if name not in OPTIONAL or cell.any()}
        yield id(rollout), {name: _rounded(cell) for name, cell in there.items()}


def _rounded(numbers: "Tensor") -> list[float]:
    return [round(number, 4) for number in numbers.tolist()]


def _told(event: "StateEvent", number: Mapping[int, int]) -> dict[str, Any]:
    """What an event says, with its rollout as a row of the step and the state that this one was written from."""
    from rrl.types import Stored

    if not isinstance(event, Stored):
        return asdict(event)
    rollout = event.rollout
    return {
        "key": event.key,
        "problem": event.problem_id,
        "parent": rollout and rollout.state.replayed_from,
        "source": event.source,
        "rollout": number.get(id(rollout)),
        "cut": event.cut,
        "score": event.score,
    }
