"""The oracle in its sampler: where a task says the first error is, in tokens of any tokenizer."""

from collections.abc import Callable
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from fixtures.replay import PAD, ids, tiny
from fixtures.samplers import TOP, Inspector, memory, schedule
from rrl.collate import collate
from rrl.parts.samplers.retrospective import Retrospective
from rrl.parts.selections.oracle import Oracle
from rrl.parts.tasks.minicode import error_free, write
from rrl.parts.tasks.trace import Trace
from rrl.types import Example, Feedback, Judged, Problem, Rollout, State, Verdict
from rrl.verifiers.program_verifier import Suite

TRACE = Trace(train_per_level=1, demonstration_lengths=(1,), demonstration_weak=0.0, start_seed=0)
PLAN = [("take", 5), ("rest", 9)]
SUITE = Suite(function="f", entry=None, inputs=([4], [6]), outputs=(8, 1))
VOCABULARY = (*"0123456789", "def", "f(x):", "\n", "x", "-=", "%=", "return")


def words() -> Any:
    """The built-in model's: a token is a word."""
    return tiny(VOCABULARY).tokenizer


def merged() -> Any:
    """Byte-level pairs, some of which are merged: a blank with the digit or word after it, "x -=", two digits."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    raw.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=290, initial_alphabet=alphabet, special_tokens=["<pad>", "<eos>"])
    raw.train_from_iterator(["0 8 5", "1 2", " 8 5 6", " x -= ", "x -= ", "def f(x):"] * 9, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<eos>", pad_token="<pad>")


def trace(response: str) -> Judged:
    example = Example("p", "L3", "7 add3 sub2 mul5 . . . . . . . =", "0 8 5", "0 8 5")
    rollout = Rollout(State(Problem(example, (), ())), (), (), (), True, response, 0)
    return Judged(rollout, TRACE.verify([rollout])[0])


def minicode(response: str) -> Judged:
    example = Example("p", "hard3", "take 5 rest 9 . .", write(PLAN), SUITE.as_text())
    rollout = Rollout(State(Problem(example, (), ())), (), (), (), True, response, 0)
    return Judged(rollout, Feedback(0.0, Verdict.WRONG, {"error_free": error_free(response, example)}))


def found(tokenizer: Any, judged: Judged, **changes: Any) -> list[str]:
    """The texts of the states that are remembered of one response, which ends by itself."""
    problem = Problem(judged.rollout.state.problem.example, (1, 4), ())
    tokens = (*ids(tokenizer, judged.rollout.response), tokenizer.eos_token_id)
    zeros = (0.0,) * len(tokens)
    rollout = Rollout(State(problem), tokens, zeros, zeros, True, tokenizer.decode(tokens[:-1]), 0)
    assert rollout.response == judged.rollout.response
    settings: dict[str, Any] = {
        "level_weights": None, "selection": Oracle(cut="last"), "buffer": memory(), "schedule": schedule(),
        "sources": "self", "cut_points": "token", "max_response_length": 99, "max_problem_success": 2.0,
        "success_momentum": 0.5, "siblings": None,
    }  # fmt: skip
    sampler = Retrospective(**settings | changes)
    sampler.start([problem], 0, Inspector(), tokenizer)
    sampler.observe([Judged(rollout, judged.feedback)], collate([rollout], [list(zeros)], PAD))
    return [tokenizer.decode(stored.prefix) for stored in sampler.buffer]


# Under ``merged``, " 8" and " 5" are tokens, and so is " x -= ".
@pytest.mark.parametrize("tokenizer", [words, merged])
@pytest.mark.parametrize(
    ("judge", "response", "state"),
    [(trace, "0 8 6", ["0 8"]), (trace, "0 8", ["0 8"]), (trace, "0 8 5 5", ["0 8 5"]), (trace, "0 0 8", ["0"]),
     (trace, "8 8", []), (minicode, "def f(x): \n x -= 5 \n x %= 8", ["def f(x): \n x -= 5 \n x %="]),
     (minicode, "def f(x): \n x -= 4 \n x %= 9", ["def f(x): \n x -="])],
)  # fmt: skip
def test_the_oracle_cuts_before_the_token_with_the_first_wrong_character(
    tokenizer: Callable[[], Any], judge: Callable[[str], Judged], response: str, state: list[str]
) -> None:
    assert [text.rstrip(" ") for text in found(tokenizer(), judge(response))] == state


def test_a_token_that_begins_right_and_ends_wrong_is_wrong() -> None:
    tokenizer, response = merged(), "1 2 5"
    assert tokenizer.tokenize(response)[0] == "1Ġ2"
    judged = Judged(trace(response).rollout, Feedback(0.0, Verdict.WRONG, {"error_free": 2}))
    assert found(tokenizer, judged) == []


def test_other_rules_do_not_ask_for_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rrl.parts.samplers.retrospective.tokens_before_error", None)
    assert len(found(words(), trace("0 8 6"), selection=TOP)) == 3
