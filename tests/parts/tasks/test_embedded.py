"""What the embedded tasks share: no question twice, seeds that fix examples and demonstrations, checked settings."""

from collections import Counter
from typing import Any

import pytest

from rrl.errors import ConfigError
from rrl.parts.tasks.embedded import Embedded
from rrl.parts.tasks.minichat import MiniChat
from rrl.parts.tasks.minicode import MiniCode
from rrl.parts.tasks.trace import Trace

UNUSED: Any = None
STREAM = {"demonstration_lengths": (1, 3, 5), "demonstration_weak": 0.25}
TASKS: dict[type[Embedded], dict[str, Any]] = {
    Trace: STREAM,
    MiniCode: STREAM | {"tests": 3, "judge": UNUSED},
    MiniChat: {"demonstration_quality": 0.7},
}

IDENTIFIERS = {
    Trace: ("trace/train/L3", "trace/test/L10"),
    MiniCode: ("minicode/train/easy3", "minicode/test/hard5"),
    MiniChat: ("minichat/train/helpful1", "minichat/test/harmless"),
}


def task(kind: type[Embedded], **changes: Any) -> Embedded:
    sizes = {"train_per_level": 200, "start_seed": 0}
    return kind(**sizes | TASKS[kind] | changes)


@pytest.mark.parametrize(
    ("kind", "levels"),
    [(Trace, {"L3": 20, "L6": 20, "L10": 20}), (MiniCode, {"easy3": 20, "hard3": 20, "hard5": 20}),
     (MiniChat, {"helpful1": 20, "helpful3": 20, "harmless": 20})],
)  # fmt: skip
def test_the_test_set_holds_every_level_and_the_training_set_the_trained_ones(
    kind: type[Embedded], levels: dict[str, int]
) -> None:
    untrained = {Trace: "L6", MiniCode: "hard3", MiniChat: None}[kind]
    assert Counter(example.level for example in task(kind).examples("test")) == levels
    trained = {level: 200 for level in levels if level != untrained}
    assert Counter(example.level for example in task(kind).examples("train")) == trained


@pytest.mark.parametrize("kind", TASKS)
@pytest.mark.parametrize("size", [500, pytest.param(2500, marks=pytest.mark.slow)])
def test_no_question_and_no_identifier_occurs_twice_nor_in_both_splits(kind: type[Embedded], size: int) -> None:
    crowded = task(kind, train_per_level=size)
    examples = crowded.examples("train") + crowded.examples("test")
    trained = 3 if kind is MiniChat else 2
    held_out = size // 10
    assert len(examples) == size * trained + held_out * 3
    first, last = IDENTIFIERS[kind]
    assert (examples[0].id, examples[-1].id) == (f"{first}/0", f"{last}/{held_out - 1}")
    assert len({example.question for example in examples}) == len(examples) == len({example.id for example in examples})


@pytest.mark.parametrize("kind", TASKS)
@pytest.mark.parametrize("split", ["train", "test"])
def test_the_data_seed_fixes_the_examples(kind: type[Embedded], split: str) -> None:
    first = task(kind).examples(split)
    assert task(kind).examples(split) == first
    assert task(kind, start_seed=1).examples(split) != first


@pytest.mark.parametrize("kind", TASKS)
def test_both_seeds_fix_the_demonstrations(kind: type[Embedded]) -> None:
    first = task(kind).demonstrations(20, 0)
    assert task(kind).demonstrations(20, 0) == first
    assert task(kind).demonstrations(20, 1) != first != task(kind, start_seed=1).demonstrations(20, 0)
    assert task(kind).demonstrations(30, 0)[:20] == first


@pytest.mark.parametrize(
    ("kind", "key", "value"),
    [(Trace, "train_per_level", 20_001), (MiniCode, "train_per_level", 2_501), (MiniChat, "train_per_level", 0),
     (Trace, "demonstration_weak", 1.5), (MiniCode, "demonstration_weak", -0.1), (MiniCode, "tests", 0),
     (Trace, "demonstration_lengths", (0, 3)), (Trace, "demonstration_lengths", (101,)),
     (MiniCode, "demonstration_lengths", (6,)), (MiniCode, "demonstration_lengths", ()),
     (MiniChat, "demonstration_quality", 1.5), (MiniCode, "tests", 62),
     (Trace, "demonstration_lengths", ())],
)  # fmt: skip
def test_an_impossible_setting_is_refused_by_name(kind: type[Embedded], key: str, value: Any) -> None:
    with pytest.raises(ValueError, match=key):
        task(kind, **{key: value})


@pytest.mark.parametrize("kind", TASKS)
@pytest.mark.parametrize("split", ["tset", "Test", "train ", "validation", ""])
def test_a_split_that_is_not_there_is_refused_with_those_that_are(kind: type[Embedded], split: str) -> None:
    with pytest.raises(ConfigError) as caught:
        task(kind).examples(split)
    reported = f"evaluation.split: {kind.name} has no split {split!r}; expected one of train, test"
    assert caught.value.faults == (reported,)
