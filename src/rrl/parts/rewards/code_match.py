"""How much of a reference program's structure a candidate has: sub-trees of its syntax, edges of its data flow.

After the syntactic and semantic match of CodeBLEU (Ren et al., arXiv 2009.10297, sections 3.2 and 3.3), which
PPOCoder (Shojaee et al., arXiv 2301.13816) pays for, on Python's own syntax trees.
"""

import ast
import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from rrl.verifiers.programs import parsed

MAX_EDGES = 100_000
"""A program with more edges has no structure to compare: ``a = b = ... = x + y + ...`` has the product of both."""

_Branches = list[tuple[str, list[ast.AST]]]
_Binding = tuple[ast.AST | None, ast.AST | None]


class Edge(NamedTuple):
    """The value of ``target`` depends on ``source``: it reads it, or is computed from it."""

    target: str
    relation: str
    source: str


@dataclass(frozen=True, slots=True)
class Structure:
    """A program as multisets of sub-trees, each by a digest of its shape, and of data-flow edges."""

    subtrees: Counter[bytes]
    edges: Counter[Edge]


class Match(NamedTuple):
    """Shares in [0, 1] of the reference's sub-trees and data-flow edges that the candidate has."""

    syntax: float
    semantics: float


@lru_cache(maxsize=1024)
def structure(source: str) -> Structure | None:
    """A program's structure; None when it is no Python or too large. Never raises, whatever the text is."""
    tree = parsed(source)
    edges = None if tree is None else _edges(tree)
    return None if tree is None or edges is None else Structure(Counter(_subtrees(tree)), edges)


def match(candidate: Structure, reference: Structure) -> Match:
    """How much of the reference is found in the candidate; 0 where the reference has nothing to find.

        syntax    = |sub-trees of the reference that occur in the candidate| / |sub-trees of the reference|
        semantics = |edges of the reference  intersected with  edges of the candidate| / |edges of the reference|

    As in CodeBLEU a sub-tree may be found any number of times, whereas each edge of the candidate matches one.
    """
    found = sum(count for subtree, count in reference.subtrees.items() if subtree in candidate.subtrees)
    shared = (reference.edges & candidate.edges).total()
    return Match(found / max(1, reference.subtrees.total()), shared / max(1, reference.edges.total()))


# --- syntax -----------------------------------------------------------------------------------------------------------


def _subtrees(tree: ast.AST) -> Iterator[bytes]:
    """A digest of every sub-tree that has branches: what kinds of nodes it has and how they hang together.

    Names and values are left out. Names, constants and operators count within what holds them, not by themselves.
    """
    digests: dict[ast.AST, bytes] = {}
    for node, branches in _children_first(tree):
        hanging = [(field, [digests[child] for child in children]) for field, children in branches]
        digests[node] = hashlib.blake2b(repr((_kind(node), hanging)).encode(), digest_size=8).digest()
        if hanging:
            yield digests[node]


def _children_first(tree: ast.AST) -> list[tuple[ast.AST, _Branches]]:
    """Every node, with its branches, after all that hang from it; without recursion, for trees may be very deep."""
    order, waiting = [], [tree]
    while waiting:
        node = waiting.pop()
        branches = _branches(node)
        order.append((node, branches))
        waiting += [child for _, children in branches for child in children]
    return order[::-1]


def _branches(node: ast.AST) -> _Branches:
    """The nodes that hang from a node, by field, without documentation strings and contexts."""
    fields = [(name, value if isinstance(value, list) else [value]) for name, value in ast.iter_fields(node)]
    held = [(name, [v for v in values if isinstance(v, ast.AST) and not _silent(v)]) for name, values in fields]
    return [(name, nodes) for name, nodes in held if nodes]


def _silent(node: ast.AST) -> bool:
    """Whether a node says nothing: a string that stands alone, or that a name is read or written."""
    return isinstance(node, ast.expr_context) or (
        isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    )


def _kind(node: ast.AST) -> str:
    """The class of a node; of a constant, that of its value too."""
    return f"Constant:{type(node.value).__name__}" if isinstance(node, ast.Constant) else type(node).__name__


# --- data flow --------------------------------------------------------------------------------------------------------


