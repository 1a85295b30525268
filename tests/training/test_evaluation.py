"""Evaluation: intervals from the literature, what is measured by level, and that it disturbs nothing."""

from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch

from fixtures.training import (
    TASK,
    Small,
    apart,
    evaluation,
    make_engine,
    make_policy,
    problem,
    problems,
    shake,
    tokenizer,
    weights,
)
from rrl.parts.engines.hf import HFEngine
from rrl.training.evaluation import evaluation_metrics
from rrl.training.intervals import accuracy
from rrl.types import Feedback, Problem, Sampling, State, Verdict


@dataclass(kw_only=True)
class Watched(HFEngine):
    """An engine that remembers what it was asked for."""

    asked: list[tuple[list[State], Sampling]] = field(default_factory=list)

    def generate(self, states, sampling=None, generator=None, written=None):
        self.asked.append((list(states), sampling))
        return super().generate(states, sampling, generator, written)


@dataclass(frozen=True, kw_only=True)
class Marked(Small):
    """A verifier that gives marks out in the order of the rollouts; none is right where there are not as many."""

    marks: tuple[float, ...]

    def verify(self, rollouts):
        marks = self.marks if len(rollouts) == len(self.marks) else (0.0,) * len(rollouts)
        return [Feedback(mark, Verdict.RIGHT if mark == 1 else Verdict.WRONG) for mark in marks]


def marked(*marks: float) -> Marked:
    """The trace task with these marks."""
    return Marked(**vars(TASK), marks=marks)


def engine(kind: type[HFEngine] = HFEngine, **changes: Any) -> HFEngine:
    """A started engine on a tiny policy."""
    plain = make_engine(**changes)
    made = kind(**{name: getattr(plain, name) for name, f in HFEngine.__dataclass_fields__.items() if f.init})
    made.start(make_policy(critic="none"), tokenizer(), 0)
    return made


def three() -> list[Problem]:
    """Two problems of a level and one of another."""
    return [problem((1, 20 + i, 31), level=level, name=str(i)) for i, level in enumerate(("L3", "L10", "L3"))]


@dataclass(frozen=True, kw_only=True)
class Unsure(Small):
    """A verifier that fails on the responses to some problems, by their place, and finds the others right."""

    failing: tuple[int, ...]

    def verify(self, rollouts):
        failed = [i in self.failing for i in range(len(rollouts))]
        return [Feedback(0.0, Verdict.ERROR) if fails else Feedback(1.0, Verdict.RIGHT) for fails in failed]


@pytest.mark.parametrize(("failing", "accuracy_", "counted"), [((), 1.0, 3), ((1,), 1.0, 2), ((0, 1, 2), 0.0, 0)])
def test_what_the_verifier_failed_on_is_no_wrong_answer(failing, accuracy_, counted):
    fields = vars(TASK)
    found = evaluation(n=0).measure(three(), Unsure(**fields, failing=failing), engine())["greedy"]
    assert (found["accuracy"], found["n_problems"]) == (accuracy_, counted)
    assert found["error_frac"] == pytest.approx(len(failing) / 3)
    assert sum(level["n_problems"] for level in found["levels"].values()) == counted


# --- intervals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("right", "of", "low", "high"),
    [
        # Newcombe, "Two-sided confidence intervals for the single proportion", Stat. Med. 1998, table I, method 3.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (8, 10, 0.4902, 0.9433),
        (10, 10, 0.7225, 1.0000),
    ],
)
def test_one_sample_a_problem_has_wilsons_interval(right, of, low, high):
    result = accuracy([[1.0]] * right + [[0.0]] * (of - right))
    assert result["interval95"] == pytest.approx([low, high], abs=5e-5)
    assert (result["accuracy"], result["n_problems"], result["n_samples"]) == (pytest.approx(right / of), of, 1)


def test_with_several_samples_the_problems_are_the_independent_units():
    # Means .5, 1, 0, .5: mean .5, variance (.25 + .25) / 3 = 1/6, standard error sqrt(1/24) = .204124; times 1.959964.
    result = accuracy([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0], [0.0, 1.0]])
    assert result["accuracy"] == 0.5
    assert result["interval95"] == pytest.approx([0.0999243, 0.9000757], abs=1e-6)
    assert (result["n_problems"], result["n_samples"]) == (4, 2)


def test_more_samples_of_the_same_problems_are_no_evidence_by_themselves():
    rows = [[1.0, 1.0], [0.0, 0.0], [1.0, 0.0]]
    assert accuracy(rows)["interval95"] == accuracy([row * 4 for row in rows])["interval95"]


