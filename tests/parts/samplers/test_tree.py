"""Sums and minima by blocks: right, the same after changes as from scratch, found in logarithmically many steps."""

import math

import numpy
import pytest

from rrl.parts.samplers.tree import WIDTH, Tree


class Column:
    """Values that count how many of their blocks are read."""

    def __init__(self, values) -> None:
        self.values, self.read = numpy.asarray(values, dtype=float), 0

    def __call__(self, blocks):
        self.read += len(blocks)
        return self.values.reshape(-1, WIDTH)[blocks]

    def tree(self, reduce=numpy.add, neutral=0.0) -> Tree:
        tree = Tree(self, reduce, neutral)
        tree.build(len(self.values))
        self.read = 0
        return tree


SIZES = [16, 32, 256, 272, 4096, 4112]
"""Of one level, two, and three; just full and just above."""


@pytest.mark.parametrize("size", SIZES)
def test_the_root_is_the_sum_or_the_minimum(size):
    column = Column(range(1, size + 1))
    assert column.tree().root() == size * (size + 1) / 2
    assert column.tree(numpy.minimum, math.inf).root() == 1


@pytest.mark.parametrize("size", SIZES)
def test_a_change_is_seen_once_its_block_is_touched(size):
    column = Column([1.0] * size)
    tree, least = column.tree(), column.tree(numpy.minimum, math.inf)
    column.values[[3, size - 1]] = (5.0, 0.25)
    assert (tree.root(), least.root()) == (size, 1)
    tree.touch([0])
    least.touch([0])
    assert (tree.root(), least.root()) == (size + 4 - (size == 16) * 0.75, 1 if size > 16 else 0.25)
    tree.touch([0, size // WIDTH - 1])
    least.touch([size // WIDTH - 1])
    assert (tree.root(), least.root()) == (size + 3.25, 0.25)


def test_sums_after_many_changes_are_those_of_a_new_tree_in_every_bit():
    random = numpy.random.default_rng(0)
    column = Column(random.random(4112))
    tree = column.tree()
    for _ in range(30):
        places = random.integers(0, 4112, 50)
        column.values[places] = random.random(50)
        tree.touch((places // WIDTH).tolist())
        assert tree.root() == column.tree().root()


@pytest.mark.parametrize("size", SIZES)
def test_from_the_root_down_the_lowest_of_all_is_found_and_of_equals_the_first(size):
    column = Column([2.0] * size)
    column.values[[size // 2, size - 1]] = 1.0
    assert column.tree(numpy.minimum, math.inf).descend(1, lambda block: block.argmin(axis=1)) == [size // 2]


# By hand: 16, 256, 4,096 and 65,536 values are 1, 2, 3 and 4 blocks of 16 from the root to a value.
@pytest.mark.parametrize(("size", "blocks"), [(16, 1), (256, 2), (4096, 3), (65536, 4)])
def test_the_steps_to_a_value_grow_with_the_logarithm_of_their_number(size, blocks):
    seen = []

    def last(block):
        seen.append(block.shape)
        return numpy.full(len(block), WIDTH - 1)

    column = Column(numpy.zeros(size))
    assert column.tree().descend(2, last).tolist() == [size - 1] * 2
    assert (seen, column.read) == ([(2, WIDTH)] * blocks, 2)


def test_only_touched_blocks_are_read_again_and_only_once():
    column = Column(numpy.zeros(4096))
    tree = column.tree()
    for block in (0, 0, 1, 255, 255):
        tree.touch([block])
    tree.root()
    tree.root()
    assert column.read == 3


@pytest.mark.parametrize("size", SIZES)
def test_the_smallest_are_found_in_order_and_equal_ones_by_their_place(size):
    values = numpy.random.default_rng(1).permutation(size).astype(float)
    values[[2, size - 1]] = -1.0
    values[7] = math.inf
    column = Column(values)
    tree = column.tree(numpy.minimum, math.inf)
    expected = sorted((value, place) for place, value in enumerate(values) if value < math.inf)
    for count in (1, 2, 5, size):
        assert tree.smallest(count).tolist() == [place for _, place in expected[:count]]
    column.read = 0
    tree.smallest(3)
    assert column.read <= 3
