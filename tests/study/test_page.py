"""The page's data: which numbers, rollouts and states it shows, what it keeps, and what it says of damaged records."""

import base64
import gzip
import json
import re
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from fixtures.page import evaluation, lines, problem, rollout, run
from rrl.errors import ConfigError
from rrl.study.page.collect import collect
from rrl.study.page.html import write_page
from rrl.study.page.lineage import lineage
from rrl.study.page.records import read_runs
from rrl.study.page.rollouts import chosen

MUCH = 40.0


def page_of(*folders: Path, megabytes: float = MUCH) -> tuple[dict[str, Any], dict[str, Any]]:
    return collect({folder.name: [folder] for folder in folders}, megabytes, 500)


# --- curves -----------------------------------------------------------------------------------------------------------


def test_the_four_axes_are_steps_generated_and_trained_tokens_and_seconds(tmp_path):
    (records,) = read_runs([run(tmp_path / "a")], 500)
    assert records.curves["axes"] == {
        "step": [0, 1, 2], "generated": [0, 100, 200], "trained": [0, 80, 160], "seconds": [1.0, 3.0, 5.0],
    }  # fmt: skip
    assert records.phases == {"gen": 3.0, "testing": 1.0}


def test_accuracy_is_a_curve_overall_and_by_level_and_so_is_every_number_of_metrics(tmp_path):
    (records,) = read_runs([run(tmp_path / "a")], 500)
    metrics = records.curves["metrics"]
    assert metrics["accuracy/greedy"] == {"at": [0, 2], "y": [0.25, 0.5], "low": [0.15, 0.4], "high": [0.35, 0.6]}
    assert metrics["accuracy/greedy/L1"]["y"] == [0.5, 1.0]
    assert metrics["actor/entropy"] == {"at": [1, 2], "y": [1.25, 1.25]}


def test_long_curves_are_thinned_evenly_and_keep_both_ends_and_every_evaluation(tmp_path):
    folder = run(tmp_path / "a")
    lines(folder / "metrics.jsonl", [{"step": n, "actor/entropy": float(n)} for n in range(1001)])
    lines(folder / "evaluations.jsonl", [evaluation(7, 0.5, 1.0)])
    (records,) = read_runs([folder], 5)
    assert records.curves["axes"]["step"] == [0, 7, 250, 500, 750, 1000]


# --- rollouts ---------------------------------------------------------------------------------------------------------


def test_problems_are_kept_whole_in_the_order_of_their_hashes_until_the_page_is_full():
    """sha256sum of add/1, add/2, add/3 and add/4 begin with 51, 6e, 6f and f3; a problem too large is passed over."""
    assert chosen({"add/4": 10, "add/3": 10, "add/2": 900, "add/1": 10}, 100) == ["add/1", "add/3", "add/4"]
    assert chosen({"add/1": 10}, 9) == []


def test_the_same_problems_are_kept_in_every_run_and_what_was_left_out_is_counted(tmp_path):
    folders = [run(tmp_path / name) for name in ("a", "b")]
    rows = [rollout("so 2", "right", problem=problem(f"add/{n}")) for n in (1, 2, 3, 4)]
    size = len(json.dumps(rows[0])) + 1
    for folder in folders:
        lines(folder / "rollouts" / "step-000005.jsonl", rows)
    index, blocks = page_of(*folders, megabytes=4 * size / 1e6)
    assert [each["id"] for each in index["problems"]] == ["add/1", "add/2"]
    assert [(each["kept"], each["of"]) for each in index["runs"]] == [(2, 4), (2, 4)]
    assert [(each["kept"], each["of"], each["verdicts"]) for each in index["steps"]] == 2 * [(2, 4, {"right": 4})]
    assert [each["r"] for each in blocks["rollouts/1/training/5"]] == [0, 1]
    assert "SHA-256" in index["rule"]


