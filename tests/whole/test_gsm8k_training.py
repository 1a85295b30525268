"""GSM8K from files to results with a model from a local folder: PPO and replay, plain and chat, every kind of rule."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rrl.cli import train
from rrl.training.models import TinyLlama

TURNS = (
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
ROWS = [
    {
        "question": f"Ann has {n} pears and buys {n + 1}. Then she eats one. How many are left?",
        "answer": f"She has {n}+{n + 1}=<<{n}+{n + 1}={2 * n + 1}>>{2 * n + 1}.\nThen {2 * n} are left.\n#### {2 * n}",
    }
    for n in range(2, 14)
]
BASE = {
    "task": "gsm8k", "model": "hf", "run.threads": 1, "run.test_freq": "null", "run.rollout_freq": 1, "seed": 1,
    "data.max_prompt_length": 120, "data.max_response_length": 16, "data.cut_points": "token",
    "trainer.train_batch_size": 8, "trainer.ppo_mini_batch_size": 4, "trainer.ppo_epochs": 1,
    "trainer.total_training_steps": 2,
    "evaluation.limit": 2, "evaluation.n": 0, "objective.entropy_coef": 0.1, "policy.actor_lr": 1e-3,
    "reward.truncation_penalty": 0.5,
}  # fmt: skip
REPLAY = {"algo": "rrl", "sampler.sources": "both", "sampler.schedule.share": 0.5}
CONFIDENT = {**REPLAY, "selection": "confidence", "selection.below": 0.004, "critic": "own"}
ONCE = {**REPLAY, "sampler": "retrospective"}
BY_CRITIC = {**ONCE, "selection": "critic_rise", "selection.delta": -1, "critic": "shared"}
"""The model is random: its tokens have probabilities around 1/260, and the values are still about zero."""

ARMS = {
    "ppo-plain": {"algo": "ppo", "template": "plain"},
    "ppo-chat": {"algo": "ppo", "template": "chat"},
    "confidence-plain": {**CONFIDENT, "template": "plain"},
    "confidence-chat": {**CONFIDENT, "template": "chat"},
    "critic-plain": {**BY_CRITIC, "template": "plain"},
    "critic-chat": {**BY_CRITIC, "template": "chat"},
}
EVERY = [
    pytest.param(arm, marks=[] if arm in ("ppo-plain", "confidence-chat", "critic-chat") else pytest.mark.slow)
    for arm in ARMS
]
"""The arms as parameters; by default each kind of arm and each template runs once."""
REPLAYS = [arm for arm in EVERY if not str(arm.values[0]).startswith("ppo")]
PPO = [arm for arm in EVERY if arm not in REPLAYS]


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama of 260 byte tokens, with a chat template."""
    folder = tmp_path_factory.mktemp("gsm8k") / "model"
    loaded = TinyLlama(
        hidden_size=32, num_hidden_layers=1, max_prompt_length=256, max_response_length=256, start_seed=0,
    ).load(None)  # fmt: skip
    loaded.tokenizer.chat_template = TURNS
    loaded.model.save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in the data set's own layout: twelve problems to learn from, the last four held out too."""
    folder = tmp_path_factory.mktemp("rows")
    for split, chosen in (("train", ROWS), ("test", ROWS[-4:])):
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in chosen))
    return folder


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory, model: Path, data: Path) -> Callable[[dict[str, Any]], Path]:
    """Trains and returns the run's directory."""

    def train_it(changes: dict[str, Any]) -> Path:
        folder = tmp_path_factory.mktemp("runs")
        places = {"model.path": model, "data.path": data, "run.dir": folder / "run"}
        train._train([f"{key}={value}" for key, value in {**BASE, **places, **changes}.items()])
        return folder / "run"

    return train_it


@pytest.fixture(scope="module")
def runs(start: Callable[[dict[str, Any]], Path]) -> Callable[[str], Path]:
    """The finished run of an arm, trained at its first use."""
    done: dict[str, Path] = {}

    def run(arm: str) -> Path:
        if arm not in done:
            done[arm] = start(ARMS[arm])
        return done[arm]

    return run


def metrics(run: Path) -> list[dict[str, Any]]:
    return rows(run / "metrics.jsonl")


def dumps(run: Path) -> list[list[dict[str, Any]]]:
    return [rows(path) for path in sorted((run / "rollouts").iterdir())]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(AutoModelForCausalLM.from_pretrained(folder).state_dict())


