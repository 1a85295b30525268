r"""The statement of a written answer, by its brackets and signs: a value, list, point, interval, matrix or equation.

``formula.py`` reads the formulas between brackets and signs. A text is read as a whole or is ``Unreadable``.
"""

import re
import string
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import sympy

from rrl.verifiers.mathematics.brackets import BRACKETS, Tokens, closing, depths, split, without_thousands
from rrl.verifiers.mathematics.formula import read_formula
from rrl.verifiers.mathematics.names import is_name, is_number, is_word, spelled
from rrl.verifiers.mathematics.notation import tidy, tokens
from rrl.verifiers.mathematics.numerals import Unreadable
from rrl.verifiers.mathematics.units import is_prefix, with_words_marked, without_words
from rrl.verifiers.mathematics.values import same_value


@dataclass(frozen=True)
class Scalar:
    """A formula; ``text`` is what it was read from, ``units`` are the known ones beside it, ``%`` among them."""

    value: Any
    text: str
    units: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Collection:
    r"""Several items; ``kind`` is their brackets or separator: a sign, ``&`` for cells, ``\cr`` for rows."""

    kind: str
    items: tuple["Statement", ...]


@dataclass(frozen=True)
class Based:
    """Digits in a base."""

    digits: str
    base: str


@dataclass(frozen=True)
class Named:
    """A value and its name, the left side of the equation."""

    name: str
    value: "Statement"


@dataclass(frozen=True)
class Relation:
    """Formulas with one sign less between them, an equation or inequalities."""

    sides: tuple["Statement", ...]
    signs: tuple[str, ...]


Statement = Scalar | Collection | Based | Named | Relation


def readings(text: str, bare_units: bool, reference: bool) -> list[Statement]:
    """All possible statements of a text: ``1, 234`` is a list or a number. Empty when it cannot be read.

    ``bare_units`` allows units outside ``\\text``. Of an approximation the exact side counts, of a reference's both.
    """
    parts = [with_words_marked(part) if bare_units else part for part in re.split(_ABOUT, tidy(text))]
    if len(parts) > 1 and is_name(tokens(parts[0])):
        parts = parts[1:]
    found = [[statement for thousands in (True, False) for statement in _read(part, thousands)] for part in parts]
    if not all(_is_about(found[0], other) for other in found[1:]):
        return []
    return list(dict.fromkeys(statement for group in (found if reference else found[:1]) for statement in group))


_ABOUT = r"\s*\\approx(?![a-zA-Z])\s*"


def _is_about(exact: list[Statement], other: list[Statement]) -> bool:
    """Whether one number is an approximation of another, within a twentieth."""
    one, two = (found[0].value if found and isinstance(found[0], Scalar) else None for found in (exact, other))
    if one is None or two is None or one.free_symbols or two.free_symbols:
        return False
    return bool(abs(sympy.N(one - two)) <= abs(sympy.N(one)) / 20)


def _read(tidied: str, thousands: bool) -> Iterator[Statement]:
    words = tokens(tidied)
    try:
        yield _listed(without_thousands(words) if thousands else words)
    except Unreadable:
        return


def _listed(words: Tokens) -> Statement:
    """One item, or several with commas between them."""
    items = tuple(_item(item) for item in split(words, (",", ";")))
    return items[0] if len(items) == 1 else _flat(",", items)


# --- brackets and signs -----------------------------------------------------------------------------------------------

_RELATIONS = ("=", "<", ">", r"\le", r"\ge", r"\ne", r"\in")


def _item(words: list[str]) -> Statement:
    """One item of a list: a value, or sides with signs between them."""
    label = split(words, (":",))
    if len(label) == 2 and label[0] and (label[0][-1].startswith(r"\text") or is_word("".join(label[0]))):
        return Named("".join(label[0]), _item(label[1]))
    if words[:1] == ["{"] and closing(words) == len(words) - 1:
        return _listed(words[1:-2] if words[-2] in ".,;" else words[1:-1])
    sides = split(words, _RELATIONS)
    if len(sides) == 1:
        return _side(words)
    levels = depths(words)
    signs = [word for word, depth in zip(words, levels, strict=True) if depth == 0 and word in _RELATIONS]
    gives = set(signs) <= {"="} or (signs == [r"\in"] and is_name(sides[0]))
    if signs == ["="] and is_name(sides[1]) and not is_name(sides[0]):
        sides.reverse()
    if gives and all(is_name(side) or is_number(side) for side in sides[:-1]):
        value = _side(sides[-1])
        _refuse_contradiction([side for side in sides[:-1] if not is_name(side)], value)
        return Named(spelled(sides[0]), value) if is_name(sides[0]) else value
    if r"\in" in signs:
        raise Unreadable(" ".join(words))
    return Relation(tuple(_side(side) for side in sides), tuple(signs))


def _refuse_contradiction(others: list[list[str]], value: Statement) -> None:
    """Numbers with equals signs between them have to be the same, or one the hundredth of the other."""
    for other in map(_side, others):
        same = (
            not isinstance(value, Scalar)
            or not isinstance(other, Scalar)
            or (value.units and other.units and value.units != other.units)
            or any(same_value(value.value, other.value * sympy.Integer(100) ** power) for power in (0, 1, -1))
        )
        if not same:
            raise Unreadable("an equation of different numbers")


