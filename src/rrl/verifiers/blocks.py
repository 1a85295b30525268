"""Fenced blocks in a response, and the places of their lines, in any quote, list or sentence."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from os.path import commonprefix
from typing import NamedTuple

_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")
"""Lines as Python counts them; ``str.splitlines`` knows more ends of lines."""
_FENCE = re.compile(r"(?<![`~])(?P<mark>`{3,}(?=[^`\r\n]*[\r\n]*\Z)|~{3,}(?=[^~\r\n]*[\r\n]*\Z))(?P<info>[^\r\n]*)")
INVISIBLE = "\u200b\u2060\ufeff"
"""Characters without width that copied text may contain."""
_OUTSIDE = re.compile(rf"(?:[\s{INVISIBLE}>]|[-*+](?=\s)|[0-9]{{1,9}}[.)](?=\s))*")
"""The text allowed before a fence that is alone in its line: blanks, marks of quotes and of list items."""
_WORD = re.compile(r"[\w.+#/\\-]+")
_NO_LANGUAGE = ("code", "code-block", "code-cell", "lang", "language", "sourcecode")
"""Words before the language in some dialects, as in {code-block} python or lang=python."""
_PYTHON = re.compile(
    r"(lang-|language-)?[ci]?py(thon|py|con)?[-_]?[0-9.]*([-_]?(repl|console|session|code|script|program))?|.+\.py3?"
)


class Span(NamedTuple):
    """Characters ``start`` to ``stop`` of the response."""

    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Fence:
    """The mark of a fence, its place in the response, its language (empty without one) and its surroundings.

    ``alone``: no other text is in its line; ``quotes``: so many quotes it is in (0 unless alone).
    """

    mark: str
    language: str
    start: int
    stop: int
    alone: bool
    quotes: int

    @property
    def python(self) -> bool:
        """Whether it names Python, in any of the usual ways."""
        return _PYTHON.fullmatch(self.language) is not None


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block: the fence that opens it, and its lines without the marks of quotes."""

    fence: Fence
    lines: list[Span] = field(default_factory=list)

    def closed_by(self, fence: Fence) -> bool:
        """A fence without a language and at least as long closes, also at the end of a line of code."""
        return not fence.language and fence.mark.startswith(self.fence.mark)

    def interrupted_by(self, fence: Fence) -> bool:
        """A fence with a language opens a block, also in one that is open; a shorter one only if that is not Python."""
        alike = fence.alone and fence.mark.startswith(self.fence.mark)
        return bool(fence.language) and (alike or (fence.python and not self.fence.python))


def lines_of(text: str, start: int, stop: int) -> list[Span]:
    """The lines of a part of the text, including their ends."""
    return [Span(*found.span()) for found in _LINE.finditer(text, start, stop)]


def blocks(text: str, start: int) -> list[Block]:
    """Every fenced block from ``start`` on; the last may still be open (a response that the length limit cut off)."""
    found: list[Block] = []
    opened: Block | None = None
    for line in lines_of(text, start, len(text)):
        fence = _fence(text[slice(*line)], line.start)
        if opened is not None and _leaves(opened, text, line):
            opened = None
        if opened is None or (fence is not None and opened.interrupted_by(fence)):
            opened = Block(fence) if fence is not None else None
            found += [opened] if opened is not None else []
        elif fence is not None and opened.closed_by(fence):
            opened.lines.extend([] if fence.alone else [_inside(opened, text, Span(line.start, fence.start))])
            opened = None
        else:
            opened.lines.append(_inside(opened, text, line))
    return found


def _fence(line: str, start: int) -> Fence | None:
    """The fence that ends this line. One behind other text has to name Python, or nothing."""
    found = _FENCE.search(line) if "```" in line or "~~~" in line else None
    if found is None:
        return None
    before, mark = line[: found.start()], found["mark"]
    alone = _OUTSIDE.fullmatch(before) is not None
    quotes = before.count(">") if alone else 0
    fence = Fence(mark, _language(found["info"]), start + found.start(), start + found.end(), alone, quotes)
    named = fence.python or not found["info"].strip().strip(INVISIBLE)
    behind = mark[0] == "`" and "```" not in before and named
    return fence if alone or behind else None


def _language(info: str) -> str:
    words = [word.lstrip(".#/-") for word in _WORD.findall(info.lower())]
    return next((word for word in words[:2] if word and word not in _NO_LANGUAGE), "")


def _leaves(opened: Block, text: str, line: Span) -> bool:
    """Whether a line is outside the quote that the block is in."""
    return opened.fence.quotes > 0 and not text[slice(*line)].lstrip().startswith(">")


def _inside(opened: Block, text: str, line: Span) -> Span:
    """A line without the marks of the quote that the block is in."""
    if not opened.fence.quotes:
        return line
    marks = re.compile(rf"(?:[ \t]*>){{1,{opened.fence.quotes}}} ?").match(text, line.start, line.stop)
    return Span(marks.end(), line.stop) if marks is not None else line


def dedented(text: str, lines: Sequence[Span]) -> list[Span]:
    """The lines without the indentation that all but blank ones and comments share, as in a list item."""
    code = [line for line in (text[slice(*line)] for line in lines) if line.strip() and line.lstrip()[0] != "#"]
    margin = commonprefix([line[: len(line) - len(line.lstrip())] for line in code])  # noqa: RUF071
    return [Span(start + len(commonprefix([margin, text[start:stop]])), stop) for start, stop in lines]  # noqa: RUF071


def typed(text: str, lines: Sequence[Span]) -> list[Span]:
    """Of an interactive session, the text that was typed behind the prompts; any other lines as they are."""
    first = next((line for line in lines if text[slice(*line)].strip()), None)
    if first is None or not text.startswith(">>>", first.start):
        return list(lines)
    return [
        Span(min(start + (4 if text.startswith(" ", start + 3) else 3), stop), stop)
        for start, stop in lines
        if text.startswith((">>>", "..."), start)
    ]