def test_problems_that_all_agree_are_no_certainty():
    """None of twenty and ten of ten, as in Newcombe's table above."""
    assert accuracy([[0.0] * 4] * 20)["interval95"] == pytest.approx([0.0, 0.1611], abs=5e-5)
    assert accuracy([[1.0] * 4] * 10)["interval95"] == pytest.approx([0.7225, 1.0], abs=5e-5)


def test_an_interval_stays_within_zero_and_one():
    assert accuracy([[1.0, 1.0], [0.0, 0.0]])["interval95"] == [0.0, 1.0]
    assert accuracy([[1.0, 1.0]])["interval95"] == [0.0, 1.0]  # one problem says nothing


# --- what is measured -------------------------------------------------------------------------------------------------


def test_accuracy_is_reported_by_level():
    result = evaluation(n=0).measure(three(), marked(1.0, 0.0, 0.0), engine())["greedy"]
    assert result["accuracy"] == pytest.approx(1 / 3)
    assert {name: (x["accuracy"], x["n_problems"]) for name, x in result["levels"].items()} == {
        "L3": (0.5, 2),
        "L10": (0.0, 1),
    }
    assert list(result["levels"]) == ["L3", "L10"]


def test_samples_of_a_problem_are_averaged_together():
    marks = (1.0, 1.0, 1.0, 0.0, 0.0, 0.0)  # two each: 1, .5 and 0
    result = evaluation(n=2).measure(three(), marked(*marks), engine())["mean@2"]
    assert {name: x["accuracy"] for name, x in result["levels"].items()} == {"L3": 0.5, "L10": 0.5}
    assert (result["n_problems"], result["n_samples"]) == (3, 2)
    assert result["verdicts"] == {"right": 3, "wrong": 3, "unparseable": 0, "error": 0}
    assert [x["response"] for x in result["samples"]] and len(result["samples"]) == 3


def test_every_evaluation_starts_from_prompts_alone():
    watched = engine(Watched)
    evaluation(n=2).measure(three(), TASK, watched)
    assert [len(states) for states, _ in watched.asked] == [3, 6]
    assert [state.problem.id for state in watched.asked[1][0]] == ["0", "0", "1", "1", "2", "2"]
    assert all(state == State(state.problem) for states, _ in watched.asked for state in states)


def test_greedy_is_greedy_and_samples_have_the_evaluations_own_shape():
    watched = engine(Watched, temperature=0.3, max_response_length=5, stop=("x",))
    result = evaluation(temperature=0.9).measure(three(), TASK, watched)
    greedy, sampled = (sampling for _, sampling in watched.asked)
    assert greedy == Sampling(0.0, 1.0, 0, 5, ("x",))
    assert sampled == Sampling(0.9, 1.0, 0, 5, ("x",))
    assert result["mean@2"]["sampling"]["temperature"] == 0.9
    evaluation(temperature=None).measure(three(), TASK, watched)
    assert watched.asked[-1][1] == Sampling(0.3, 1.0, 0, 5, ("x",))


def test_what_was_cut_off_is_counted():
    result = evaluation(n=0).measure(three(), TASK, engine(max_response_length=1))["greedy"]
    written = engine(max_response_length=1).generate([State(p) for p in three()], Sampling(0.0, 1.0, 0, 1, ()))
    assert result["truncated"] == sum(not r.finished for r in written) / 3 > 0


@pytest.mark.parametrize(("limit", "expected"), [(None, 10), (3, 6), (1, 2), (99, 10)])
def test_the_limit_is_of_each_level(limit, expected):
    taken = [p for p in problems("test") if p.level in ("L3", "L10")]
    chosen = evaluation(limit=limit).choose(taken)
    assert len(chosen) == expected
    assert chosen == [p for p in taken if p in chosen]  # in their order
    firsts = [p for p in taken if p.level == "L10"][:limit]
    assert [p for p in chosen if p.level == "L10"] == firsts


def stratified() -> list[Problem]:
    """Level by level and subject by subject, as the MATH files are: 4 algebra and 2 geometry problems of each level."""
    rows = [
        (level, subject) for level in ("L1", "L2") for subject, n in (("algebra", 4), ("geometry", 2)) for _ in range(n)
    ]
    made = [problem((1, 20, 31), level=level, name=f"{level}{i}") for i, (level, _) in enumerate(rows)]
    return [
        replace(p, example=replace(p.example, strata={"subject": subject}))
        for p, (_, subject) in zip(made, rows, strict=True)
    ]


