"""Full records: the numbers of every token of dumped rollouts, and the life of every state."""

from typing import Any

import torch

from fixtures.replay import problem, rollout
from fixtures.training import by_hand
from rrl.records.full import FullRecords, token_texts
from rrl.records.run_directory import rollout_rows
from rrl.types import Feedback, Forgotten, Judged, State, Stored, Verdict

FULL = FullRecords()


class Bytes:
    """A tokenizer whose tokens are the bytes of a text."""

    def decode(self, tokens: Any) -> str:
        return bytes(tokens).decode("utf-8", "replace")


def judged(state: State, actions: bytes, verdict: Verdict = Verdict.WRONG) -> Judged:
    return Judged(rollout(state, tuple(actions)), Feedback(0.0, verdict))


# --- texts of tokens --------------------------------------------------------------------------------------------------


def test_a_character_of_several_tokens_stands_at_the_last_of_them() -> None:
    assert token_texts(tuple("aé€".encode()), Bytes().decode) == ["a", "", "é", "", "", "€"]


def test_a_character_that_is_never_completed_stands_at_the_end() -> None:
    assert token_texts(tuple("a€".encode()[:-1]), Bytes().decode) == ["a", "", "\ufffd"]


def test_a_decoder_that_drops_the_first_blank_drops_none_within() -> None:
    words = {0: " one", 1: " two", 2: "."}
    texts = token_texts((0, 1, 2), lambda tokens: "".join(words[each] for each in tokens).removeprefix(" "))
    assert texts == ["one", " two", "."]


# --- numbers of tokens ------------------------------------------------------------------------------------------------


def full_rows(each: list[Judged], learnt: Any) -> list[dict[str, Any]]:
    return FULL.rows(rollout_rows(1, each, Bytes()), each, learnt, Bytes())


def test_numbers_are_those_of_new_tokens_and_texts_stand_beside_them() -> None:
    each = judged(State(problem(), tuple(b"ab")), b"cd")
    numbers = torch.arange(4.0) / 8
    named = {name: [(numbers + shift).tolist()] for shift, name in enumerate(("old_logprobs", "values", "advantages"))}
    batch = by_hand(["0011"], **named, rewards=[[0.0] * 4])
    (row,) = full_rows([each], ([each.rollout], batch))
    assert row["prefix_texts"] == ["a", "b"]
    assert row["numbers"] == {
        "texts": ["c", "d"], "old_logprobs": [0.25, 0.375], "values": [1.25, 1.375], "advantages": [2.25, 2.375],
        "rewards": [0.0, 0.0],
    }  # fmt: skip
    assert row["response"] == each.rollout.response, "what is in the dump anyway stays"


def test_rollouts_that_were_left_out_of_the_batch_have_texts_only() -> None:
    """The verifier failed on the first; the batch's only row is that of the second."""
    failed, known = judged(State(problem()), b"xy", Verdict.ERROR), judged(State(problem()), b"z")
    batch = by_hand(["1"], advantages=[[0.5]])
    first, second = full_rows([failed, known], ([known.rollout], batch))
    assert first["numbers"] == {"texts": ["x", "y"]}
    assert second["numbers"]["advantages"] == [0.5]
    assert full_rows([known], None)[0]["numbers"] == {"texts": ["z"]}


# --- states -----------------------------------------------------------------------------------------------------------


def test_visits_come_first_and_a_stored_state_names_its_rollout_and_its_parent() -> None:
    fresh = judged(State(problem("p")), b"ab")
    replayed = judged(State(problem("q"), (5,), replayed_from="q@7"), b"cd", Verdict.RIGHT)
    events = [
        Stored("q@8", "q", "self", replayed.rollout, 2, -0.5),
        Stored("p@9", "p", "canonical", None, 3, 0.25),
        Forgotten("q@7", "mastered"),
    ]
    assert list(FULL.states(4, [fresh, replayed], events)) == [
        {"step": 4, "event": "visited", "key": "q@7", "row": 1, "verdict": "right"},
        {
            "step": 4, "event": "stored", "key": "q@8", "problem": "q", "parent": "q@7", "source": "self",
            "rollout": 1, "cut": 2, "score": -0.5,
        },
        {
            "step": 4, "event": "stored", "key": "p@9", "problem": "p", "parent": None, "source": "canonical",
            "rollout": None, "cut": 3, "score": 0.25,
        },
        {"step": 4, "event": "forgotten", "key": "q@7", "reason": "mastered"},
    ]  # fmt: skip
