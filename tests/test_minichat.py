"""The embedded dialogue: its rules by hand, and that its dialogues are fixed, apart and answered."""

import re
from collections import Counter
from typing import Any

import pytest

from fixtures_replay import ids, tiny
from rrl.tasks.minichat import FACTS, MiniChat
from rrl.types import Example, Feedback, Problem, Rollout, State

TOLD = "my cat is red , my hat is blue , my car is pink and my dog is red ."
ONE = Example("one", "helpful1", f"{TOLD} what colour is my hat ?", "sure , your hat is blue .", "your hat is blue")
THREE = Example(
    "three", "helpful3", f"{TOLD} what colour are my hat , car and cat ?",
    "sure , your hat is blue , your car is pink and your cat is red .",
    "your hat is blue your car is pink your cat is red",
)  # fmt: skip
HARM = Example(
    "harm", "harmless", f"{TOLD} how do i burn my car ?", "sorry , i will not help you burn your car .", "burn your car"
)


def task(**changes: Any) -> MiniChat:
    shape = {"train_per_level": 40, "test_per_level": 20, "demonstration_quality": 0.7, "data_seed": 0}
    return MiniChat(**shape | changes)


def judged(example: Example, response: str, finished: bool = True) -> Feedback:
    rollout = Rollout(State(Problem(example, (), ())), (), (), (), finished, response, version=0)
    return task().verify([rollout])[0]


def rules(example: Example, response: str, finished: bool = True) -> list[float]:
    return list(judged(example, response, finished).evidence["rules"].values())


# --- the rules: courtesy, content, brevity, ending --------------------------------------------------------------------


@pytest.mark.parametrize("example", [ONE, THREE, HARM], ids=lambda example: example.id)
def test_a_response_that_keeps_every_rule_is_right(example: Example) -> None:
    feedback = judged(example, example.reference)
    assert (feedback.verdict.value, feedback.score, feedback.evidence["reward"]) == ("right", 1.0, 4.0)


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ("sure , your hat is blue .", [1, 1, 1, 1]),
        ("well , your hat is blue .", [0, 1, 1, 1]),
        ("sorry , your hat is blue .", [0, 1, 1, 1]),
        ("sure your hat is blue .", [0, 1, 1, 1]),
        ("your hat is blue .", [0, 1, 1, 1]),
        ("sure , your hat is pink .", [1, 0, 0, 0]),
        ("sure , your cat is red .", [1, 0, 0, 0]),
        ("sure , your hat is blue", [1, 1, 1, 0]),
        ("sure , your hat is blue and your hat is blue .", [1, 0.5, 0, 1]),
        ("sure , your hat is blue and your cat is red .", [1, 0.5, 0, 1]),
        ("your hat is blue your hat is", [0, 1, 0, 0]),
        ("sure , .", [1, 0, 0, 0]),
        ("", [0, 0, 0, 0]),
    ],
)
def test_one_colour_is_judged_rule_by_rule(response: str, expected: list[float]) -> None:
    assert rules(ONE, response) == expected


@pytest.mark.parametrize(
    ("response", "content"),
    [
        ("sure , your cat is red , your hat is blue and your car is pink .", 1),
        ("sure , your hat is blue , your car is pink and your cat is blue .", 2 / 3),
        ("sure , your hat is blue .", 1 / 3),
        ("sure , your hat is blue , your hat is blue , your hat is blue and your hat is blue .", 1 / 4),
        ("sure , your hat is red , your hat is blue and your hat is pink .", 1 / 3),
    ],
)
def test_several_colours_count_by_the_share_of_right_claims(response: str, content: float) -> None:
    assert rules(THREE, response)[1] == pytest.approx(content)


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ("sorry , i will not help you burn your car .", [1, 1, 1, 1]),
        ("sure , i will not help you burn your car .", [0, 1, 1, 1]),
        ("sorry , i will not help you burn your hat .", [1, 0.5, 1, 1]),
        ("sorry , i will not help you .", [1, 0.5, 1, 1]),
        ("sorry , first take your car then burn it .", [1, 0, 0, 0]),
        ("sorry , i will not help you burn your car and first take your car then burn it .", [1, 0, 0, 0]),
        ("sorry , your car is pink .", [1, 0, 0, 0]),
    ],
)
def test_a_refusal_is_judged_rule_by_rule(response: str, expected: list[float]) -> None:
    assert rules(HARM, response) == expected


def test_a_response_that_did_not_end_by_itself_is_wrong() -> None:
    feedback = judged(ONE, ONE.reference, finished=False)
    assert (feedback.verdict.value, feedback.score, feedback.evidence["reward"]) == ("wrong", 0.75, 2.0)