@pytest.mark.parametrize(
    ("limit", "algebra", "geometry"), [(1, 1, 0), (2, 1, 1), (3, 2, 1), (4, 2, 2), (5, 3, 2), (9, 4, 2), (None, 4, 2)]
)
def test_the_strata_of_a_level_take_turns_under_the_limit(limit, algebra, geometry):
    taken = stratified()
    chosen = evaluation(limit=limit).choose(taken)
    assert chosen == [p for p in taken if p in chosen]
    for level in ("L1", "L2"):
        here = [p for p in chosen if p.level == level]
        own = {name: [p for p in here if p.example.strata["subject"] == name] for name in ("algebra", "geometry")}
        assert (len(own["algebra"]), len(own["geometry"])) == (algebra, geometry)
        assert own["algebra"] == [p for p in taken if p.level == level][:algebra]


def test_part_of_a_score_is_no_accuracy():
    result = evaluation(n=0).measure(three(), marked(1.0, 0.5, 0.75), engine())["greedy"]
    assert (result["accuracy"], result["score"]) == (pytest.approx(1 / 3), 0.75)
    assert {name: x["accuracy"] for name, x in result["levels"].items()} == {"L3": 0.5, "L10": 0.0}


def test_accuracy_is_reported_by_stratum():
    rows = [replace(p, example=replace(p.example, strata=s)) for p, s in zip(three(), KINDS, strict=True)]
    result = evaluation(n=0).measure(rows, marked(1.0, 0.0, 1.0), engine())
    strata = result["greedy"]["strata"]
    assert {kind: {name: x["accuracy"] for name, x in part.items()} for kind, part in strata.items()} == {
        "source": {"a": 1.0},
        "subject": {"algebra": 0.5, "number_theory": 1.0},
    }
    assert strata["subject"]["algebra"]["n_problems"] == 2
    metrics = evaluation_metrics(result, "math")
    assert metrics["val/math/subject:algebra/acc/greedy"] == 0.5
    assert {name for name in metrics if ":" in name} == {
        f"val/math/{name}/acc/greedy" for name in ("source:a", "subject:algebra", "subject:number_theory")
    }


KINDS = ({"subject": "algebra"}, {"subject": "algebra"}, {"subject": "number_theory", "source": "a"})


# --- what it leaves alone ---------------------------------------------------------------------------------------------


def test_the_same_samples_every_time():
    used = engine()
    first = evaluation().measure(three(), TASK, used)
    used.generate([State(p) for p in three()])
    torch.manual_seed(9)
    assert evaluation().measure(three(), TASK, used) == first


def test_another_seed_gives_other_samples_but_the_same_greedy_responses():
    first, second = (evaluation(seed=seed).measure(three(), TASK, engine()) for seed in (1, 2))
    assert first["greedy"] == second["greedy"]
    assert first["mean@2"]["samples"] != second["mean@2"]["samples"]


def test_a_longer_list_of_problems_gives_the_first_ones_the_same_samples():
    few, many = (evaluation().measure(three()[:n], TASK, engine())["mean@2"]["samples"] for n in (2, 3))
    assert many[:2] == few


def test_the_engines_own_random_numbers_are_left_alone():
    used = engine()
    before = used.state_dict()["generator"].clone()
    evaluation().measure(three(), TASK, used)
    assert torch.equal(used.state_dict()["generator"], before)


def test_a_better_policy_is_seen_at_once():
    policy, used = make_policy(critic="none"), make_engine()
    used.start(policy, tokenizer(), 0)
    first, before = evaluation().measure(three(), TASK, used), weights(policy)
    assert apart(before, weights(policy)) == set()
    shake(policy.actor, scale=1.0)
    assert evaluation().measure(three(), TASK, used)["greedy"]["samples"] != first["greedy"]["samples"]


# --- names and refusals -----------------------------------------------------------------------------------------------


def test_metrics_have_the_names_an_experienced_user_expects():
    result = evaluation(n=2).measure(three(), TASK, engine())
    assert evaluation_metrics(result, "trace").keys() == {
        *(
            f"val-core/trace/{name}/{mode}"
            for name in ("error_frac", "length", "truncated", "unparseable")
            for mode in ("greedy", "mean@2")
        ),
        "val-core/trace/pass@2/mean@2",
        "val-core/trace/maj@n/mean@2",
        *(
            f"{group}/acc/{mode}"
            for group in ("val-core/trace", "val/trace/L3", "val/trace/L10")
            for mode in ("greedy", "mean@2")
        ),
    }


def test_metrics_are_the_accuracies():
    result = evaluation(n=0).measure(three(), marked(1.0, 0.0, 0.0), engine())
    metrics = evaluation_metrics(result, "trace")
    assert metrics["val/trace/L3/acc/greedy"] == 0.5
    assert metrics["val-core/trace/acc/greedy"] == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"n": -1}, "^n: expected a number >= 0, got -1"), ({"limit": 0}, "^limit: .*0")],
)
def test_settings_refuse_what_cannot_be(changes, message):
    with pytest.raises(ValueError, match=message):
        evaluation(**changes)
