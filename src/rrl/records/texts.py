"""Texts of programs and models in a form that JSON, logs, terminals and trackers accept."""

import json
import math
import re
import signal
from collections.abc import Mapping, Sequence
from typing import Any

_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters but line ends and tabs, those that change the writing direction, lone surrogates."""
KEYS = (str, int, float, bool, type(None))
"""Types that ``json`` accepts as keys."""


def visible(text: str) -> str:
    """The text with escapes such as ``\\x1b`` for what controls a terminal or is not valid UTF-8."""
    return _UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def shortened(text: str, most: int) -> str:
    """The text, or its beginning and end with the number of characters between them."""
    if len(text) <= most:
        return text
    half = most // 2
    return f"{text[:half]} [... {len(text) - 2 * half} characters ...] {text[-half:]}"


def one_line(error: BaseException) -> str:
    """Type and text of an error in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":")


def ended_with(code: int) -> str:
    """The end of a process by its exit code."""
    return f"its process ended with {signal.Signals(-code).name if code < 0 else code}"


def with_interval(value: float, interval: Sequence[float]) -> str:
    """As in ``0.500 [0.400, 0.600]``."""
    return f"{value:.3f} [{interval[0]:.3f}, {interval[1]:.3f}]"


def aligned(rows: Sequence[Sequence[str]], left: int) -> str:
    """Rows of cells as lines, in columns of equal width: the first ``left`` aligned to the left, the others right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    layout = "  ".join(f"{{:{'<' if i < left else '>'}{width}}}" for i, width in enumerate(widths))
    return "\n".join(layout.format(*row).rstrip() for row in rows)


def as_json(content: Any, indent: int | None = None) -> bytes:
    """JSON in UTF-8: lone surrogates are escaped, and read back unchanged; numbers that are not finite become null."""
    try:
        text = json.dumps(content, ensure_ascii=False, allow_nan=False, default=str, indent=indent)
    except (TypeError, ValueError):  # a key of another type, a number that is not finite
        text = json.dumps(_with_nulls(content), ensure_ascii=False, default=str, indent=indent)
    return text.encode("utf-8", "backslashreplace")


def _with_nulls(content: Any) -> Any:
    if isinstance(content, float):
        return content if math.isfinite(content) else None
    if isinstance(content, Mapping):
        return {key if isinstance(key, KEYS) else str(key): _with_nulls(value) for key, value in content.items()}
    return [_with_nulls(each) for each in content] if isinstance(content, list | tuple) else content
