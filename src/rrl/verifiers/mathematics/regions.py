r"""Sets of real numbers in one notation: inequalities, ``x \ne 2`` and lists of them as unions of intervals."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import sympy

from rrl.verifiers.mathematics.statements import Collection, Named, Relation, Scalar, Statement

_TURNED = {"<": ">", ">": "<", r"\le": r"\ge", r"\ge": r"\le"}
_BELOW = Scalar(-sympy.oo, r"-\infty")
_ABOVE = Scalar(sympy.oo, r"\infty")


def as_region(statement: Statement) -> Statement:
    r"""A statement as an interval, a union of them or a set, if it is one; any other statement unchanged.

    Parts of a list are a union where they do not overlap (``x < 2, x > 3``) and are no points (``(1, 2), (3, 4)``).
    """
    parts = _parts(statement)
    if parts is None:
        return statement
    if all(part.kind == r"\{\}" for part in parts):
        return Collection(r"\{\}", tuple(item for part in parts for item in part.items))
    return parts[0] if len(parts) == 1 else Collection(r"\cup", parts)


def letters(statement: Statement) -> frozenset[str]:
    """The letters of inequalities and names."""
    if isinstance(statement, Collection):
        return frozenset(letter for item in statement.items for letter in letters(item))
    if isinstance(statement, Named):
        return letters(statement.value) | {statement.name}
    if not isinstance(statement, Relation):
        return frozenset()
    return frozenset(str(side.value) for side in statement.sides if isinstance(side, Scalar) and _is_letter(side))


def may_be_point(statement: Statement) -> bool:
    """Whether the brackets may be those of a point as well as of an open interval."""
    if isinstance(statement, Named):
        return may_be_point(statement.value)
    if not isinstance(statement, Collection) or statement.kind != "()":
        return False
    return not any(isinstance(item, Scalar) and item.value.is_infinite for item in statement.items)


def turned(relation: Relation) -> Relation:
    """A relation from its other end."""
    return Relation(relation.sides[::-1], tuple(_TURNED.get(sign, sign) for sign in reversed(relation.signs)))


def _parts(statement: Statement) -> tuple[Collection, ...] | None:
    """The intervals and sets whose union a statement is; None if it is no union."""
    if isinstance(statement, Named):
        return _parts(statement.value) if isinstance(statement.value, Collection) else None
    if isinstance(statement, Relation):
        return _without(_excluded(statement)) if statement.signs == (r"\ne",) else _interval(statement)
    return _parts_of_items(statement) if isinstance(statement, Collection) else None


def _parts_of_items(statement: Collection) -> tuple[Collection, ...] | None:
    if statement.kind == r"\setminus":
        return _without(statement.items)
    if statement.kind == r"\cup":
        return _joined([_own(item) or _parts(item) for item in statement.items])
    if statement.kind != ",":
        return (statement,) if _is_interval(statement) and not may_be_point(statement) else None
    if len(letters(statement)) > 1:
        return None
    relations = [item for item in statement.items if isinstance(item, Relation) and item.signs == (r"\ne",)]
    if len(relations) == len(statement.items):
        return _without([end for relation in relations for end in _excluded(relation)])
    found = _joined([_parts(item) for item in statement.items])
    return found if found is not None and _are_apart(found) else None


def _joined(parts: Sequence[tuple[Collection, ...] | None]) -> tuple[Collection, ...] | None:
    if any(part is None for part in parts):
        return None
    return tuple(inner for part in parts if part is not None for inner in part)


def _own(statement: Statement) -> tuple[Collection] | None:
    """A set or an interval as the only part of itself."""
    if not isinstance(statement, Collection):
        return None
    return (statement,) if statement.kind == r"\{\}" or _is_interval(statement) else None


def _is_interval(statement: Collection) -> bool:
    kinds = ("()", "(]", "[)", "[]")
    return statement.kind in kinds and len(statement.items) == 2 and all(map(_is_real, statement.items))


def _is_real(statement: Statement) -> bool:
    return isinstance(statement, Scalar) and bool(statement.value.is_extended_real) and not statement.value.free_symbols


def _is_letter(statement: Statement) -> bool:
    return isinstance(statement, Scalar) and bool(statement.value.is_Symbol)


def _interval(relation: Relation) -> tuple[Collection] | None:
    r"""The interval that inequalities of one letter describe, ``1 < x \le 3``."""
    if all(sign in (">", r"\ge") for sign in relation.signs):
        relation = turned(relation)
    sides, signs = relation.sides, relation.signs
    if not all(sign in ("<", r"\le") for sign in signs):
        return None
    named = list(map(_is_letter, sides))
    if named == [True, False]:
        sides, signs = (_BELOW, sides[1]), ("<", signs[0])
    elif named == [False, True]:
        sides, signs = (sides[0], _ABOVE), (signs[0], "<")
    elif named == [False, True, False]:
        sides = (sides[0], sides[2])
    else:
        return None
    interval = Collection(("(" if signs[0] == "<" else "[") + (")" if signs[1] == "<" else "]"), sides)
    return (interval,) if _is_interval(interval) else None


def _excluded(relation: Relation) -> list[Statement]:
    r"""The numbers that a letter is not, ``x \ne 2`` or ``x \ne \pm 2``."""
    ends = [side for side in relation.sides if not _is_letter(side)]
    return [item for end in ends for item in (end.items if isinstance(end, Collection) else (end,))]


def _without(ends: Sequence[Statement]) -> tuple[Collection, ...] | None:
    """All real numbers but these."""
    if not ends or not all(map(_is_real, ends)):
        return None
    bounds = [_BELOW, *sorted(ends, key=_size), _ABOVE]
    return tuple(Collection("()", pair) for pair in pairwise(bounds))


def _are_apart(parts: Sequence[Collection]) -> bool:
    """Whether each interval ends before the next begins."""
    if not all(map(_is_interval, parts)):
        return False
    ends = [end for part in sorted(parts, key=lambda part: _size(part.items[0])) for end in part.items]
    return all(_size(one) <= _size(other) for one, other in pairwise(ends))


def _size(end: Statement) -> Any:
    return sympy.N(end.value, 60) if isinstance(end, Scalar) else None
