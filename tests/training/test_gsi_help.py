"""Guided self-improvement: which answers are kept, and where guided tries start."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from fixtures.gsi import Thirds, like, make_gsi, reset
from fixtures.training import problem
from rrl.parts.guidance.hint import Hint
from rrl.training.gsi_state import AcceptedAnswer, AcceptedAnswers
from rrl.training.models import TinyLlama
from rrl.types import Example, Feedback, Problem, Rollout, State, Verdict

TINY_SIZES = {"hidden_size": 8, "num_hidden_layers": 1}
BYTES = TinyLlama(**TINY_SIZES, max_prompt_length=32, max_response_length=32, start_seed=0).load(None).tokenizer


# --- which answers are kept -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("per_problem", "distinct", "kept"),
    [
        (None, True, ["0a", "1a", "0b"]),
        (None, False, ["0a", "0a ", "1a", "0b", "0a"]),
        (1, True, ["0a", "1a"]),
        (2, False, ["0a", "0a ", "1a"]),
    ],
)
def test_a_text_is_kept_once_and_the_first_ones_of_a_problem(per_problem, distinct, kept):
    harvest, texts = AcceptedAnswers(per_problem=per_problem, distinct=distinct), ["0a", "0a ", "1a", "0b", "0a"]
    for place, text in enumerate(texts):
        harvest.add(AcceptedAnswer(int(text[0]), (place,), guided=False), text)
    assert [texts[answer.tokens[0]] for answer in harvest.answers] == kept
    assert harvest.right == {0: 4, 1: 1}  # of the right ones, kept or not
    assert harvest.covered == 2


def test_a_harvest_that_is_restored_knows_what_it_has():
    harvest, again = (AcceptedAnswers(per_problem=2, distinct=True) for _ in range(2))
    harvest.add(AcceptedAnswer(0, (1, 2), guided=True), "a")
    again.load_state_dict(harvest.state_dict())
    for each in (harvest, again):
        for place, text in enumerate("abc"):
            each.add(AcceptedAnswer(0, (place,), guided=False), text)
    assert (
        again.answers
        == harvest.answers
        == [AcceptedAnswer(0, (1, 2), guided=True), AcceptedAnswer(0, (1,), guided=False)]
    )
    assert again.right == harvest.right == {0: 4}


@dataclass(frozen=True, kw_only=True)
class Moody(Thirds):
    """Everything is right but what it cannot judge: responses that begin with an even token."""

    def _judge(self, rollout: Rollout) -> Feedback:
        return Feedback(1.0, Verdict.ERROR if rollout.tokens[0] % 2 == 0 else Verdict.RIGHT)


@pytest.mark.parametrize("train_on_truncated", [True, False])
def test_what_cannot_be_judged_or_was_cut_off_is_not_kept(train_on_truncated):
    loop = make_gsi(task=like(Moody), train_on_truncated=train_on_truncated, distinct=False, iterations=1)
    loop.step()
    written = [each.rollout for each in loop.last_rollouts]
    assert {r.finished for r in written} == {True, False}
    kept = [r.tokens for r in written if r.tokens[0] % 2 and (r.finished or train_on_truncated)]
    assert [answer.tokens for answer in loop._harvest.answers] == kept


# --- help: where guided tries start -----------------------------------------------------------------------------------


def helped(guidance: Any, reference: str | Sequence[int], tries: int, longest: int = 99) -> list[tuple[str, int]]:
    """Origin and length of the prefix of each try; a text is encoded byte by byte, with an end token behind it."""
    guidance.start(BYTES, None, 99, longest)
    text = isinstance(reference, str)
    tokens = (*BYTES(reference, add_special_tokens=False).input_ids, 2) if text else tuple(reference)
    states = [guidance.state(problem((1, 5), tokens), attempt) for attempt in range(tries)]
    assert all(state.prefix == tokens[: len(state.prefix)] for state in states if state)
    return [(state.help, len(state.prefix)) for state in states if state]


def test_lines_are_given_one_more_at_a_time_and_never_the_last():
    # 4 and 8 tokens end the first and second line; the published code gives the longest prefix twice.
    expected = [("line1", 4), ("line2", 8), ("line2", 8), ("line1", 4), ("line2", 8)]
    assert helped(reset("line"), "a=1\nb=2\n#### 3", tries=5) == expected
    whole = helped(reset("line"), "a=1\nb=2\nc=3\n", tries=3)  # with all three lines only the end would be left
    assert whole == [("line1", 4), ("line2", 8), ("line2", 8)]


def test_sentences_are_given_one_more_at_a_time():
    assert helped(reset("sentence"), "One. Two. Three.", tries=2) == [("sentence1", 4), ("sentence2", 9)]


@pytest.mark.parametrize(
    ("count", "lengths"), [(10, [2, 4, 6, 8, 8, 2]), (3, [1, 1, 1, 2, 2, 1]), (15, [3, 6, 9, 12, 12, 3])]
)
def test_shares_of_the_tokens_are_given_rounded_down_but_at_least_one(count, lengths):
    names = ["share0.2", "share0.4", "share0.6", "share0.8", "share0.8", "share0.2"]
    expected = [(f"{name}", length) for name, length in zip(names, lengths, strict=True)]
    assert helped(reset("token"), [*range(5, 5 + count), 2], tries=6) == expected


def test_a_share_is_not_cut_short_by_rounding():
    exact = replace_shares(0.29)  # 0.29 * 100 is 28.999999999999996
    assert helped(exact, [*range(100), 2], tries=1) == [("share0.29", 29)]


def replace_shares(*shares: float) -> Any:
    made = reset("token")
    made.shares = shares
    return made


def test_a_reference_without_inner_lines_is_cut_by_shares():
    assert helped(reset("line"), "0123456789", tries=2) == [("share0.2", 2), ("share0.4", 4)]


def test_a_prefix_leaves_room_to_write():
    assert helped(reset("token"), [*range(5, 15), 2], tries=4, longest=6) == [
        ("share0.2", 2), ("share0.4", 4), ("share0.2", 2), ("share0.4", 4)
    ]  # fmt: skip


@pytest.mark.parametrize("reference", [[], [7, 2]])
def test_where_nothing_can_be_given_there_is_no_guided_try(reference):
    assert helped(reset("token"), reference, tries=2) == []


def hinted(text: str, room: int = 99) -> State | None:
    hint = Hint(name="answer", text=text)
    hint.start(None, lambda questions: [tuple(ord(c) for c in question) for question in questions], room, 99)
    example = Example("p", "easy", "1+{answer}?", "so {question}", "2")
    return hint.state(Problem(example, (1, 5), (7, 2)), 0)


def test_a_hint_stands_in_the_prompt_and_what_it_holds_is_not_filled_in_again():
    state = hinted("{question} = {answer}: {reference}")
    assert "".join(map(chr, state.problem.prompt)) == "1+{answer}? = 2: so {question}"
    assert (state.prefix, state.help, state.problem.id) == ((), "answer", "p")


def test_a_hint_that_leaves_no_room_is_not_given():
    assert hinted("{question}{answer}", room=12) is not None
    assert hinted("{question}{answer}", room=11) is None
