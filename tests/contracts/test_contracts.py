"""Own parts at the border: what a wrong one returns is reported by class and method, with what was expected."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch

from fixtures.training import TASK, EvenTokens, limits, make_trainer, problems
from rrl.collate import collate
from rrl.config.check import load
from rrl.contracts import border, examining, judging
from rrl.contracts.guiding import guided_state
from rrl.errors import ContractError
from rrl.parts.samplers.problems import Problems
from rrl.parts.tasks.trace import Trace
from rrl.training.preference_pairs import PairChoice
from rrl.types import Comparison, Example, Feedback, Judged, Pair, Rollout, Sampling, State, TokenScores, Verdict

RIGHT = Feedback(1.0, Verdict.RIGHT)
E = Example(id="a", level="L", question="q", reference="r", answer="x")


class Returns:
    """A part of any kind whose methods return what they are reported to."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def _answer(self, *given: Any, **named: Any) -> Any:
        return self.value(given[0]) if callable(self.value) else self.value

    sampling = Sampling(1.0, 1.0, 0, 6, ())
    examples = demonstrations = pairs = verify = sample = observe = generate = cuts = score = _answer
    state = judge = assign_credit = loss = experience = examine = expense = __call__ = _answer


def refusal(call: Any) -> str:
    with pytest.raises(ContractError) as caught:
        call()
    (fault,) = caught.value.faults
    assert fault.startswith("test_contracts.Returns.")
    assert fault.endswith("; fix this class (docs/adding-a-part.md)")
    return str(fault.removeprefix("test_contracts.Returns.").removesuffix("; fix this class (docs/adding-a-part.md)"))


LIMITS = limits()
MINE, OTHER = list(problems())[:2]
ROLLOUTS = [
    Rollout(State(MINE), (5, 6, 2), (-0.5,) * 3, (0.0,) * 3, True, "a", 0),
    Rollout(State(OTHER), (7, 8, 9, 5, 6, 7), (-0.5,) * 6, (0.0,) * 6, False, "b", 0),
]


@pytest.mark.parametrize(
    ("value", "reported"),
    [
        ([RIGHT], "verify: returned 1 items; expected a list of 2 Feedback, one for each rollout"),
        ([RIGHT] * 3, "verify: returned 3 items; expected a list of 2 Feedback, one for each rollout"),
        (None, "verify: returned None (NoneType); expected a list of 2 Feedback, one for each rollout"),
        ([RIGHT, 1.0], "verify: returned 1.0 (float) as item 1; expected a list of 2 Feedback, one for each rollout"),
    ],
)
def test_a_verifier_gives_one_feedback_a_rollout(value: Any, reported: str) -> None:
    assert refusal(lambda: border.feedback(Returns(value), ROLLOUTS)) == reported


def test_a_generator_is_no_list() -> None:
    reported = refusal(lambda: border.feedback(Returns(lambda rs: (RIGHT for _ in rs)), ROLLOUTS))
    assert reported.startswith("verify: returned <generator object ")
    assert reported.endswith("(generator); expected a list of 2 Feedback, one for each rollout")


@pytest.mark.parametrize(
    ("changes", "reported"),
    [
        ({"score": 1.5}, "score 1.5 (float), of item 1"),
        ({"score": -0.01}, "score -0.01 (float), of item 1"),
        ({"score": float("nan")}, "score nan (float), of item 1"),
        ({"score": torch.tensor(1.0)}, "score tensor(1.) (Tensor), of item 1"),
        ({"score": "1"}, "score '1' (str), of item 1"),
        ({"verdict": "right"}, "verdict 'right' (str), of item 1"),
        ({"verdict": True}, "verdict True (bool), of item 1"),
        ({"evidence": None}, "evidence None (NoneType), of item 1"),
        ({"evidence": [("a", 1)]}, "evidence [('a', 1)] (list), of item 1"),
        ({"evidence": {1: "a"}}, "evidence {1: 'a'} (dict), of item 1"),
        ({"score": 2, "verdict": None}, "score 2 (int), of item 1; verdict None (NoneType), of item 1"),
    ],
)
def test_feedback_has_a_score_a_verdict_and_named_evidence(changes: dict[str, Any], reported: str) -> None:
    expected = "; expected a score from 0 to 1, a Verdict, and a mapping with names for keys as evidence"
    wrong = [RIGHT, replace(RIGHT, **changes)]
    assert refusal(lambda: border.feedback(Returns(wrong), ROLLOUTS)) == f"verify: returned {reported}{expected}"


@pytest.mark.parametrize("score", [0, 1, 0.0, 1.0, True, 0.5])
def test_any_number_from_0_to_1_is_a_score(score: Any) -> None:
    judged = [Feedback(score, Verdict.WRONG, {"x": 1})] * 2
    assert border.feedback(Returns(tuple(judged)), ROLLOUTS) == judged


