"""What programs and models wrote, in a form that can be written anywhere: JSON, logs, terminals, trackers."""

import json
import math
import re
from collections.abc import Mapping
from typing import Any

_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters but ends of lines and tabs, those that turn the direction of writing, halves of characters."""


KEYS = (str, int, float, bool, type(None))
"""What JSON has as keys, as texts."""


def visible(text: str) -> str:
    """The text with escapes such as ``\\x1b`` for what steers a terminal or has no form in UTF-8."""
    return _UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def shortened(text: str, most: int) -> str:
    """The text, or its beginning and end with the number of characters between them."""
    if len(text) <= most:
        return text
    half = most // 2
    return f"{text[:half]} [... {len(text) - 2 * half} characters ...] {text[-half:]}"


def as_json(content: Any, indent: int | None = None) -> bytes:
    """JSON in UTF-8, whatever texts and numbers stand in it.

    Half a character becomes its escape, which is read back as the same; a number that is not finite becomes null.
    """
    try:
        text = json.dumps(content, ensure_ascii=False, allow_nan=False, default=str, indent=indent)
    except (TypeError, ValueError):  # a key that is no text, a number that is none
        text = json.dumps(_finite(content), ensure_ascii=False, default=str, indent=indent)
    return text.encode("utf-8", "backslashreplace")


def _finite(content: Any) -> Any:
    if isinstance(content, float):
        return content if math.isfinite(content) else None
    if isinstance(content, Mapping):
        return {key if isinstance(key, KEYS) else str(key): _finite(value) for key, value in content.items()}
    return [_finite(each) for each in content] if isinstance(content, list | tuple) else content