def _edges(tree: ast.AST) -> Counter[Edge] | None:
    """The data-flow edges of a program; None when there are too many.

    A read of a variable comes from it; a variable that is bound to an expression is computed from every name in it.
    Variables are numbered by where they first occur; names that the program does not bind (``input``) stay. There is
    one name space for the whole program, and what is on a branch or in a loop counts once.
    """
    nodes = list(ast.walk(tree))
    bound = _numbered(nodes)
    bindings = [(target, source) for node in nodes for target, source in _bindings(node) if target and source]
    reads = {  # once, though a = b = ... = it
        source: [node.id for node in ast.walk(source) if isinstance(node, ast.Name)]
        for source in {source for _, source in bindings}
    }
    sides = [(_targets(target), reads[source]) for target, source in bindings]
    if sum(len(targets) * len(sources) for targets, sources in sides) > MAX_EDGES:
        return None
    read = [node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)]
    edges = Counter(Edge(bound[name], "read", bound[name]) for name in read if name in bound)
    edges.update(
        Edge(bound.get(target, target), "computed", bound.get(source, source))
        for targets, sources in sides
        for target in targets
        for source in sources
    )
    return edges


def _numbered(nodes: Iterable[ast.AST]) -> dict[str, str]:
    """The names that a program binds, numbered by where in the text each occurs first."""
    bound, first = set(), dict[str, tuple[int, int]]()
    for node in nodes:
        for name, binds in _names(node):
            place = (getattr(node, "lineno", 0), getattr(node, "col_offset", 0))
            first[name] = min(place, first.get(name, place))
            bound |= {name} if binds else set()
    return {name: f"var_{number}" for number, name in enumerate(sorted(bound, key=lambda name: (first[name], name)))}


def _names(node: ast.AST) -> list[tuple[str, bool]]:
    """The names at a node, each with whether it is bound there."""
    if isinstance(node, ast.Name):
        return [(node.id, isinstance(node.ctx, ast.Store))]
    if isinstance(node, ast.alias):
        return [(node.asname or node.name.split(".")[0], True)]
    given = [getattr(node, field, None) for field in _NAMING.get(type(node), ())]
    return [(name, True) for name in given if name]


_NAMING: dict[type[ast.AST], tuple[str, ...]] = {
    ast.arg: ("arg",), ast.FunctionDef: ("name",), ast.AsyncFunctionDef: ("name",), ast.ClassDef: ("name",),
    ast.ExceptHandler: ("name",), ast.MatchAs: ("name",), ast.MatchStar: ("name",), ast.MatchMapping: ("rest",),
}  # fmt: skip
"""Nodes that bind a name which is no ``Name`` node, and where they have it."""


def _bindings(node: ast.AST) -> list[_Binding]:
    """What a node binds to what; (a, b) = (c, d) is two bindings."""
    if isinstance(node, ast.Assign):
        return [pair for target in node.targets for pair in _paired(target, node.value)]
    if isinstance(node, ast.AugAssign):
        return [(node.target, node.target), (node.target, node.value)]
    if isinstance(node, ast.AnnAssign | ast.NamedExpr):
        return [(node.target, node.value)]
    if isinstance(node, ast.For | ast.AsyncFor | ast.comprehension):
        return [(node.target, node.iter)]
    return [(node.optional_vars, node.context_expr)] if isinstance(node, ast.withitem) else []


def _paired(target: ast.AST, value: ast.AST) -> list[_Binding]:
    if isinstance(target, ast.Tuple | ast.List) and isinstance(value, ast.Tuple | ast.List):
        starred = any(isinstance(item, ast.Starred) for item in (*target.elts, *value.elts))
        if len(target.elts) == len(value.elts) and not starred:
            return list(zip(target.elts, value.elts, strict=True))
    return [(target, value)]


def _targets(target: ast.AST) -> list[str]:
    """The variables that are bound or changed: of ``a[i].b`` it is ``a``."""
    found, waiting = [], [target]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Name):
            found.append(node.id)
        elif isinstance(node, ast.Tuple | ast.List):
            waiting += node.elts
        elif isinstance(node, ast.Attribute | ast.Subscript | ast.Starred):
            waiting.append(node.value)
    return found
