"""Sums or minima of a long column that changes in few places, kept by blocks and by blocks of blocks."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy
from numpy.typing import NDArray

Array = NDArray[Any]
WIDTH = 16
"""Values of a block."""
AT_ONCE = 4096
"""Blocks that are read together, which bounds the memory of reading all."""


class Tree:
    """Reduces values by blocks of WIDTH, the results by blocks of WIDTH again, and so on up to one result.

    ``values`` returns the values of numbered blocks, [blocks, WIDTH]. They are not stored; a block is read again after
    ``touch``. ``neutral`` changes no result. Results depend on the present values only, not on their history.
    """

    def __init__(self, values: Callable[[Array], Array], reduce: numpy.ufunc, neutral: float) -> None:
        self._values, self._reduce, self._neutral = values, reduce, neutral

    def build(self, size: int) -> None:
        """Read ``size`` values, a multiple of WIDTH."""
        self._touched: set[int] = set()
        self._levels: list[Array] = []
        level = numpy.concatenate([self._reduced(self._values(part)) for part in _parts(numpy.arange(size // WIDTH))])
        while len(level) > 1:
            missing = numpy.full(-len(level) % WIDTH, self._neutral)
            self._levels.append(numpy.concatenate([level, missing]))
            level = self._reduced(_blocks(self._levels[-1]))
        self._root = level[0]

    def touch(self, blocks: Sequence[int]) -> None:
        """Values of these blocks may have changed."""
        self._touched.update(blocks)

    def root(self) -> float:
        """The result for all values."""
        if self._touched:
            blocks = numpy.fromiter(self._touched, dtype=numpy.int64)
            self._touched.clear()
            for part in _parts(blocks):
                self._update(part)
        return float(self._root)

    def descend(self, count: int, choose: Callable[[Array], Array]) -> Array:
        """``count`` places, each found from the root down: ``choose`` is given a block for each, [count, WIDTH]."""
        self.root()
        places = numpy.zeros(count, dtype=numpy.int64)
        for level in reversed(self._levels):
            places = places * WIDTH + choose(_blocks(level)[places])
        return places * WIDTH + choose(self._values(places))

    def smallest(self, count: int) -> Array:
        """The places of the ``count`` smallest finite values of a tree of minima, in rising order of values.

        No more blocks than ``count`` need to be read on each level: those of the smallest minima.
        """
        self.root()
        places = numpy.zeros(1, dtype=numpy.int64)
        for level in reversed(self._levels):
            places, _ = _least(_blocks(level)[places], places, count)
        places, values = _least(self._values(places), places, count)
        return places[values.argsort(kind="stable")]

    def _update(self, blocks: Array) -> None:
        values = self._values(blocks)
        for level in self._levels:
            level[blocks] = self._reduced(values)
            blocks = blocks // WIDTH
            values = _blocks(level)[blocks]
        self._root = self._reduced(values[:1])[0]

    def _reduced(self, values: Array) -> Array:
        reduced: Array = self._reduce.reduce(values, axis=1)
        return reduced


def _least(values: Array, blocks: Array, count: int) -> tuple[Array, Array]:
    """The places of the ``count`` smallest finite values of these blocks, in the order of places, and the values."""
    places, values = (blocks[:, None] * WIDTH + numpy.arange(WIDTH)).ravel(), values.ravel()
    chosen = numpy.sort(values.argsort(kind="stable")[:count])
    chosen = chosen[numpy.isfinite(values[chosen])]
    return places[chosen], values[chosen]


def _blocks(column: Array) -> Array:
    return column.reshape(-1, WIDTH)


def _parts(blocks: Array) -> list[Array]:
    return numpy.array_split(blocks, len(blocks) // AT_ONCE + 1)