# --- every arm --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arm", EVERY)
def test_two_steps_run_from_files_to_a_result(arm: str, runs: Callable[[str], Path]) -> None:
    result = json.loads((runs(arm) / "result.json").read_text())
    assert (result["steps"], result["after"]["step"]) == (2, 2)
    assert list(result["after"]["greedy"]["levels"]) == ["steps1-2"]
    assert sum(result["after"]["greedy"]["verdicts"].values()) == 2
    assert result["tokens_generated"] == sum(row["tokens"] for dump in dumps(runs(arm)) for row in dump)


@pytest.mark.parametrize("arm", EVERY)
def test_the_actor_moves_and_the_model_it_came_from_does_not(
    arm: str, runs: Callable[[str], Path], model: Path
) -> None:
    before = hashlib.sha256((model / "model.safetensors").read_bytes()).hexdigest()
    old, new = weights(model), weights(runs(arm) / "actor")
    assert hashlib.sha256((model / "model.safetensors").read_bytes()).hexdigest() == before
    assert old.keys() == new.keys()
    assert all(not torch.equal(old[name], new[name]) for name in old)
    assert all(bool(tensor.isfinite().all()) for tensor in new.values())


@pytest.mark.parametrize("arm", EVERY)
def test_the_template_is_reported_with_every_result(arm: str, runs: Callable[[str], Path]) -> None:
    plain, chat = "<bos>Question: {question}\nAnswer:\n", "[user]{question}[assistant]"
    expected = chat if arm.endswith("chat") else plain
    assert {row["template"] for row in rows(runs(arm) / "evaluations.jsonl")} == {expected}
    around = len(expected.replace("{question}", "").replace("<bos>", "B"))  # bytes, and so tokens
    longest = max(len(row["problem"]["question"]) for row in dumps(runs(arm))[0])
    assert metrics(runs(arm))[1]["prompt_length/max"] == around + longest


@pytest.mark.parametrize("arm", EVERY)
def test_the_reference_stays_while_the_policy_moves(arm: str, runs: Callable[[str], Path]) -> None:
    _, first, second = metrics(runs(arm))
    assert first["actor/ref_kl"] == 0
    assert second["actor/ref_kl"] != 0
    assert first["training/rollout_probs_diff_mean"] < 1e-6


def test_the_saved_actor_keeps_its_tokenizer(runs: Callable[[str], Path], model: Path) -> None:
    saved, given = (AutoTokenizer.from_pretrained(folder) for folder in (runs("critic-chat") / "actor", model))
    assert saved.chat_template == TURNS
    assert saved("é <eos>").input_ids == given("é <eos>").input_ids


# --- the buffer -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arm", PPO)
def test_ppo_starts_from_prompts_alone_and_remembers_nothing(arm: str, runs: Callable[[str], Path]) -> None:
    assert [row["replay/ratio"] for row in metrics(runs(arm))[1:]] == [0, 0]
    assert "replay/buffer_size" not in metrics(runs(arm))[-1]
    assert all(not row["prefix_tokens"] for dump in dumps(runs(arm)) for row in dump)


@pytest.mark.parametrize("arm", REPLAYS)
def test_replay_fills_its_memory_and_then_starts_half_of_the_rollouts_from_it(
    arm: str, runs: Callable[[str], Path]
) -> None:
    _, first, second = metrics(runs(arm))
    assert (first["replay/ratio"], second["replay/ratio"]) == (0, 0.5)
    assert 0 < first["replay/unique_problems"] <= 8
    assert first["replay/buffer_size"] <= second["replay/buffer_size"]
    assert second["replay/prefix_length/mean"] >= 1


@pytest.mark.parametrize("arm", REPLAYS)
def test_a_replayed_response_goes_on_from_its_prefix_and_pays_for_the_new_tokens_alone(
    arm: str, runs: Callable[[str], Path]
) -> None:
    first, second = dumps(runs(arm))
    replayed = [row for row in second if row["replayed_from"]]
    assert len(replayed) == 4
    assert {row["problem"]["id"] for row in replayed} <= {row["problem"]["id"] for row in first}
    assert all(1 <= row["tokens"] == len(row["logprobs"]) for row in replayed)
    assert all(row["response"].startswith(_whole(row["prefix"])) for row in replayed)


def _whole(text: str) -> str:
    """The text without a last letter of which only some bytes are there."""
    return text.rstrip("\ufffd")


@pytest.mark.parametrize("sources", ["self", "canonical"])
def test_states_come_from_where_they_are_asked_to(
    sources: str, start: Callable[[dict[str, Any]], Path], model: Path
) -> None:
    run = start({**ARMS["critic-plain"], "sampler.sources": sources, "data.cut_points": "token"})
    first, second = dumps(run)
    tokenizer = AutoTokenizer.from_pretrained(model)
    own = {row["problem"]["id"]: row["response"] for row in first}
    for row in (r for r in second if r["replayed_from"]):
        problem = row["problem"]
        text = own[problem["id"]] if sources == "self" else problem["reference"]
        if sources == "canonical":
            expected = tokenizer(text, add_special_tokens=False).input_ids
            assert row["prefix_tokens"] == expected[: len(row["prefix_tokens"])]
        assert text.startswith(_whole(row["prefix"]))


