"""From characters of a response to its tokens, under any tokenizer."""

from collections.abc import Callable, Sequence

from rrl.types import Judged

Span = tuple[int, int]
"""The first character and the one after the last."""


def token_spans(tokens: Sequence[int], text: str, decode: Callable[[Sequence[int]], str]) -> list[Span]:
    """The characters of ``text``, which is what ``tokens`` decode to, that each token stands for.

    A token ends where the tokens up to it, decoded, cease to agree with the text. If they go on, then with a character
    that later tokens complete, as do the bytes of an emoji: that one belongs to each of them. What decodes to more than
    the text has, such as an end token, lies at its end.

    The work grows with the number of tokens. Only where the pieces do not make up the text, as with bytes that are no
    UTF-8 under some tokenizers, every beginning is decoded whole.
    """
    spans, reached = _walk(tokens, text, decode, restart=True)
    return spans if reached == len(text) else _walk(tokens, text, decode, restart=False)[0]


def _walk(
    tokens: Sequence[int], text: str, decode: Callable[[Sequence[int]], str], *, restart: bool
) -> tuple[list[Span], int]:
    """The spans, and how far they reach.

    With ``restart`` decoding starts anew where all agreed, and one such place back, for some decoders drop a blank at
    the very beginning.
    """
    spans: list[Span] = []
    context = begin = 0  # tokens[context:begin] are decoded again, for what follows them
    lead = known = 0  # how many characters those give, and where in the text they end
    reached = 0
    for position in range(len(tokens)):
        tail = decode(tokens[context : position + 1])[lead:]
        agreed = agreement(tail, text[known : known + len(tail)])
        whole = agreed == len(tail)
        end = max(reached, known + agreed)
        spans.append((reached, end if whole else min(end + 1, len(text))))
        reached = end
        if restart and whole and agreed:
            lead = len(decode(tokens[begin : position + 1]))
            context, begin, known = begin, position + 1, known + agreed
    return spans, reached


def agreement(first: str, second: str) -> int:
    """How many characters two texts have in common from the beginning."""
    differing = (index for index, (one, other) in enumerate(zip(first, second, strict=False)) if one != other)
    return next(differing, min(len(first), len(second)))


def tokens_over(spans: Sequence[Span], start: int, stop: int) -> list[int]:
    """The tokens that have a character of ``start`` to ``stop``."""
    return [index for index, (first, last) in enumerate(spans) if first < stop and last > start]


def tokens_before_error(judged: Judged, decode: Callable[[Sequence[int]], str]) -> int | None:
    """The tokens of a response before its first error: those without a character of it. None where no task tells it.

    The evidence of the judgement has it in characters, as ``error_free``.
    """
    characters = judged.feedback.evidence.get("error_free")
    if characters is None:
        return None
    spans = token_spans(judged.rollout.tokens, judged.rollout.response, decode)
    return next((index for index, (_, stop) in enumerate(spans) if stop > characters), len(spans))