TEXT = "expected a list of Example with texts that are strings that UTF-8 can encode"
OWN = "expected a different id for each example"


@pytest.mark.parametrize(
    ("items", "reported"),
    [
        ([E, replace(E, id="b"), E], f"examples 0 and 2 have the same id 'a'; {OWN}"),
        ([E] * 3, f"examples 0 and 1 and 2 have the same id 'a'; {OWN}"),
        ([E] * 13, f"examples {' and '.join('0123456789')} and 3 more have the same id 'a'; {OWN}"),
        ([replace(E, question="a\ud83d")], rf"question = 'a\ud83d' (str) of item 0; {TEXT}"),
        ([replace(E, answer=18)], f"answer = 18 (int) of item 0; {TEXT}"),
        ([replace(E, id=None)], f"id = None (NoneType) of item 0; {TEXT}"),
        ([replace(E, strata={"s": 3})], f"strata['s'] = 3 (int) of item 0; {TEXT}"),
        ([replace(E, strata=None)], f"strata = None (NoneType) of item 0; {TEXT}"),
        ([{"id": "a"}], "{'id': 'a'} (dict) as item 0; expected a list of Example"),
    ],
)
def test_examples_have_texts_and_ids_of_their_own(items: list[Any], reported: str) -> None:
    assert refusal(lambda: border.examples(Returns(items), "train")) == f"examples('train'): returned {reported}"


def test_a_demonstration_may_come_again_but_is_text() -> None:
    assert border.demonstrations(Returns([E, E]), 2, 0) == [E, E]
    reported = refusal(lambda: border.demonstrations(Returns([replace(E, reference=b"r")]), 1, 0))
    assert reported.startswith(
        "demonstrations: returned reference = b'r' (bytes) of item 0; expected a list of Example"
    )


def test_pairs_are_pairs_of_text() -> None:
    pair = Pair(id="a", level="L", prompt="p", chosen="c", rejected="r")
    assert border.pairs(Returns([pair]), "train") == [pair]
    choice = PairChoice(train="train", test="test", train_limit=None, test_limit=None, seed=0)
    reported = refusal(lambda: choice.choose(Returns([replace(pair, chosen="\udc00")])))
    assert reported.startswith("pairs('train'): returned chosen = '\\udc00' (str) of item 0; expected a list of Pair")


@pytest.mark.parametrize(
    ("value", "reported"),
    [
        ([State(MINE)], "1 items; expected a list of 2 State, one for each requested start"),
        ([MINE] * 2, "Problem("),
        ([State(None), State(None)], "problem None (NoneType) of item 0; problem None (NoneType) of item 1; expected a "
                                     "Problem that start gave, token ids below 76, fewer than 6, as prefix, "
                                     "and a name or None as replayed_from"),
        ([State(MINE, [4])] * 2, "prefix [4] (list) of item 0; prefix [4] (list) of item 1; expected"),
        ([State(MINE, (4.0,))] * 2, "prefix (4.0,) (tuple) of item 0"),
        ([State(MINE, (-1,))] * 2, "prefix (-1,) (tuple) of item 0"),
        ([State(MINE, (), 7)] * 2, "replayed_from 7 (int) of item 0; replayed_from 7 (int) of item 1; expected a "),
    ],
)  # fmt: skip
def test_a_sampler_gives_as_many_states_as_were_asked_for(value: Any, reported: str) -> None:
    assert refusal(lambda: border.starts(Returns(value), 2, 0.0, LIMITS)).startswith(f"sample: returned {reported}")


@pytest.mark.parametrize(
    ("change", "reported"),
    [
        ({"actions": ()}, "rollout 0: actions () (tuple); expected a rollout"),
        ({"logprobs": (0.0,)}, "rollout 0: logprobs (0.0,) (tuple) of "),
        ({"kept": (float("-inf"),) * len(ROLLOUTS[0].actions)}, "rollout 0: kept (-inf, "),
        ({"response": b""}, "rollout 0: response b'' (bytes); expected a rollout from each state"),
        ({"state": ROLLOUTS[1].state}, "rollout 0: of another state, State("),
    ],
)
def test_an_engine_writes_from_each_state_with_a_number_a_token(change: dict[str, Any], reported: str) -> None:
    wrong = [replace(ROLLOUTS[0], **change), ROLLOUTS[1]]
    call = lambda: border.rollouts(Returns(wrong), [r.state for r in ROLLOUTS])  # noqa: E731
    assert refusal(call).startswith(f"generate: returned {reported}")