def _side(words: Tokens) -> Statement:
    """A value without signs of relation."""
    if len(parts := split(words, (r"\cup",))) > 1:
        return Collection(r"\cup", tuple(_side(part) for part in parts))
    if r"\pm" in words or r"\mp" in words:
        return _plus_and_minus(words)
    if words and words[0] in (r"\emptyset", r"\Reals"):
        return _set_by_name(words)
    if words and words[0] in BRACKETS and closing(words) == len(words) - 1:
        return _bracketed(words)
    if any(word.startswith(r"\begin") for word in words):
        return _matrix(words)
    if len(parts := split(words, (":",))) > 1:
        return _ratio([_scalar(part) for part in parts])
    return _based(words) or _scalar(words)


_LETTERS = {f"{letter}{among}" for letter in string.ascii_letters for among in ("", r" \in \Reals")}


def _set_by_name(words: Tokens) -> Statement:
    r"""The empty set, or all real numbers, with or without some that are left out, ``\Reals \setminus \{2\}``."""
    if list(words) == [r"\emptyset"]:
        return Collection(r"\{\}", ())
    if list(words) == [r"\Reals"]:
        return _side(("(", "-", r"\infty", ",", r"\infty", ")"))
    if list(words[:2]) != [r"\Reals", r"\setminus"]:
        raise Unreadable(" ".join(words))
    left_out = _side(words[2:])
    return Collection(r"\setminus", left_out.items if isinstance(left_out, Collection) else (left_out,))


def _bracketed(words: Tokens) -> Statement:
    kind, inner = words[0] + words[-1], words[1:-1]
    if kind == "{}":
        return _listed(inner)
    parts = split(inner, (",", ";"))
    if kind == r"\{\}":
        head = split(inner, (":", "|"))[0]
        if " ".join(head) in _LETTERS and len(inner) > len(head):
            return _listed(inner[len(head) + 1 :])
        return _flat(kind, tuple(_item(part) for part in parts) if inner else ())
    if len(parts) > 1:
        return Collection("()" if "langle" in kind else kind, tuple(_side(part) for part in parts))
    if kind != "()":
        raise Unreadable(" ".join(words))
    return _side(inner)


def _flat(kind: str, items: tuple[Statement, ...]) -> Collection:
    """A collection in which items of nested lists are items: ``\\pm`` makes two of one."""
    return Collection(kind, tuple(inner for item in items for inner in _inner(item)))


def _inner(item: Statement) -> tuple[Statement, ...]:
    if isinstance(item, Named) and isinstance(item.value, Collection) and item.value.kind == ",":
        return tuple(Named(item.name, value) for value in item.value.items)
    return item.items if isinstance(item, Collection) and item.kind == "," else (item,)


def _plus_and_minus(words: Tokens) -> Statement:
    if sum(word in (r"\pm", r"\mp") for word in words) > 1:
        raise Unreadable("signs that may go together or not")
    both = (_side([sign if word in (r"\pm", r"\mp") else word for word in words]) for sign in "+-")
    return Collection(",", tuple(both))


def _matrix(words: Tokens) -> Statement:
    """A matrix, with a factor before it or not."""
    start = next(place for place, word in enumerate(words) if word.startswith(r"\begin"))
    kind = words[start].removeprefix(r"\begin{").removesuffix("}").rstrip("*")
    if kind not in ("pmatrix", "bmatrix", "matrix", "Bmatrix", "smallmatrix") or words[-1] != rf"\end{{{kind}}}":
        raise Unreadable(kind)
    rows = [row for row in split(words[start + 1 : -1], (r"\cr",)) if row]
    cells = [[_scalar(cell) for cell in split(row, ("&",))] for row in rows]
    before = ["-", "1"] if words[:start] == ["-"] else words[:start]
    factor = _scalar(before).value if start else 1
    made = [[Scalar(factor * cell.value, cell.text) for cell in row] for row in cells]
    return Collection(r"\cr", tuple(Collection("&", tuple(row)) for row in made))


def _ratio(parts: list[Scalar]) -> Statement:
    if any(part.value.free_symbols or part.value == 0 for part in parts):
        raise Unreadable("a ratio of other things than numbers")
    text = ":".join(part.text for part in parts)
    if len(parts) == 2:
        return Scalar(parts[0].value / parts[1].value, text)
    return Collection(":", tuple(Scalar(part.value / parts[0].value, text) for part in parts))


# --- values -----------------------------------------------------------------------------------------------------------

_BASES = {"two": "2", "three": "3", "four": "4", "five": "5", "six": "6", "seven": "7", "eight": "8", "nine": "9"}
_BASED = re.compile(
    r"(-?)\{?(?:\\text\{)?(\d[0-9A-Z.]*|[0-9A-F]*\d[0-9A-F.]*(?=\}))\}?_(?:\{?(\d+)\}?|\{?\\text\{(\w+)\}\}?)"
)


def _based(words: Tokens) -> Based | None:
    end = closing(words) if words[:1] == ["("] else -1
    plain = [*words[1:end], *words[end + 1 :]] if 0 < end < len(words) - 1 else words
    found = _BASED.fullmatch("".join(plain))
    return Based(found[1] + found[2], found[3] or _BASES.get(found[4], found[4])) if found else None


def _scalar(words: Tokens) -> Scalar:
    """A formula with the words and units beside it."""
    words, scale, units = list(words), 1, frozenset[str]()
    while words and words[0].startswith(r"\text") and is_prefix(words[0]):
        words.pop(0)
    while len(words) > 1 and (words[-1] == "%" or words[-1].startswith(r"\text")):
        beside = without_words(words.pop())
        if beside is None:
            raise Unreadable("words that change what is before them")
        scale, units = scale * beside[0], units | beside[1]
        if words[-1] == "/":
            words.pop()
    if words and words[-1] == "°":
        units |= {"°"}
    text = "".join(f"{word} " if word[0] == "\\" else word for word in words)
    return Scalar(scale * read_formula(words), text, units)