def test_rollouts_are_sorted_by_score_reward_advantage_length_and_where_they_come_from(tmp_path):
    folder = run(tmp_path / "a")
    numbers = {"rewards": [0.0, 1.0], "advantages": [0.5, -0.25], "texts": ["so", " 2"]}
    row = rollout("so 2", "right", replayed_from="k", evidence={"outcome": "timeout"}, numbers=numbers)
    lines(folder / "rollouts" / "step-000005.jsonl", [row])
    lines(folder / "evaluations" / "step-000005.jsonl", [rollout("so 3", mode="greedy", finished=False)])
    _, blocks = page_of(folder)
    rows = blocks["rows"]
    assert (rows["reward"], rows["advantage"], rows["tokens"]) == ([1.0, None], [0.125, None], [3, 3])
    assert (rows["source"], rows["mode"]) == (["training", "evaluation"], [None, "greedy"])
    assert (rows["outcome"], rows["replayed"], rows["finished"]) == (["timeout", None], [True, False], [True, False])


# --- lineage ----------------------------------------------------------------------------------------------------------

LONG = rollout("so 1 no 2", r=0, p=0)
VISIT = rollout("so 1 so 2", "right", r=3, p=0, prefix="so 1", prefix_tokens=[7, 8], replayed_from="add/1@0")


def test_a_recorded_state_has_its_origin_visits_and_end(tmp_path):
    about = {"key": "add/1@0", "problem": "add/1", "parent": None, "source": "self", "cut": 2, "score": 0.5}
    events = [
        {"step": 4, "event": "stored", "rollout": 1, **about},
        {"step": 5, "event": "stored", "rollout": 0, **about, "key": "add/9@1", "problem": "add/9"},
        {"step": 5, "event": "visited", "key": "add/1@0", "row": 3, "verdict": "right"},
        {"step": 6, "event": "forgotten", "key": "add/1@0", "reason": "mastered"},
    ]
    lines(tmp_path / "states.jsonl", events)
    found = lineage(tmp_path, [(5, VISIT)], {"add/1": 0})
    (state,) = found["states"]
    assert found["recorded"]
    assert (state["origin"], state["visits"], state["forgotten"]) == ([4, 1], [[5, 3, "right"]], [6, "mastered"])
    assert (state["prefix"], state["source"], state["cut"]) == ("so 1", "self", 2)
    assert found["first_solves"] == [{"p": 0, "step": 5, "row": 3, "key": "add/1@0"}]


def test_without_events_the_origin_is_the_last_earlier_rollout_that_begins_with_the_prefix(tmp_path):
    other = rollout("no", r=1, p=0)
    later = rollout("so 1 so 9", r=2, p=0)
    found = lineage(tmp_path, [(3, LONG), (4, other), (5, later), (5, VISIT)], {"add/1": 0})
    (state,) = found["states"]
    assert not found["recorded"]
    assert (state["origin"], state["cut"], state["visits"]) == ([3, 0], 2, [[5, 3, "right"]])


def test_a_problem_that_was_right_before_is_no_first_solve(tmp_path):
    before = rollout("so 2", "right", r=9, p=0)
    assert lineage(tmp_path, [(3, LONG), (4, before), (5, VISIT)], {"add/1": 0})["first_solves"] == []


# --- results and damage -----------------------------------------------------------------------------------------------


def test_the_final_tables_have_budgets_levels_and_paired_differences_as_markdown_and_latex(tmp_path):
    arms = {arm: [run(tmp_path / f"{arm}{seed}", seed, arm) for seed in (0, 1)] for arm in ("ppo", "rrl_x")}
    index, _ = collect(arms, MUCH, 500)
    overall, by_level, beside = index["tables"]
    assert overall["rows"] == [["ppo", "2", "0.333 ± 0.000", "0.416 ± 0.000", "0.500 ± 0.000", ""],
                               ["rrl_x", "2", "0.333 ± 0.000", "0.416 ± 0.000", "0.500 ± 0.000",
                                "0.000 ± 0.000"]]  # fmt: skip
    assert (by_level["head"], by_level["rows"][0][2:]) == (
        ["arm", "seeds", "L1", "L2"],
        ["1.000 ± 0.000", "0.000 ± 0.000"],
    )
    assert (beside["head"], beside["rows"][0]) == (["arm", "seeds", "accuracy"], ["ppo", "2", "0.500 ± 0.000"])
    assert "| ppo | 2 | 1.000 ± 0.000 |" in by_level["markdown"]
    assert r"rrl\_x & 2 & 1.000 $\pm$ 0.000 &" in by_level["latex"]
    assert index["differences"]["rows"] == [["algo", "ppo", "rrl_x"], ["seed", "0, 1", "0, 1"]]
    assert index["seconds"]["rows"] == [["ppo", "3.0", "1.0"], ["rrl_x", "3.0", "1.0"]]