def test_references_are_without_calculator_annotations(runs: Callable[[str], Path]) -> None:
    references = {row["problem"]["reference"] for dump in dumps(runs("ppo-plain")) for row in dump}
    assert all("<<" not in reference and "####" in reference for reference in references)


# --- a rule that asks the policy ------------------------------------------------------------------------------------

ASKING = {
    **ONCE, "template": "chat", "critic": "own", "sampler.sources": "self", "data.cut_points": "sentence",
    "data.max_response_length": 64, "selection": "self_localized", "selection.reply_tokens": 5,
    "selection.question": "'{question} {steps} Which is wrong?'",
}  # fmt: skip


def test_a_policy_whose_replies_cannot_be_read_trains_on_without_states_and_its_replies_are_counted(
    start: Callable[[dict[str, Any]], Path],
) -> None:
    run = start(ASKING)
    _, first, second = metrics(run)
    asked = first["replay/examined"] + second["replay/examined"]
    assert asked > 3 and first["replay/localized_frac"] == second["replay/localized_frac"] == 0
    assert (second["replay/buffer_size"], second["replay/ratio"]) == (0, 0)
    replies = first["replay/examine_tokens"] + second["replay/examine_tokens"]
    assert asked <= replies <= 5 * asked
    assert second["budget/tokens_generated"] == sum(row["tokens"] for dump in dumps(run) for row in dump) + replies


# --- what must not move -----------------------------------------------------------------------------------------------


def test_while_the_critic_warms_up_the_actor_stays_as_it_is(
    start: Callable[[dict[str, Any]], Path], model: Path
) -> None:
    run = start({**ARMS["confidence-plain"], "trainer.critic_warmup": 2})
    torch.testing.assert_close(weights(run / "actor"), weights(model), rtol=0, atol=0)
    assert metrics(run)[-1]["critic/grad_norm"] > 0
    assert metrics(run)[-1]["replay/ratio"] == 0.5


def test_the_same_seed_gives_the_same_run_and_another_one_another(
    start: Callable[[dict[str, Any]], Path], runs: Callable[[str], Path]
) -> None:
    def facts(run: Path) -> list[dict[str, Any]]:
        aside = ("timing_s/", "perf/")
        return [{name: v for name, v in row.items() if not name.startswith(aside)} for row in metrics(run)]

    again, other = start(ARMS["critic-chat"]), start({**ARMS["critic-chat"], "seed": 2})
    assert facts(again) == facts(runs("critic-chat"))
    assert dumps(again) == dumps(runs("critic-chat"))
    assert facts(other)[1:] != facts(again)[1:]


# --- the official files -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_official_files_are_read_whole_and_overlong_prompts_dropped_and_counted(
    start: Callable[[dict[str, Any]], Path], caplog: pytest.LogCaptureFixture
) -> None:
    folder = Path(os.environ.get("RRL_DATA", Path(__file__).parents[3] / "shared" / "data")) / "gsm8k"
    if not (folder / "train.jsonl").is_file() or not (folder / "test.jsonl").is_file():
        pytest.skip(f"no train.jsonl and test.jsonl in {folder}: set RRL_DATA to the folder that holds gsm8k/")
    run = start({**ARMS["critic-plain"], "data.path": folder, "data.max_prompt_length": 300})
    kept = {name: part["problems"] for name, part in json.loads((run / "manifest.json").read_text())["data"].items()}
    total = {split: len(rows(folder / f"{split}.jsonl")) for split in ("train", "test")}
    assert total == {"train": 7473, "test": 1319}
    reported = [text for text in caplog.messages if text.startswith("data.max_prompt_length: ")]
    assert [text.split(" prompts are")[0].split(": ")[1] for text in reported] == [
        f"{7473 - kept['train']} of 7473",
        f"{1319 - _short(folder / 'test.jsonl')} of 1319",
    ]
    assert kept == {"train": _short(folder / "train.jsonl"), "test": 6}  # two of each level


def _short(path: Path) -> int:
    """How many questions fit in 300 tokens, which are bytes, with the text around them and BOS."""
    around = len("Question: \nAnswer:\n") + 1
    return sum(len(row["question"].encode()) + around <= 300 for row in rows(path))
