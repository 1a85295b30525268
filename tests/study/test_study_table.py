"""The tables of the study: what is compared with what, paired by seed; what was tested together; what is refused."""

import copy
import importlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fixtures.study import PROTOCOL, protocol_file, run
from rrl.errors import DataError
from rrl.study import sigmoid

STUDY = Path(__file__).parents[2] / "experiments" / "study"


@pytest.fixture(scope="module")
def table() -> Iterator[Any]:
    """The module, with few samples in each bootstrap."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(STUDY)
        patch.setattr(sigmoid, "RESAMPLES", 20)
        yield importlib.import_module("table")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("study")


@pytest.fixture(scope="module")
def about(table: Any, folder: Path) -> Any:
    return table.protocol.read("toy", protocol_file(folder))


@pytest.fixture(scope="module")
def lines(about: Any, table: Any, folder: Path) -> list[dict[str, Any]]:
    """PPO ends at .1 times its seed; the rules, the control and the bound lead by what stands here."""
    leads = {
        "ppo": ([0.0] * 4, [0.0] * 4), "peak": ([0.2] * 4, [0.2] * 4), "pivot": ([0.1, 0.1, 0.1, -0.05],) * 2,
        "peak_redraw": ([0.1] * 4, [0.3, 0.1, 0.1, 0.1]), "oracle": ([0.4] * 3, [0.4] * 3),
    }  # fmt: skip
    paces = {"peak": 1.0, "peak_redraw": 4.0}
    for arm, (halves, ends) in leads.items():
        for seed, half, end in zip(range(4), halves, ends, strict=False):
            base, place = 0.1 * seed, folder / "runs" / "toy" / "reported" / arm / str(seed)
            run(place, seed, (0.0, base + half, base + end), pace=paces.get(arm, 2.0), replays=arm == "peak")
    collect = importlib.import_module("collect")
    collect.collect(about, folder / "runs", folder / "results")
    found: list[dict[str, Any]] = collect.lines_in(folder / "results" / "toy" / "reported.jsonl")
    return found


@pytest.fixture(scope="module")
def result(about: Any, lines: list[dict[str, Any]], table: Any) -> Any:
    return table.compare(about, lines, "reported")


def test_accuracies_are_interpolated_at_shares_of_the_budget(result: Any) -> None:
    own = result["arms"]["peak_redraw"]["accuracy"]["L"]
    assert result["marks"] == ["20%", "40%", "60%", "80%", "100%"] and (result["mode"], result["level"]) == (
        "mean@4",
        "L",
    )
    # At 40 %: .8 of .1, .2, .3 and .4; at 60 %: .14, where the first rises from .1 to .3, and the others as at 50 %.
    assert own["40%"]["mean"] == pytest.approx(0.2) and own["60%"]["mean"] == pytest.approx(
        (0.14 + 0.2 + 0.3 + 0.4) / 4
    )
    assert own["100%"]["sd"] == pytest.approx(0.0816497)  # of .3, .2, .3, .4
    assert result["arms"]["peak_redraw"]["greedy"]["100%"]["mean"] == pytest.approx(0.15)


def test_differences_are_paired_by_seed(result: Any) -> None:
    peak, pivot, redraw = (result["arms"][arm] for arm in ("peak", "pivot", "peak_redraw"))
    assert peak["minus_baseline"]["60%"]["values"] == pytest.approx([0.2] * 4)
    assert peak["minus_control"]["60%"]["values"] == pytest.approx([0.2 - 0.14, 0.1, 0.1, 0.1])
    assert peak["minus_control"]["100%"]["values"] == pytest.approx([-0.1, 0.1, 0.1, 0.1])
    # .06, .1, .1, .1: mean .09, deviation .02; Student's t for 3 degrees of freedom is 3.182446.
    assert peak["minus_control"]["60%"]["half95"] == pytest.approx(3.182446 * 0.02 / 2)
    assert (pivot["minus_control"], redraw["minus_control"]) == (None, None)
    assert result["arms"]["oracle"]["minus_baseline"]["60%"]["seeds"] == [0, 1, 2]
    assert result["arms"]["ppo"]["minus_baseline"] is None


def test_rules_and_the_bound_are_compared_with_every_control_that_was_tuned_by_itself(
    about: Any, lines: list[dict[str, Any]], table: Any
) -> None:
    arms = {**about.arms, "peak_redraw": replace(about.arms["peak_redraw"], tuned="peak_redraw")}
    result = table.compare(replace(about, arms=arms), lines, "reported")
    found = {arm: row["minus_tuned"] for arm, row in result["arms"].items()}
    assert found["ppo"] == found["peak_redraw"] == {} and list(found["pivot"]) == ["peak_redraw"]
    # pivot's leads of .1, .1, .1 and -.05 less .14, .1, .1 and .1; the first is .1 at half and .3 at the end
    assert found["pivot"]["peak_redraw"]["60%"]["values"] == pytest.approx([-0.04, 0.0, 0.0, -0.15])
    own = table.compare(about, lines, "reported")  # where it has peak's values
    assert own["arms"]["pivot"]["minus_tuned"] == {} and table.tuned_controls(own, ["60%", "100%"]) == []
    (shown,) = table.tuned_controls(result, ["60%", "100%"])
    assert shown.head == ["arm", "minus peak_redraw"] and [row[0] for row in shown.rows] == ["peak", "pivot", "oracle"]
    assert shown.rows[2][1] == "0.287 ± 0.057, 0.233 ± 0.287"  # .26, .3, .3; .1, .3, .3; t .975 with 2 degrees: 4.303


def test_only_rules_are_a_family(result: Any) -> None:
    tests = {arm: row["minus_baseline"]["60%"] for arm, row in result["arms"].items() if row["minus_baseline"]}
    # Of 16 choices of signs of .1, .1, .1, -.05 four are as far from 0 as .25.
    assert {arm: each["p"] for arm, each in tests.items()} == {
        "peak": 2 / 16, "pivot": 4 / 16, "peak_redraw": 2 / 16, "oracle": 2 / 8,
    }  # fmt: skip
    assert {arm: each["holm"] for arm, each in tests.items() if "holm" in each} == {"peak": 4 / 16, "pivot": 4 / 16}
    assert result["arms"]["peak"]["minus_control"]["60%"]["holm"] == 2 / 16  # the one rule that has a control


def test_the_share_of_the_bounds_lead_is_that_of_rules_on_its_seeds(result: Any) -> None:
    own = result["arms"]["peak"]["share_of_bound"]
    assert own == {
        "share": pytest.approx(0.5),
        "low": pytest.approx(0.5),
        "high": pytest.approx(0.5),
        "seeds": [0, 1, 2],
    }
    assert result["arms"]["peak_redraw"]["share_of_bound"] is None


def test_effort_and_exploration(result: Any) -> None:
    peak, ppo = result["arms"]["peak"], result["arms"]["ppo"]
    assert peak["tokens_to_baseline"] == [
        375,
        250,
        188,
        150,
    ]  # to .15, PPO's mean at the end; .5 * .15 / (.2 + .1 seed)
    assert ppo["tokens_to_baseline"] == [None, None, 375, 250]
    assert peak["first_solves"] == pytest.approx({"60%": 4.4, "100%": 10.0}) and ppo["first_solves"] is None
    assert peak["unsolved"] == pytest.approx({"60%": 0.76, "100%": 0.6})
    assert peak["entropy"]["60%"] == pytest.approx(0.75 - 0.2 * (0.75 - 0.291667))
    assert peak["pass"]["100%"] == pytest.approx(0.35 + 0.2) and peak["k"] == 4


def test_the_same_is_counted_by_steps_and_by_seconds(result: Any) -> None:
    peak, redraw = result["arms"]["peak"], result["arms"]["peak_redraw"]
    # All take two steps to 50 %, so that PPO stood at 60 % at step 2.4, after 4.8 s.
    assert peak["by_step"]["at"] == pytest.approx(2.4) and peak["by_seconds"]["at"] == pytest.approx(4.8)
    assert peak["by_step"]["minus_baseline"]["values"] == pytest.approx([0.2] * 4)
    assert peak["by_step"]["minus_control"]["values"] == pytest.approx([0.06, 0.1, 0.1, 0.1])  # .14, .2, .3, .4 there
    assert (peak["by_step"]["ended"], peak["by_seconds"]["ended"]) == (0, 4)  # which takes 4 s in all
    # The control takes 4 s a step: after 4.8 s it is at 30 % of its tokens, .6 of the way to .1, .2, .3, .4.
    assert redraw["by_seconds"]["minus_baseline"]["values"] == pytest.approx([0.06, 0.02, -0.02, -0.06])


def test_the_same_work_lies_between_the_same_steps_and_the_same_tokens(
    about: Any, lines: list[dict[str, Any]], table: Any
) -> None:
    slow = [{**line, "step": [0, 4, 8]} if line["arm"] == "peak" else line for line in lines]
    found = table.compare(about, slow, "reported")["arms"]
    half, most = found["peak"]["by_work"].values()
    # PPO stands at 600 tokens after 2.4 steps. At 500 tokens, after 4 steps, peak has done .5 * 500 / 600 + .5 * 4 /
    # 2.4 = 1.25 of that work, or 1.0417 if writing is three quarters: it goes .8, or .96, of the way to .2 + .1 seed.
    assert half["minus_baseline"]["values"] == pytest.approx([0.16, 0.14, 0.12, 0.10])
    assert most["minus_baseline"]["values"] == pytest.approx([0.192, 0.188, 0.184, 0.18])
    # Its control has as many steps as PPO, and .14, .2, .3, .4 after that work.
    assert half["minus_control"]["values"] == pytest.approx([0.02, 0.04, 0.02, 0.0])
    assert found["pivot"]["by_work"]["50%"]["minus_baseline"]["values"] == pytest.approx([0.1, 0.1, 0.1, -0.05])
    assert (found["pivot"]["by_work"]["50%"]["minus_control"], half["ended"], half["seeds"]) == (None, 0, [0, 1, 2, 3])


def test_what_an_arm_does_beside_counts_as_work(about: Any, lines: list[dict[str, Any]], table: Any) -> None:
    busy = replace(about, arms={**about.arms, "peak": replace(about.arms["peak"], extra=0.5)})
    half = table.compare(busy, lines, "reported")["arms"]["peak"]["by_work"]["50%"]
    # At 500 tokens, after 2 steps, it has done .5 * 500 / 600 + .5 * 1.5 * 2 / 2.4 = 1.0417: .96 of the way.
    assert half["minus_baseline"]["values"] == pytest.approx([0.192, 0.188, 0.184, 0.18])


def test_arms_without_a_seed_in_common_are_not_compared(about: Any, lines: list[dict[str, Any]], table: Any) -> None:
    few = [line for line in lines if line["arm"] != "peak_redraw" or line["seed"] == 3]
    peak = table.compare(about, few, "reported")["arms"]["peak"]
    assert peak["by_step"]["minus_control"]["values"] == pytest.approx([0.1])
    rest = [line for line in few if (line["arm"], line["seed"]) != ("peak", 3)]
    assert table.compare(about, rest, "reported")["arms"]["peak"]["by_step"]["minus_control"] is None


def test_seconds_of_two_kinds_of_processor_are_not_compared(
    about: Any, lines: list[dict[str, Any]], result: Any, table: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = [{**line, "processor": "another"} if line["run"] == "peak/1" else line for line in lines]
    arms = table.compare(about, moved, "reported")["arms"]
    assert arms["peak"]["by_seconds"] is None and arms["peak"]["by_step"] == result["arms"]["peak"]["by_step"]
    assert arms["pivot"]["by_seconds"] and arms["pivot"]["by_seconds"] == result["arms"]["pivot"]["by_seconds"]
    pictures: list[list[str]] = []
    monkeypatch.setattr(
        importlib.import_module("picture"), "learning_curves", lambda panels, *_, **__: pictures.append(list(panels))
    )
    for each in (lines, moved):
        table.picture(about, each, ["ppo", "peak"], Path())
    table.picture(about, moved, ["ppo", "pivot"], Path())
    assert pictures == [["by tokens", "by step", *timed] for timed in (["by seconds"], [], ["by seconds"])]


def test_runs_that_choose_end_where_the_reported_ones_are_judged(
    about: Any, lines: list[dict[str, Any]], result: Any, table: Any
) -> None:
    early = replace(about.at("choosing"), seeds={"choosing": about.seeds["reported"]})
    found = table.compare(early, lines, "choosing")
    assert (found["budget"], found["marks"][-1]) == (600, "100%")
    for arm in ("peak", "pivot", "oracle"):
        now, then = found["arms"][arm], result["arms"][arm]
        assert now["minus_baseline"]["100%"] == then["minus_baseline"]["60%"]
        assert now["share_of_bound"] == then["share_of_bound"]
    assert [each.title.split(" (")[0] for each in table.tables(found)][2:4] == [
        "Differences at 100% of the budget",
        "The goal",
    ]


def test_what_is_missing_is_named(result: Any, table: Any) -> None:
    assert result["missing"] == {"oracle": [3]}
    missing = table.notes({**result, "missing": {"peek": [0, 1, 2, 3], "oracle": [3]}})[-2:]
    assert missing == ["**Incomplete**: no run yet of peek.",
                       "**Incomplete**: these arms have no run with these seeds yet: oracle: 3."]  # fmt: skip
    assert any("no run with these seeds yet: oracle: 3." in note for note in table.notes(result))


def test_the_tables_name_what_was_corrected(result: Any, table: Any) -> None:
    judged, levels, tests, ends, goal, effort, axes, work, fits = (each.markdown() for each in table.tables(result))
    assert "(mean@4) of L by share of 1 k generated tokens" in judged and "of all problems" in levels
    assert "| peak | rule | 0.200 ± 0.000 | 0.1250 (Holm 0.2500; n = 4) | peak_redraw | 0.090 ± 0.032 |" in tests
    assert "| peak_redraw | control | 0.110 ± 0.032 | 0.1250 (uncorrected; n = 4) | - | - | - | - |" in tests
    assert "| 0.50 (0.50 to 0.50) |" in tests and "share" not in ends
    assert "lie above 0 at 60% of the budget" in goal
    assert "| peak | yes | yes | yes | no | no |\n| pivot | no | - | - | no | no |\n" in goal
    assert "| peak | 241 (4 of 4) | 4, 10 | 0.760, 0.600 | 0.550, 0.550 (k = 4) |" in effort
    assert "| ppo | 312 (2 of 4) | - |" in effort
    assert "| peak | 0.350 | 0.200 ± 0.000 | 0.090 ± 0.032 | 0.350 (4 had ended) | 0.200 ± 0.000 |" in axes
    assert "| ppo | 0.150 | - | - | 0.150 | - | - |" in axes
    assert "| arm | 50%, minus ppo | 50%, minus control | 75%, minus ppo | 75%, minus control |" in work
    assert "| peak | 0.200 ± 0.000 | 0.090 ± 0.032 | 0.200 ± 0.000 | 0.090 ± 0.032 |" in work
    assert "| oracle | 0.400 ± 0.000 | - |" in work and "| ppo |" not in work
    assert "| peak_redraw | - | - | - |" in fits and "| no |" in fits and "| oracle | 0." in fits and "| yes |" in fits


@pytest.mark.parametrize(
    ("mean", "half", "side"), [(0.2, 0.1, 1), (0.1, 0.1, 0), (-0.1, 0.2, 0), (-0.2, 0.1, -1), (0.2, None, None)]
)
def test_an_interval_lies_above_0_or_below_or_holds_it(mean: float, half: float, side: int, table: Any) -> None:
    assert table._side({"60%": {"mean": mean, "half95": half}}, "60%") == side


def test_a_rule_that_loses_at_the_end_misses_the_goal(result: Any, table: Any) -> None:
    found = copy.deepcopy(result)
    peak = found["arms"]["peak"]
    peak["share_of_bound"]["share"] = 0.8
    assert "| peak | yes | yes | yes | yes | yes |" in table.goal(found, ("60%", "100%")).markdown()
    peak["minus_control"]["100%"] = {"mean": -0.1, "half95": 0.05}
    assert "| peak | yes | yes | no | yes | no |" in table.goal(found, ("60%", "100%")).markdown()


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"arm": "peek"}, "peak/0 (peek, seed 0) is no arm of arms.yml; expected one of ppo, peak, pivot, "),
        ({"seed": 11}, "peak/0 (peak, seed 11) has no seed of reported; expected one of 0, 1, 2, 3"),
        ({"tokens": [0, 500, 999]}, "ended at 999 tokens; expected the budget of 1,000 or more"),
        ({"tokens": [1, 500, 1000]}, "has no evaluation before training; expected one at 0 tokens"),
        ({"accuracy": {"mean@4": {"all": [0, 0, 0]}}}, "has no mean@4 of level L; expected one, of all"),
        ({"accuracy": {"greedy": {"L": [0, 0, 0]}}}, "has no mean@4 of level L"),
        ({"questions": "8 of 5b"}, "was measured on other questions than the baseline; expected the same"),
        ({"seed": 1}, "peak/0, peak/1 are all peak with seed 1; expected one"),
        ({"config": "f00"}, "peak has runs of several configurations (f00: seeds 0; "),
    ],
)  # fmt: skip
def test_runs_that_cannot_be_compared_are_refused_by_name(
    change: dict[str, Any], fault: str, about: Any, lines: list[dict[str, Any]], table: Any
) -> None:
    changed = [line | change if line["run"] == "peak/0" else line for line in lines]
    with pytest.raises(DataError) as caught:
        table.compare(about, changed, "reported")
    assert any(fault in each for each in caught.value.faults)


def test_a_study_without_ppo_is_refused(about: Any, lines: list[dict[str, Any]], table: Any) -> None:
    with pytest.raises(DataError, match="no run of ppo, the baseline of toy; expected one or more, got oracle, peak"):
        table.compare(about, [line for line in lines if line["arm"] != "ppo"], "reported")


def test_the_picture_has_the_rules_that_were_best_when_one_was_chosen(
    about: Any, lines: list[dict[str, Any]], table: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.import_module("picture"), "PICTURED", 1)
    result = table.compare(about, lines, "reported")
    assert table.pictured(about, result, []) == ["ppo", "peak", "peak_redraw", "oracle"]
    worse = [line | {"arm": {"peak": "pivot", "pivot": "peak"}.get(line["arm"], line["arm"])} for line in lines]
    assert table.pictured(about, result, worse) == ["ppo", "pivot", "oracle"]
    arms = {**about.arms, "peak_redraw": replace(about.arms["peak_redraw"], tuned="peak_redraw")}
    assert table.pictured(replace(about, arms=arms), result, worse) == ["ppo", "pivot", "peak_redraw", "oracle"]


def test_files_are_written_beside_the_lines(
    lines: list[dict[str, Any]], table: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table.protocol.read, "__defaults__", (folder / "arms.yml",))
    table.main("toy", "reported", str(folder / "results"))
    written = folder / "results" / "toy"
    assert json.loads((written / "study.json").read_text())["arms"]["peak"]["kind"] == "rule"
    assert "Held-out accuracy" in (written / "study.md").read_text()
    assert (written / "study.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(SystemExit, match="choosing: no run of ppo"):
        table.main("toy", "choosing", str(folder / "results"))


PPO = {"ppo": PROTOCOL["arms"]["ppo"]}
OF_PPO = {"kind": "control", "overrides": [], "tuned": "ppo"}


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"budget": 0}, "toy.budget: expected generated tokens, a whole number above 0, got 0"),
        ({"judged": 1}, "toy.judged: expected a share of the budget between 0 and 1, got 1"),
        ({"level": 10}, "toy.level: expected a level of held-out problems, as in L10, got 10"),
        ({"seeds": {"tuning": [1], "choosing": [2]}}, "reported: expected a list of whole numbers, each once, got nu"),
        ({"seeds": {"tuning": [1], "choosing": [2], "reported": [2, 3]}}, "toy.seeds: [2] stand in choosing and "),
        ({"arms": {}}, "toy.arms: expected one or more"),
        ({"arms": {"ppo": "baseline"}}, "toy.arms.ppo: expected a mapping, got 'baseline'"),
        ({"arms": {"ppo": {"kind": "base"}}}, "toy.arms.ppo.kind: expected one of baseline, rule, control, bound, got"),
        ({"arms": {"peak": {"kind": "rule"}}}, "toy.arms: expected one of kind baseline, got []"),
        ({"arms": PROTOCOL["arms"] | {"truth": {"kind": "bound"}}}, "toy.arms: expected at most one of kind bound"),
        ({"arms": PROTOCOL["arms"] | {"a": {"kind": "rule", "control": "a"}}}, "toy.arms.a.control: no other arm 'a'"),
        ({"arms": PROTOCOL["arms"] | {"a": {"kind": "rule", "tuned": "peek"}}}, "a.tuned: no other arm 'peek'; did"),
        ({"arms": {"ppo": {"kind": "baseline", "overrides": "a=b"}}}, ".overrides: expected a list of overrides, got"),
        ({"trails": 4}, "toy.trails: no such key; did you mean 'trials'?"),
        ({"search": ["lr"]}, "toy.search: expected for each key what is tried, as in choice(0.25, 0.5), got ['lr']"),
        ({"seeds": {"tuning": [1, 1], "choosing": [2], "reported": [3]}}, "toy.seeds.tuning: expected a list of whole"),
        ({"arms": {"p/o": {"kind": "baseline"}}}, "toy.arms.p/o: expected a name of letters, digits, - and _"),
        ({"arms": PPO | {"a": {"kind": "rule", "contrl": "ppo"}}}, "a.contrl: no such key; did you mean 'control'?"),
        ({"arms": PPO | {"a": {"kind": "rule", "control": ["ppo"]}}}, "toy.arms.a.control: no other arm ['ppo']"),
        ({"arms": PPO | {"a": {"kind": "rule", "extra": -0.2}}}, ".extra: expected a share of a step's work, from 0"),
        ({"arms": PPO | {"a": {"kind": "rule", "extra": "some"}}}, ".extra: expected a share of a step's work, from 0"),
        ({"arms": PPO | {"a": {"kind": "rule", "overrides": [3]}}}, "a.overrides: expected a list of overrides, got"),
        ({"arms": PPO | {"a": OF_PPO | {"search": {"lr": "choice(1)"}}}}, "toy.arms.a.search: is of no use with tuned"),
        ({"arms": PPO | {"a": OF_PPO, "b": OF_PPO | {"tuned": "a"}}}, "b.tuned: a takes the values of ppo itself; "),
        ({"trials": 0}, "toy.trials: expected a whole number from 1, got 0"),
        ({"experiment": None}, "toy.experiment: expected one, as in study/trace, got null"),
    ],
)  # fmt: skip
def test_a_protocol_that_does_not_hold_together_is_refused(
    changes: dict[str, Any], fault: str, table: Any, tmp_path: Path
) -> None:
    with pytest.raises(DataError) as caught:
        table.protocol.read("toy", protocol_file(tmp_path, **changes))
    assert any(fault in each for each in caught.value.faults)


def test_a_task_without_protocol_is_refused(table: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no task 'toys'; did you mean 'toy'"):
        table.protocol.read("toys", protocol_file(tmp_path))