@pytest.mark.parametrize(
    ("value", "reported"),
    [
        ([0.0], "1 items; expected a list of 6 float, one for each action"),
        ([0.0] * 5 + [float("inf")], "inf (float) for action 5; expected finite numbers"),
        ([0.0] * 5 + [None], "None (NoneType) as item 5; expected a list of 6 float, one for each action"),
        (torch.zeros(6), "tensor([0., 0., 0., 0., 0., 0.]) (Tensor); expected a list of 6 float, one for each action"),
        (1.0, "1.0 (float); expected a list of 6 float, one for each action"),
    ],
)
def test_a_reward_pays_every_action_a_finite_number(value: Any, reported: str) -> None:
    rollout = replace(ROLLOUTS[0], actions=(4,) * 6)
    assert (
        refusal(lambda: border.token_rewards(Returns(value), Judged(rollout, RIGHT)))
        == f"__call__: returned {reported}"
    )


@pytest.mark.parametrize("value", [[0, 0, 1], [False, False, True], (0.0, 0, True)])
def test_whole_numbers_and_truths_pay_as_floats(value: Any) -> None:
    paid = border.token_rewards(Returns(value), Judged(replace(ROLLOUTS[0], actions=(4,) * 3), RIGHT))
    assert paid == [0.0, 0.0, 1.0] and all(type(number) is float for number in paid)


@pytest.mark.parametrize("value", [None, [("a", 1.0)], {"a": "1"}, {1: 1.0}, {"a": torch.tensor(1.0)}])
def test_what_is_observed_are_named_numbers(value: Any) -> None:
    reported = refusal(lambda: border.observed("sampler", Returns(value), (), [], []))
    assert reported.startswith("observe: returned ") and reported.endswith(
        "; expected a mapping of names to finite numbers"
    )
    assert border.observed("sampler", Returns({"a": 1}), (), []) == {"a": 1}


@pytest.mark.parametrize("value", [[4], [2, 1], [1, 1], [True], [1.0], (k for k in [1]), None, 1])
def test_cuts_are_legal_and_rise(value: Any) -> None:
    scored = TokenScores((0.0,) * 4, (0.0,) * 5)
    reported = refusal(lambda: border.cuts(Returns(value), scored, [1, 2, 3], Random(0)))
    assert reported.startswith("cuts: returned ")
    assert border.cuts(Returns([1, 3]), scored, [1, 2, 3], Random(0)) == [1, 3]


@pytest.mark.parametrize("value", [float("nan"), float("-inf"), None, torch.tensor(0.5)])
def test_a_selections_score_is_a_finite_number(value: Any) -> None:
    reported = refusal(lambda: border.cut_score(Returns(value), TokenScores((), ()), 0))
    assert reported.startswith("score: returned ") and reported.endswith("; expected a finite number")


FOUND = {1: 0.5}
SOME = "; expected finite numbers of legal cuts"


@pytest.mark.parametrize(
    ("value", "reported"),
    [
        (None, "examine: returned None (NoneType); expected a list of dicts, and metrics"),
        (([FOUND], {}), "examine: returned 1 items; expected a list of 2 dict, one for each response"),
        (([FOUND, None], {}), "examine: returned None (NoneType) as item 1; expected a list of 2 dict, one for each "),
        (([FOUND, {2: 0.5}], {}), f"examine: returned {{2: 0.5}} (dict) for response 1{SOME}"),
        (([FOUND, {1: float("nan")}], {}), f"examine: returned {{1: nan}} (dict) for response 1{SOME}"),
        (([FOUND, {}], None), "examine: returned None (NoneType); expected a mapping of names to finite numbers"),
    ],
)
def test_what_is_found_out_are_numbers_of_legal_cuts_and_metrics(value: Any, reported: str) -> None:
    legal = [[1, 2], [1]]
    states = [State(MINE, (4, 5, 6)), State(MINE, (4, 5))]
    assert refusal(lambda: examining.examined(Returns(value), states, legal, Random(0))).startswith(reported)
    assert examining.examined(Returns(([FOUND, {}], {"a": 1})), states, legal, Random(0)) == ([FOUND, {}], {"a": 1.0})


@pytest.mark.parametrize("value", [None, -1, 1.5, True])
def test_an_expense_is_a_number_of_tokens(value: Any) -> None:
    reported = refusal(lambda: examining.expense("selection", Returns(value), 9))
    assert reported.endswith("; expected a number of tokens, 0 or more")
    assert examining.expense("selection", Returns(7), 9) == 7


def test_help_is_a_state_of_the_problem_with_a_name() -> None:
    for wrong in (State(MINE), State(OTHER, (), help="x"), MINE, State(MINE, [1], help="x")):
        reported = refusal(lambda wrong=wrong: guided_state(Returns(wrong), MINE, 0, LIMITS))
        assert reported.endswith(f"; expected a State of problem {MINE.id!r} with a help, or None")
    assert guided_state(Returns(None), MINE, 0, LIMITS) is None
    assert guided_state(Returns(State(MINE, (4,), help="x")), MINE, 0, LIMITS) == State(MINE, (4,), help="x")