def test_length_truncation_and_pass_at_k_stand_beside_the_accuracy(tmp_path):
    folder = run(tmp_path / "a")
    row = evaluation(2, 0.5, 1.0)
    row["greedy"] |= {"length": 12.5, "truncated": 0.25, "unparseable": 0.0, "pass@k": {"2": {"value": 0.75}},
                      "maj@n": {"value": None, "reason": "none"}}  # fmt: skip
    lines(folder / "evaluations.jsonl", [row])
    table = page_of(folder)[0]["tables"][-1]
    assert table["head"] == ["arm", "seeds", "accuracy", "length", "truncated", "unparseable", "pass@2"]
    assert table["rows"] == [["a", "1", "0.500", "12.500", "0.250", "0.000", "0.750"]]


def test_runs_of_other_questions_are_not_compared_and_each_group_has_its_table(tmp_path):
    index, _ = page_of(run(tmp_path / "a", data="x"), run(tmp_path / "b", data="y"))
    assert index["faults"] == [
        "runs of 2 kinds of questions are not compared: a; b; choose the questions above the curves, or make a page of "
        "each"
    ]
    assert [(each["group"], [row[0] for row in each["rows"]]) for each in index["tables"]][::3] == [
        (0, ["a"]),
        (1, ["b"]),
    ]


def test_a_folder_without_a_run_is_named_and_keeps_no_group_of_its_own(tmp_path):
    (tmp_path / "none").mkdir()
    index, _ = page_of(tmp_path / "none", run(tmp_path / "a"))
    assert index["faults"] == ["none: no config.yaml, so no run is there; in no table; expected the directory of a run"]
    assert index["groups"] == ["add, 4 questions"]


def test_every_gap_in_the_records_is_named_with_its_remedy_and_the_rest_is_shown(tmp_path):
    whole, failed, bare = run(tmp_path / "whole"), run(tmp_path / "failed", state="failed"), run(tmp_path / "bare")
    (bare / "evaluations.jsonl").unlink()
    (bare / "manifest.json").write_text("{")
    torn, foreign = json.dumps(rollout("so 2"))[:50], {"step": 5, "prompt": "1 + 1 =", "completion": "2"}
    lines(whole / "rollouts" / "step-000005.jsonl", [rollout("so 2", "right"), foreign])
    with (whole / "rollouts" / "step-000005.jsonl").open("a") as file:
        file.write(torn)
    index, blocks = page_of(whole, failed, bare)
    said = "\n".join(index["faults"])
    assert "failed: unknown; in the curves, in no table; continue it: rrl-train resume=" in said
    assert "bare: no evaluation of this version of rrl in evaluations.jsonl; in no table; measure its model:" in said
    assert "bare: manifest.json cannot be read" in said
    assert "whole: rollouts/step-000005.jsonl: 1 torn lines; left out; copy the file again" in said
    assert "whole: rollouts/step-000005.jsonl: 1 rows without a valid 'problem', of another version of rrl" in said
    assert [row["response"] for row in blocks["rollouts/0/training/5"]] == ["so 2"]
    assert len(index["tables"][0]["rows"]) == 1 and len(blocks["metric/accuracy/greedy"]) == 3


