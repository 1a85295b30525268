"""What a run leaves behind: metrics, rollouts, manifest, what Weights & Biases receives, pictures."""

import json
import struct
from collections import Counter
from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from fixtures.runs import TIMES
from fixtures.tracking import Received
from rrl.cli import train
from rrl.errors import ConfigError
from rrl.records.plots import learning_curves
from rrl.records.run_directory import Place, cache_folder
from rrl.study.comparison import Measure

STEPS = 4
RUN = {
    "run.threads": 1, "run.test_freq": 2, "run.save_freq": 3, "run.rollout_freq": 1, "algo": "rrl", "logger": "wandb",
    "task.train_per_level": 40, "data.level_weights": "{L3: 1, L10: 1}", "seed": 3,
    "model.hidden_size": 32, "model.num_hidden_layers": 1,
    "warmstart.steps": 2, "warmstart.batch_size": 8,
    "trainer.train_batch_size": 12, "trainer.ppo_mini_batch_size": 6, "trainer.ppo_epochs": 2,
    "trainer.critic_warmup": 1, "trainer.total_tokens": "null", "trainer.total_training_steps": STEPS,
    "critic": "own", "selection": "random_cut", "sampler.schedule.share": 0.5,
    "evaluation.n": 2, "objective.entropy_coef": 0.1,
}  # fmt: skip


