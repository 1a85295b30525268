"""Mutants of Python programs: one small mistake each, made in the syntax tree."""

import ast
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

Change = Callable[[ast.AST], ast.AST | None]
"""What stands in the place of a node after the mistake; None where the operator has nothing to do."""

BOUNDARY = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt}
NEGATED = {ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Lt: ast.GtE, ast.GtE: ast.Lt, ast.Gt: ast.LtE, ast.LtE: ast.Gt}
ARITHMETIC = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.FloorDiv: ast.Mult, ast.Mod: ast.FloorDiv,
    ast.Div: ast.Mult,
}  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """A program with one mistake, and where it was made."""

    operator: str
    line: int
    source: str


def mutants(source: str) -> Iterator[Mutant]:
    """Every mutant of every operator. Raises SyntaxError where the source does not compile."""
    tree = ast.parse(source)
    seen = {ast.unparse(tree)}
    for operator, change in OPERATORS.items():
        for place, node in enumerate(ast.walk(tree)):
            if change(copy.deepcopy(node)) is not None:
                text = _with_mistake(tree, place, change)
                if text not in seen:
                    seen.add(text)
                    yield Mutant(operator, getattr(node, "lineno", 0), text)


def _with_mistake(tree: ast.Module, place: int, change: Change) -> str:
    copied = copy.deepcopy(tree)
    node = list(ast.walk(copied))[place]
    changed = change(node)
    if changed is not node:
        copied = _Replace(node, changed).visit(copied)
    return ast.unparse(ast.fix_missing_locations(copied))


class _Replace(ast.NodeTransformer):
    def __init__(self, old: ast.AST, new: ast.AST | None) -> None:
        self._old, self._new = old, new

    def visit(self, node: ast.AST) -> ast.AST | None:
        return self._new if node is self._old else self.generic_visit(node)


def _off_by_one(node: ast.AST) -> ast.AST | None:
    """A whole number, one more."""
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return ast.Constant(node.value + 1)
    return None


def _compared(pairs: dict[type[ast.cmpop], type[ast.cmpop]]) -> Change:
    def change(node: ast.AST) -> ast.AST | None:
        if isinstance(node, ast.Compare) and type(node.ops[0]) in pairs:
            node.ops[0] = pairs[type(node.ops[0])]()
            return node
        return None

    return change


def _arithmetic(node: ast.AST) -> ast.AST | None:
    """``+`` for ``-``, ``*`` for ``//`` and so on, also in ``x += 1``."""
    if isinstance(node, ast.BinOp | ast.AugAssign) and type(node.op) in ARITHMETIC:
        node.op = ARITHMETIC[type(node.op)]()
        return node
    return None


def _swapped_branches(node: ast.AST) -> ast.AST | None:
    """``if`` and ``else`` exchanged."""
    if isinstance(node, ast.If | ast.IfExp) and node.orelse:
        node.body, node.orelse = node.orelse, node.body
        return node
    return None


def _dropped_line(node: ast.AST) -> ast.AST | None:
    """An assignment, call, return, break or continue that does nothing."""
    dropped = ast.Assign | ast.AugAssign | ast.Expr | ast.Return | ast.Break | ast.Continue
    docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    return ast.Pass() if isinstance(node, dropped) and not docstring else None


def _and_or(node: ast.AST) -> ast.AST | None:
    """``and`` for ``or``."""
    if isinstance(node, ast.BoolOp):
        node.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        return node
    return None


def _short_range(node: ast.AST) -> ast.AST | None:
    """A ``range`` that ends one earlier."""
    named = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "range"
    if isinstance(node, ast.Call) and named and node.args:
        end = min(len(node.args) - 1, 1)
        node.args[end] = ast.BinOp(node.args[end], ast.Sub(), ast.Constant(1))
        return node
    return None


OPERATORS: dict[str, Change] = {
    "off by one": _off_by_one,
    "boundary (< for <=)": _compared(BOUNDARY),
    "negated comparison": _compared(NEGATED),
    "arithmetic (+ for -)": _arithmetic,
    "swapped branches": _swapped_branches,
    "dropped line": _dropped_line,
    "and for or": _and_or,
    "short range": _short_range,
}