@pytest.mark.parametrize(
    ("file", "row", "said"),
    [
        (
            "rollouts/step-000005.jsonl",
            {**rollout("so 2"), "logprobs": [0.5, "x"]},
            "1 rows without a valid 'logprobs'",
        ),
        ("rollouts/step-000005.jsonl", rollout("so 2", problem={"id": 1}), "1 rows without a valid 'problem.id'"),
        ("rollouts/step-000005.jsonl", rollout("so 2", problem=problem("x", level=3)), "a valid 'problem.level'"),
        ("states.jsonl", {"step": 5, "event": "visited", "key": "k", "row": None}, "1 lines that are no event"),
        ("states.jsonl", {"step": 5, "event": "lost", "key": "k"}, "1 lines that are no event of this version"),
        (
            "evaluations.jsonl",
            {"step": 5, "tokens_generated": 5, "greedy": {"accuracy": None}},
            "a: no evaluation of this",
        ),
        (
            "evaluations.jsonl",
            {**evaluation(0, 0.5, 1.0), "tokens_generated": None},
            "a: no evaluation of this version",
        ),
    ],
)
def test_rows_of_another_form_are_left_out_and_named(tmp_path, file, row, said):
    folder = run(tmp_path / "a")
    lines(folder / file, [row])
    index, _ = page_of(folder, run(tmp_path / "b"))
    assert said in "\n".join(index["faults"]) and index["tables"][0]["rows"][-1][0] == "b"


# --- the file ---------------------------------------------------------------------------------------------------------


def test_the_page_is_one_file_in_which_nothing_but_its_own_script_may_run(tmp_path):
    folder = run(tmp_path / "a", algo="</script><script>alert(1)</script>")
    lines(folder / "rollouts" / "step-000005.jsonl", [rollout("<script>alert(2)</script>")])
    write_page({"<b>arm</b>": [folder]}, tmp_path / "page.html", MUCH, 500)
    text = (tmp_path / "page.html").read_text()
    assert text.count("<script>") == 1 and "<b>" not in text and "alert" not in re.sub(r"\\u003c.*", "", text)
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', text)
    digest = base64.b64encode(sha256(script.encode()).digest()).decode()
    assert policy.startswith(f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'sha256-")
    assert not re.findall(r"""(?:src|href)\s*=\s*["']?https?:|@import|url\(http""", text)
    assert re.findall(r" on[a-z]+=", text.partition("<script")[0]) == []


def test_the_json_beside_the_page_has_the_same_content(tmp_path):
    folder = run(tmp_path / "a")
    lines(folder / "rollouts" / "step-000005.jsonl", [rollout("so \ud83d 2")])
    write_page({"a": [folder]}, tmp_path / "new" / "page.html", MUCH, 500)
    text, twin = (tmp_path / "new" / "page.html").read_text(), json.loads((tmp_path / "new" / "page.json").read_text())
    packed = dict(re.findall(r'data-block="([^"]*)">([^<]*)<', text))
    blocks = {name: json.loads(gzip.decompress(base64.b64decode(content))) for name, content in packed.items()}
    assert twin["blocks"] == blocks and twin["made_by"] == "rrl-report"
    assert blocks["rollouts/0/training/5"][0]["response"] == "so \ud83d 2"


def test_an_earlier_page_is_replaced_and_any_other_file_is_left_alone(tmp_path):
    arms, page = {"a": [run(tmp_path / "a")]}, tmp_path / "page.html"
    write_page(arms, page, MUCH, 500)
    write_page(arms, page, MUCH, 500)
    page.write_text("mine")
    with pytest.raises(ConfigError, match=r"page.html' exists and was not made by rrl-report; expected a new file"):
        write_page(arms, page, MUCH, 500)
    assert page.read_text() == "mine"


def test_a_page_that_keeps_no_rollouts_says_how_many_there_were(tmp_path):
    folder = run(tmp_path / "a")
    lines(folder / "rollouts" / "step-000005.jsonl", [rollout("so 2")])
    index, blocks = page_of(folder, megabytes=0)
    assert (index["runs"][0]["kept"], index["of_rollouts"], blocks["rows"]) == (0, 1, {})