def rows(path: Path) -> list[dict[str, Any]]:
    """The lines of a file, as strict JSON: no NaN, no infinity."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} in {path.name}")

    return [json.loads(line, parse_constant=refuse) for line in path.read_text(encoding="utf-8").split("\n") if line]


@pytest.fixture(scope="module")
def received() -> list[dict[str, Any]]:
    """What the run sends to the process of Weights & Biases, which is not started; test_wandb.py has what it keeps."""
    return []


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, received: list[dict[str, Any]]) -> Path:
    """The directory of a short run with replay."""
    folder = tmp_path_factory.mktemp("records")
    given = {**RUN, "run.dir": folder / "run"}
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("WANDB_API_KEY", raising=False)
        patch.setattr("rrl.records.tracking.Sidecar", Received(received))
        train._train([f"{key}={value}" for key, value in given.items()])
    return folder / "run"


@pytest.fixture(scope="module")
def metrics(run: Path) -> list[dict[str, Any]]:
    return rows(run / "metrics.jsonl")


@pytest.fixture(scope="module")
def dumps(run: Path) -> list[list[dict[str, Any]]]:
    """The rollouts of every step."""
    return [rows(path) for path in sorted((run / "rollouts").iterdir())]


# --- metrics ----------------------------------------------------------------------------------------------------------


NAMES = {
    "actor": "pg_loss ppo_kl pg_clipfrac entropy grad_norm lr ref_kl",
    "critic": "vf_loss vf_clipfrac vf_explained_var grad_norm lr",
    "critic/score": "mean max min fresh/mean replayed/mean",
    **{f"critic/{what}": "mean max min" for what in ("rewards", "advantages", "returns", "values")},
    "response_length": "mean max min clip_ratio",
    "prompt_length": "mean max min",
    "verdict": "right wrong unparseable error",
    "timing_s": "gen reward old_log_prob adv observe update_actor step",
    "perf": "throughput total_num_tokens time_per_step",
    "perf/max_memory": "gen reward old_log_prob adv observe update_actor testing save_checkpoint",
    "training": "global_step rollout_probs_diff_mean",
    "replay": "buffer_size unique_problems ratio age_steps/mean score_at_insert/mean score_now/mean success_rate "
    "gain_vs_fresh first_solves evictions prefix_length/mean",
    "explore": "unsolved_frac solved_once_frac zero_signal_frac",
    "budget": "tokens_generated tokens_trained",
}


@pytest.mark.parametrize("group", NAMES)
def test_the_names_that_an_experienced_user_expects_are_there(group: str, metrics: list[dict[str, Any]]) -> None:
    assert {f"{group}/{name}" for name in NAMES[group].split()} <= metrics[-1].keys()


def test_there_is_one_row_for_each_step_without_hole_or_double(metrics: list[dict[str, Any]]) -> None:
    assert [row["step"] for row in metrics] == [0, 1, 2, 3, 4]
    assert [row["training/global_step"] for row in metrics[1:]] == [1, 2, 3, 4]


def test_evaluations_come_before_training_at_their_frequency_and_at_the_end(
    run: Path, metrics: list[dict[str, Any]]
) -> None:
    names = {f"val-core/trace/acc/{mode}" for mode in ("greedy", "mean@2")}
    assert [row["step"] for row in metrics if names <= row.keys()] == [0, 2, 4]
    assert [row["step"] for row in rows(run / "evaluations.jsonl")] == [0, 2, 4]
    assert {f"val/trace/{level}/acc/mean@2" for level in ("L3", "L6", "L10")} <= metrics[-1].keys()


def test_seconds_are_reported_by_phase_and_evaluation_and_saving_are_no_part_of_a_step(
    metrics: list[dict[str, Any]],
) -> None:
    for row in metrics[1:]:
        seconds = {name: value for name, value in row.items() if name.startswith("timing_s/")}
        step = seconds.pop("timing_s/step")
        testing, saving = (seconds.pop(f"timing_s/{name}", None) for name in ("testing", "save_checkpoint"))
        assert (testing is not None) == (row["step"] % 2 == 0 or row["step"] == 1)
        assert (saving is not None) == (row["step"] == 4), "a checkpoint holds its step's row, so the next one tells"
        assert step == pytest.approx(sum(seconds.values()))
        assert row["perf/time_per_step"] == step
        assert row["perf/throughput"] == pytest.approx(row["perf/total_num_tokens"] / step)


def test_every_phase_that_was_timed_has_its_peak_of_memory(metrics: list[dict[str, Any]]) -> None:
    for row in metrics[1:]:
        phases = {name.removeprefix("timing_s/") for name in row if name.startswith("timing_s/")} - {"step"}
        peaks = {
            name.removeprefix("perf/max_memory/"): row[name] for name in row if name.startswith("perf/max_memory/")
        }
        assert peaks.keys() == phases
        assert all(0.05 < size < 50 for size in peaks.values()), "GiB of a process that has loaded torch"


def test_shares_are_shares(metrics: list[dict[str, Any]]) -> None:
    ends = ("_frac", "clipfrac", "clip_ratio", "replay/ratio", "success_rate")
    for row in metrics[1:]:
        shares = [v for name, v in row.items() if name.endswith(ends) or name.startswith(("verdict/", "data/level_s"))]
        assert all(0 <= share <= 1 for share in shares)
        for group in ("verdict/", "data/level_share/"):
            assert sum(v for name, v in row.items() if name.startswith(group)) == pytest.approx(1)


def test_numbers_have_sane_sizes(metrics: list[dict[str, Any]]) -> None:
    for row in metrics[1:]:
        assert row["critic/vf_explained_var"] <= 1
        assert 0 < row["actor/entropy"] < 5
        assert row["training/rollout_probs_diff_mean"] < 1e-4
        assert 1 <= row["response_length/min"] <= row["response_length/mean"] <= row["response_length/max"] <= 16
        assert row["prompt_length/mean"] == 13
        assert row["critic/advantages/mean"] == pytest.approx(0, abs=1e-5)


def test_the_actor_rests_while_the_critic_warms_up(metrics: list[dict[str, Any]]) -> None:
    assert "actor/grad_norm" not in metrics[1]
    assert all(row["actor/grad_norm"] > 0 for row in metrics[2:])
    assert metrics[1]["actor/ref_kl"] == metrics[2]["actor/ref_kl"] == 0
    assert metrics[3]["actor/ref_kl"] != 0


def test_fresh_and_replayed_starts_are_kept_apart(
    metrics: list[dict[str, Any]], dumps: list[list[dict[str, Any]]]
) -> None:
    assert "critic/score/replayed/mean" not in metrics[1]
    for row, dump in zip(metrics[1:], dumps, strict=True):
        fresh = [r["score"] for r in dump if r["replayed_from"] is None]
        replayed = [r["score"] for r in dump if r["replayed_from"] is not None]
        assert row["critic/score/fresh/mean"] == pytest.approx(fmean(fresh))
        assert row["replay/ratio"] == len(replayed) / len(dump) == (0 if row["step"] == 1 else 0.5)
        if replayed:
            assert row["critic/score/replayed/mean"] == pytest.approx(fmean(replayed))
            assert row["replay/gain_vs_fresh"] == pytest.approx(fmean(replayed) - fmean(fresh))


def test_the_mixture_of_levels_is_reported_as_it_came_out(
    metrics: list[dict[str, Any]], dumps: list[list[dict[str, Any]]]
) -> None:
    for row, dump in zip(metrics[1:], dumps, strict=True):
        counts = Counter(r["problem"]["level"] for r in dump)
        assert {level: row[f"data/level_share/{level}"] for level in counts} == pytest.approx(
            {level: count / len(dump) for level, count in counts.items()}
        )


# --- the budget and the rollouts --------------------------------------------------------------------------------------


def test_the_budget_is_the_sum_of_the_new_tokens_of_every_rollout(
    run: Path, metrics: list[dict[str, Any]], dumps: list[list[dict[str, Any]]]
) -> None:
    spent = 0
    for row, dump in zip(metrics[1:], dumps, strict=True):
        new = sum(r["tokens"] for r in dump)
        spent += new
        assert (row["perf/total_num_tokens"], row["budget/tokens_generated"]) == (new, spent)
        assert row["budget/tokens_trained"] == 2 * spent  # epochs
    assert json.loads((run / "result.json").read_text())["tokens_generated"] == spent
    assert rows(run / "evaluations.jsonl")[-1]["tokens_generated"] == spent


def test_a_dump_has_every_rollout_of_its_step_and_where_it_began(dumps: list[list[dict[str, Any]]]) -> None:
    assert [len(dump) for dump in dumps] == [12] * STEPS
    for number, dump in enumerate(dumps, start=1):
        for row in dump:
            assert row["step"] == number
            assert len(row["logprobs"]) == row["tokens"] >= 1
            assert (row["replayed_from"] is not None) == bool(row["prefix_tokens"])
            assert row["response"].startswith(row["prefix"])
            assert len(row["prefix_tokens"]) + row["tokens"] <= 16
            assert max(row["logprobs"]) <= 0


def test_a_replayed_start_names_a_rollout_of_an_earlier_step(dumps: list[list[dict[str, Any]]]) -> None:
    seen: dict[str, set[str]] = {}
    for dump in dumps:
        for row in (r for r in dump if r["replayed_from"]):
            problem = row["problem"]["id"]
            assert row["replayed_from"].startswith(f"{problem}@")
            assert any(response.startswith(row["prefix"]) for response in seen[problem])
        for row in dump:
            seen.setdefault(row["problem"]["id"], set()).add(row["response"])


# --- full records -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def full(run: Path) -> Path:
    """The same run with full records."""
    folder = run.with_name("full")
    given = {**RUN, "run.dir": folder, "records": "full", "logger": "none"}
    train._train([f"{key}={value}" for key, value in given.items()])
    return folder


def test_with_full_records_training_is_the_same_bit_for_bit(full: Path, run: Path) -> None:
    numbers, others = (
        [{name: value for name, value in row.items() if not name.startswith(TIMES)} for row in rows(file)]
        for file in (full / "metrics.jsonl", run / "metrics.jsonl")
    )
    assert numbers == others
    actor = Path("actor", "model.safetensors")
    assert (full / actor).read_bytes() == (run / actor).read_bytes()
    assert not (run / "states.jsonl").exists()


def test_every_new_token_has_all_numbers_and_the_engine_drew_with_the_policy(full: Path) -> None:
    for path in sorted((full / "rollouts").iterdir()):
        for row in rows(path):
            numbers = row["numbers"]
            assert {len(each) for each in numbers.values()} == {row["tokens"]}
            assert numbers["old_logprobs"] == pytest.approx(row["logprobs"], abs=2e-4)
            assert "".join(row["prefix_texts"] + numbers["texts"]).startswith(row["response"])
            assert len(row["prefix_texts"]) == len(row["prefix_tokens"])
            assert all(0 < each < 4.34 for each in numbers["entropies"]), "the log of 76 words"


def test_states_live_from_their_rollout_to_their_end(full: Path) -> None:
    events = rows(full / "states.jsonl")
    dumps = [rows(path) for path in sorted((full / "rollouts").iterdir())]
    failures: dict[str, list[int]] = {}
    visited: list[tuple[int, int]] = []
    lengths = set[int]()
    for event in events:
        rollouts = dumps[event["step"] - 1]
        if event["event"] == "stored":
            source = rollouts[event["rollout"]]
            assert source["problem"]["id"] == event["problem"] and source["verdict"] != "right"
            assert event["cut"] is None  # failures are kept whole
            failures[event["key"]] = source["prefix_texts"] + source["numbers"]["texts"]
        elif event["event"] == "visited":
            row = rollouts[event["row"]]
            assert (row["replayed_from"], row["verdict"]) == (event["key"], event["verdict"])
            assert row["prefix_texts"] == failures[event["key"]][: len(row["prefix_texts"])]
            visited.append((event["step"], event["row"]))
            lengths.add(len(row["prefix_texts"]))
        else:
            del failures[event["key"]]
    replayed = [(row["step"], i) for dump in dumps for i, row in enumerate(dump) if row["replayed_from"]]
    assert visited == replayed and len(visited) == 18
    assert max(lengths) > 0  # else any failure would do
    assert len(failures) == rows(full / "metrics.jsonl")[-1]["replay/buffer_size"]


# --- the manifest -----------------------------------------------------------------------------------------------------


def test_the_manifest_says_what_the_result_depends_on(run: Path) -> None:
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["seed"] == 3
    assert manifest["packages"]["torch"] == version("torch")
    assert {"rrl", "transformers", "deepspeed", "wandb"} <= manifest["packages"].keys()
    assert (manifest["hardware"]["threads"], manifest["tokenizer"]["size"]) == (1, 76)
    assert {name: part["problems"] for name, part in manifest["data"].items()} == {"train": 80, "test": 12}
    assert manifest["data"]["train"]["sha256"] != manifest["data"]["test"]["sha256"]
    assert len(manifest["tokenizer"]["sha256"]) == 64
    assert Path(manifest["warmstart"]).parent == cache_folder()
    assert {"command", "started", "python", "git_commit"} <= manifest.keys()


# --- Weights & Biases -------------------------------------------------------------------------------------------------


def test_without_a_key_every_metric_is_sent_offline_under_its_step(
    run: Path, received: list[dict[str, Any]], metrics: list[dict[str, Any]]
) -> None:
    sent = [{"step": message["step"], **message["metrics"]} for message in received if message.get("call") == "log"]
    assert sent == metrics
    assert received[0]["mode"] == "offline"
    assert [message["complete"] for message in received if message.get("call") == "finish"] == [True]


def test_the_offline_run_has_the_name_and_configuration_of_the_run(run: Path, received: list[dict[str, Any]]) -> None:
    about, config = received[0], received[0]["config"]
    assert (about["name"], about["project"]) == (run.name, "rrl")
    assert (config["seed"], config["trainer"]["n"], config["algo"]) == (3, 1, "rrl")


# --- pictures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seeds", [1, 2])
def test_learning_curves_are_a_picture(seeds: int, run: Path, tmp_path: Path) -> None:
    picture = tmp_path / "curves.png"
    curve = Measure("accuracy", "mean@2", "L3").points(run)
    arms = {"one": [curve] * seeds, "other": [curve] * seeds}
    learning_curves({"L3": arms, "L10": arms}, "accuracy", "title", picture)
    content = picture.read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", content[16:24])
    assert width > height > 300


@pytest.mark.parametrize(
    ("left", "free"),
    [((".lock", ".config.yaml.5f.tmp"), True), ((), True), ((".lock", "notes"), False), ((".git",), False)],
)
def test_what_a_run_leaves_that_is_killed_at_its_first_moment_is_no_run(
    left: tuple[str, ...], free: bool, tmp_path: Path
) -> None:
    for name in left:
        (tmp_path / name).write_text("")
    place = Place(seed=0, dir=str(tmp_path), threads=None)
    with nullcontext() if free else pytest.raises(ConfigError, match="exists and is not an empty folder"):
        assert place.choose("trace") == tmp_path
