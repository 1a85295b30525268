r"""Parsing overrides of a command line: ``key=value``, quotes and backslashes.

In double quotes ``\n``, ``\r``, ``\t``, ``\\``, ``\"``, ``\xe9``, ``\u00e9`` and ``\U0001f600`` mean the same as in
JSON and YAML; any other backslash is literal, as in ``"\d+"``. Outside double quotes text is literal, and an escape
for a line's end, a tab or a character is refused as ambiguous.
"""

import os
import re
from collections.abc import Sequence
from typing import Any

EXAMPLE = "\"data.plain_template='Q: {question}'\""
ESCAPE = re.compile(r"""\\(?:[nrt\\"']|x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8})""")
MEANINGS = {"n": "a line's end", "r": "a carriage return", "t": "a tab", "u": "a character"}
UNCLEAR = re.compile(r"\\+(?:[nrt]|u[0-9a-fA-F]{4})")


def read(overrides: Sequence[str], faults: list[str]) -> list[Any]:
    """The readable overrides, one per key, as Hydra's; adds a fault for each unreadable or duplicate one."""
    found: dict[str, Any] = {}
    for text in overrides:
        override = _parse(text)
        if isinstance(override, str):
            faults.append(override)
            continue
        before = found.setdefault(override.key_or_group, override)
        if before.input_line != text:
            faults.append(f"{override.key_or_group}: given twice, as {before.input_line!r} and {text!r}; keep one")
    return list(found.values())


def parsed(text: str) -> Any:
    """One override as Hydra reads it."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    return OverridesParser.create().parse_override(text)


def _parse(text: str) -> Any:
    """The override, or its fault."""
    from hydra.errors import HydraException

    if text.startswith("-"):
        return f"{text}: no such option; expected key=value, or --help"
    if text and "=" not in text and os.path.isdir(text):
        return (
            f"{text}: a folder, expected key=value; rrl-train resume={text} goes on with a run, rrl-evaluate {text} "
            "measures it"
        )
    unreadable = f"{text!r}: cannot be read; expected key=value; quote special characters, as in {EXAMPLE}"
    try:
        override = parsed(text)
    except HydraException:
        return unreadable
    if override.package or not override.key_or_group:
        return unreadable
    if override.is_delete():
        return f"{text}: a key cannot be taken away; set it to another value, such as null"
    if override.is_sweep_override():
        return f"{text}: several values, expected one; give a list as key=[a,b], or start one run for each"
    try:
        override._value = _unescaped_value(override._value)
    except ValueError as error:
        return f"{override.key_or_group}: {error}"
    return override


def _unescaped_value(value: Any) -> Any:
    """Hydra's value with its texts unescaped, at any depth. Raises ValueError for an ambiguous one."""
    from hydra.core.override_parser.types import Quote, QuotedString

    if isinstance(value, list):
        return [_unescaped_value(item) for item in value]
    if isinstance(value, dict):
        return {key: _unescaped_value(item) for key, item in value.items()}
    if isinstance(value, QuotedString) and value.quote is Quote.double:
        return QuotedString(_unescaped(value.with_quotes()[1:-1]), Quote.double)
    text = value.text if isinstance(value, QuotedString) else value
    unclear = UNCLEAR.search(text) if isinstance(text, str) else None
    if unclear:
        sign = unclear[0].lstrip("\\")
        raise ValueError(
            f"{unclear[0]} outside double quotes is unclear, in '{text}'; expected \"\\{sign}\" for "
            f'{MEANINGS[sign[0]]} or "\\\\{sign}" for a backslash and {sign}, in double quotes within the shell\'s '
            f"single ones, as in 'engine.stop=[\"\\{sign}\"]'"
        )
    return value


def _unescaped(text: str) -> str:
    """The meaning of a text between double quotes. Raises ValueError for half of a character, and for none."""
    try:
        plain = ESCAPE.sub(lambda found: found[0].encode().decode("unicode_escape"), text)
        return plain.encode("utf-16", "surrogatepass").decode("utf-16")  # two halves become one character
    except UnicodeDecodeError:
        raise ValueError(
            f"{text!r} has half of a character, or no character; expected both halves, as in \\ud83d\\ude00, and "
            "\\U0010ffff at most"
        ) from None