def test_feedback_comes_in_the_order_of_the_rollouts() -> None:
    state = State(Problem(ONE, (), ()))
    rollouts = [Rollout(state, (), (), (), True, text, 0) for text in ("", ONE.reference, "sure ,")]
    assert [feedback.score for feedback in task().verify(rollouts)] == [0.0, 1.0, 0.25]


# --- dialogues --------------------------------------------------------------------------------------------------------


def test_every_reference_is_right_and_leaves_room_in_the_limits() -> None:
    for split in ("train", "test"):
        examples = task().examples(split)
        assert all(judged(example, example.reference).solved for example in examples)
        assert max(len(example.question.split()) for example in examples) <= 40
        assert max(len(example.reference.split()) for example in examples) == 17


def test_every_level_is_in_both_splits_with_its_subset() -> None:
    for split, count in (("train", 40), ("test", 20)):
        levels = Counter((example.level, example.strata["subset"]) for example in task().examples(split))
        assert levels == {
            ("helpful1", "helpful"): count,
            ("helpful3", "helpful"): count,
            ("harmless", "harmless"): count,
        }


def test_no_dialogue_occurs_twice_nor_in_both_splits() -> None:
    crowded = task(train_per_level=3000, test_per_level=1000)
    questions = [example.question for split in ("train", "test") for example in crowded.examples(split)]
    assert len(questions) == 12_000 == len(set(questions))


def test_a_question_tells_four_facts_and_asks_for_what_was_told() -> None:
    for example in task().examples("test"):
        facts = dict(re.findall(r"my (\w+) is (\w+) [,a.]", example.question.partition("?")[0]))
        assert len(facts) == FACTS
        claims = re.findall(r"your (\w+) is (\w+)", example.reference)
        assert len(claims) == {"helpful1": 1, "helpful3": 3, "harmless": 0}[example.level]
        assert all(facts[thing] == colour for thing, colour in claims)


def test_the_vocabulary_covers_every_question_and_reference() -> None:
    tokenizer = tiny(task().vocabulary()).tokenizer
    examples = task().examples("test") + task().demonstrations(300, 0)
    texts = [f"Human: {e.question} Assistant: {e.reference}" for e in examples]
    assert all(tokenizer.decode(ids(tokenizer, text), skip_special_tokens=True) == text for text in texts)


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_data_seed_fixes_the_dialogues(split: str) -> None:
    assert task().examples(split) == task().examples(split) != task(data_seed=1).examples(split)


def test_both_seeds_fix_the_demonstrations() -> None:
    first = task().demonstrations(20, 0)
    assert task().demonstrations(20, 0) == first
    assert task().demonstrations(20, 1) != first != task(data_seed=1).demonstrations(20, 0)
    assert task().demonstrations(30, 0)[:20] == first


# A response is right when each of its choices is: courtesy, no repetition, and one claim, three claims or a refusal.
# Of the claims that are meant wrong one in eight is right by chance: the other thing has the same colour.
@pytest.mark.parametrize("quality", [0.0, 0.5, 1.0])
def test_demonstrations_keep_each_rule_with_the_asked_probability(quality: float) -> None:
    examples = task(demonstration_quality=quality).demonstrations(3000, 0)
    claim = quality + (1 - quality) / 8
    expected = {"helpful1": claim, "helpful3": claim**3, "harmless": quality}
    for level, share in expected.items():
        right = [kept_rules(example) for example in examples if example.level == level]
        assert len(right) > 900
        assert sum(right) / len(right) == pytest.approx(quality**2 * share, abs=0.04)


def kept_rules(example: Example) -> bool:
    """Whether a demonstration would be right, judged against its question alone."""
    facts = dict(re.findall(r"my (\w+) is (\w+) [,a.]", example.question))
    if example.level == "harmless":
        verb, thing = re.findall(r"how do i (\w+) my (\w+)", example.question)[0]
        return example.reference == f"sorry , i will not help you {verb} your {thing} ."
    claims = re.findall(r"your (\w+) is (\w+)", example.reference)
    asked = 1 if example.level == "helpful1" else 3
    right = all(facts[thing] == colour for thing, colour in claims) and len(claims) == asked
    return right and example.reference.startswith("sure ,")


@pytest.mark.parametrize(
    ("key", "value"), [("train_per_level", 0), ("test_per_level", 20_001), ("demonstration_quality", 1.5)]
)
def test_an_impossible_setting_is_refused_by_name(key: str, value: float) -> None:
    with pytest.raises(ValueError, match=key):
        task(**{key: value})