@pytest.mark.parametrize("value", [[0.5], torch.zeros(2), [0.5, "1"], {"a": 1}])
def test_a_reward_model_scores_every_pair(value: Any) -> None:
    reported = refusal(lambda: judging.scores(Returns(value), [("p", "a"), ("p", "b")]))
    assert reported.startswith("score: returned ") and reported.endswith(
        "; expected a list of 2 float, one for each pair"
    )


def test_a_judge_says_something_of_every_comparison() -> None:
    reported = refusal(lambda: judging.judgements(Returns([]), [Comparison("q", "a", "b")], lambda p, m: None))
    assert reported == "judge: returned 0 items; expected a list of 1 Judgement, one for each comparison"


def test_credit_and_losses_are_whole() -> None:
    trainer = make_trainer()
    batch = collate(ROLLOUTS, [[0.0] * len(r.actions) for r in ROLLOUTS], trainer.pad)
    for wrong in (None, batch.rows(torch.tensor([0]))):
        reported = refusal(lambda wrong=wrong: border.credit(Returns(wrong), batch))
        assert reported.endswith(f"; expected the Batch of {len(batch)} rows that it was given")
    for wrong in (None, (torch.zeros(2), torch.zeros(()), {}), (0.0, 0.0, {}), (torch.zeros(()), torch.zeros(()))):
        reported = refusal(lambda wrong=wrong: border.losses(Returns(wrong), batch, None))
        assert reported.endswith("; expected two tensors of one number each, and metrics")
    for parts in ((Returns(None), Returns(batch)), (Returns(batch), Returns(None))):
        reported = refusal(lambda parts=parts: border.experience(*parts, ROLLOUTS, batch))
        assert reported.startswith("experience: returned None")


# --- from files -------------------------------------------------------------------------------------------------------


def task_of(name: str, folder: Path, *rows: dict[str, Any]) -> Any:
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load("train", [f"task={name}", f"data.path={folder}", "model=hf", "model.path=x"], starting=())[1].task


def test_two_problems_of_a_file_with_one_id_are_refused(tmp_path: Path) -> None:
    row = {"problem": "p", "level": "Level 1", "type": "Algebra", "solution": r"\boxed{1}", "unique_id": "a/1"}
    math = task_of("math", tmp_path, row, row | {"unique_id": "a/2"}, row | {"problem": "q"})
    with pytest.raises(ContractError) as caught:
        border.examples(math, "train")
    reported = "MATH.examples('train'): returned examples 0 and 2 have the same id 'math/a/1'; expected a different id"
    assert reported in caught.value.faults[0]


def test_a_test_that_no_text_can_hold_is_left_out(tmp_path: Path) -> None:
    tests = {"inputs": ["a\ud83d", "b"], "outputs": ["1", "2"]}
    row = {
        "problem_id": 1,
        "question": "q",
        "solutions": "[]",
        "difficulty": "interview",
        "starter_code": "",
        "url": "",
    }
    apps = task_of("apps", tmp_path, row | {"input_output": json.dumps(tests)})
    (example,) = border.examples(apps, "train")
    assert json.loads(example.answer) == {"function": None, "inputs": ["b"], "outputs": ["2"]}


# --- in a loop --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Short(Trace):
    """A verifier that leaves the last rollout out."""

    def verify(self, rollouts: Any) -> Any:
        return super().verify(rollouts)[:-1]


@dataclass(kw_only=True)
class Few(Problems):
    """A sampler that gives one start too few."""

    def sample(self, count: int, progress: float) -> list[State]:
        return super().sample(count, progress)[1:]


class Nothing(EvenTokens):
    """A reward that is no number."""

    def __call__(self, judged: Any) -> list[float]:
        return [float("nan")] * len(judged.rollout.actions)


@pytest.mark.parametrize(
    ("parts", "reported"),
    [
        ({"task": Short(**vars(TASK))}, "test_contracts.Short.verify: returned 7 items; expected a list of 8 Feedback"),
        ({"sampler": Few(level_weights=None)}, "test_contracts.Few.sample: returned 7 items; expected a list of 8 S"),
        ({"reward": Nothing()}, "test_contracts.Nothing.__call__: returned nan (float) for action 0; "),
    ],
)  # fmt: skip
def test_a_step_stops_at_the_part_that_is_wrong(parts: dict[str, Any], reported: str) -> None:
    trainer = make_trainer(**parts)
    with pytest.raises(ContractError) as caught:
        trainer.step()
    assert caught.value.faults[0].startswith(reported)
    assert trainer.global_step == 0
