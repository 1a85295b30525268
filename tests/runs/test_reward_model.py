"""Training reward models: the loss, what they learn, how they are measured, and the command."""

import json
import math
import sys
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, GPT2Config, GPT2LMHeadModel

from fixtures.reward_models import (
    embeddings_trainer,
    planted_pairs,
    reading,
    saved_encoder,
    sequence_trainer,
    silent,
    tiny,
)
from rrl.cli.reward_model import main
from rrl.contracts.judging import RewardModel
from rrl.errors import DataError, DivergenceError
from rrl.functional import bradley_terry_loss
from rrl.interfaces import Task
from rrl.parts.reward_models.fit_sequence import with_head
from rrl.records.display import Display
from rrl.runs.reward_model import measure_reward_model
from rrl.training.calibration import expected_calibration_error, log_loss, preference, reliability, share_chosen
from rrl.training.preference_pairs import PairChoice
from rrl.types import Pair

# --- kernels ----------------------------------------------------------------------------------------------------------


def test_the_loss_is_the_mean_log_loss_of_the_preferences() -> None:
    # -log sigmoid(2) = 0.126928, -log sigmoid(0) = 0.693147, -log sigmoid(-1) = 1.313262
    loss = bradley_terry_loss(torch.tensor([3.0, 1.0, 0.0]), torch.tensor([1.0, 1.0, 1.0]))
    assert loss.item() == pytest.approx((0.126928 + 0.693147 + 1.313262) / 3, abs=1e-6)


def test_the_gradient_raises_the_chosen_and_lowers_the_rejected() -> None:
    chosen, rejected = torch.tensor([0.0], requires_grad=True), torch.tensor([0.0], requires_grad=True)
    bradley_terry_loss(chosen, rejected).backward()
    assert chosen.grad is not None and rejected.grad is not None
    assert (chosen.grad.item(), rejected.grad.item()) == (-0.5, 0.5)


def test_the_loss_of_a_hopeless_pair_is_finite() -> None:
    assert bradley_terry_loss(torch.tensor([-1e4]), torch.tensor([1e4])).item() == 2e4


@pytest.mark.parametrize(
    ("difference", "expected"), [(0.0, 0.5), (math.log(3), 0.75), (-math.log(3), 0.25), (1e4, 1.0), (-1e4, 0.0)]
)
def test_a_preference_is_the_sigmoid_of_the_difference(difference: float, expected: float) -> None:
    assert preference(difference) == pytest.approx(expected)


def test_log_loss_of_known_differences() -> None:
    assert log_loss([0.0]) == pytest.approx(math.log(2))
    assert log_loss([math.log(3), -math.log(3)]) == pytest.approx((math.log(4 / 3) + math.log(4)) / 2)
    assert log_loss([-1000.0]) == 1000.0


# Probabilities of the favourite: 0.7 four times (of which people chose three) and 0.9 twice (chosen once).
KNOWN = [math.log(7 / 3)] * 3 + [-math.log(7 / 3)] + [math.log(9), -math.log(9)]


def test_reliability_puts_the_favourite_first_and_compares_what_was_chosen() -> None:
    first, second = reliability(KNOWN, bins=2)
    assert [(row["from"], row["to"]) for row in (first, second)] == [(0.5, 0.75), (0.75, 1.0)]
    assert [row["pairs"] for row in (first, second)] == [4, 2]
    assert [row["predicted"] for row in (first, second)] == pytest.approx([0.7, 0.9])
    assert [row["chosen"] for row in (first, second)] == [0.75, 0.5]


def test_calibration_error_weighs_bins_by_their_pairs() -> None:
    # 4/6 |0.7 - 0.75| + 2/6 |0.9 - 0.5| = 1/30 + 2/15
    assert expected_calibration_error(reliability(KNOWN, bins=2)) == pytest.approx(1 / 6)


def test_swapping_every_pair_mirrors_the_choices() -> None:
    swapped = reliability([-difference for difference in KNOWN], bins=2)
    assert [row["chosen"] for row in swapped] == [0.25, 0.5]


def test_a_tie_is_half_a_choice() -> None:
    assert [share_chosen(x) for x in (0.0, 2.0, -2.0)] == [0.5, 1.0, 0.0]
    assert reliability([0.0], bins=10) == [{"from": 0.5, "to": 0.55, "pairs": 1, "predicted": 0.5, "chosen": 0.5}]


def test_certainty_falls_into_the_last_bin() -> None:
    (row,) = reliability([1e4], bins=10)
    assert (row["from"], row["to"], row["predicted"]) == (0.95, 1.0, 1.0)


# --- learning ---------------------------------------------------------------------------------------------------------

TRAIN, TEST = planted_pairs(128, seed=0), planted_pairs(100, seed=1)


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> RewardModel:
    """A sequence model of the planted preference, in the folder that its ``described`` names."""
    folder = tmp_path_factory.mktemp("taught")
    trainer = sequence_trainer(lr=4e-3, micro_batch_size=16)
    return trainer.train(*tiny(num_hidden_layers=1), TRAIN, folder, 0, silent)


def test_a_sequence_model_learns_a_planted_preference(taught: RewardModel) -> None:
    report = measure_reward_model(taught, TEST, Display())
    assert report["accuracy"] > 0.9
    assert report["log_loss"] < 0.4
    assert {level: part["pairs"] for level, part in report["levels"].items()} == {"harmless": 50, "helpful": 50}
    assert set(report["strata"]["subset"]) == {"harmless-base", "helpful-base"}
    assert report["rewards"]["chosen"]["mean"] > report["rewards"]["rejected"]["mean"]


def test_the_saved_model_says_the_same_through_transformers_alone(taught: RewardModel) -> None:
    folder = Path(taught.described()["path"])
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    for pair in TEST[:3]:
        with torch.no_grad():
            logits = model(**tokenizer(f"{pair.prompt} {pair.chosen}", return_tensors="pt")).logits
        assert logits.shape == (1, 1)
        assert taught.score([(pair.prompt, pair.chosen)]) == pytest.approx([logits.item()], abs=1e-5)
    assert json.loads((folder / "reward_model.json").read_text())["reading"]["layout"] == "plain"


@pytest.mark.parametrize("features", ["joint", "apart"])
def test_a_head_on_frozen_embeddings_learns_a_planted_preference(features: str, tmp_path: Path) -> None:
    trainer = embeddings_trainer(saved_encoder(tmp_path / "encoder"), features)
    reward_model = trainer.train(None, None, TRAIN, tmp_path / "head", 0, silent)
    assert measure_reward_model(reward_model, TEST, Display())["accuracy"] > 0.9


def test_a_new_head_begins_at_zero_on_the_language_models_own_trunk() -> None:
    loaded = tiny()
    scoring = with_head(loaded.model, loaded.tokenizer)
    assert not scoring.score.weight.any()
    ours, theirs = scoring.model.state_dict(), loaded.model.model.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_the_same_seed_gives_the_same_model_and_leaves_the_global_generator_alone(tmp_path: Path) -> None:
    before = torch.get_rng_state()
    scores = [
        sequence_trainer(epochs=1).train(*tiny(), TRAIN[:32], tmp_path / str(i), seed, silent).score([("a", "b")])
        for i, seed in enumerate((3, 3, 4))
    ]
    assert scores[0] == scores[1] != scores[2]
    assert torch.equal(torch.get_rng_state(), before)


def test_dropout_draws_by_the_seed_and_not_from_the_global_generator(tmp_path: Path) -> None:
    tokenizer, scores = tiny().tokenizer, list[float]()
    shape = GPT2Config(vocab_size=len(tokenizer), n_embd=16, n_layer=1, n_head=2, resid_pdrop=0.5, embd_pdrop=0.5)
    for number, seed in enumerate((3, 3, 4)):
        torch.manual_seed(0)
        model = GPT2LMHeadModel(shape)
        torch.manual_seed(number)
        reward_model = sequence_trainer(epochs=1).train(
            model, tokenizer, TRAIN[:32], tmp_path / str(number), seed, silent
        )
        scores += reward_model.score([("a", "b")])
    assert scores[0] == scores[1] != scores[2]


def test_micro_batches_change_no_gradient(tmp_path: Path) -> None:
    scores = [
        sequence_trainer(epochs=1, micro_batch_size=size).train(*tiny(), TRAIN[:32], tmp_path / str(size), 0, silent)
        .score([(pair.prompt, pair.chosen) for pair in TEST[:4]])
        for size in (3, 16)
    ]  # fmt: skip
    assert scores[0] == pytest.approx(scores[1], abs=1e-3)


def test_embeddings_keep_the_epoch_with_the_lowest_held_out_loss(tmp_path: Path) -> None:
    encoder, losses = saved_encoder(tmp_path / "encoder"), list[float]()
    noise = [replace(p, chosen=p.rejected, rejected=p.chosen) if i % 2 else p for i, p in enumerate(TRAIN[:60])]
    trainer = embeddings_trainer(encoder, lr=0.05, epochs=9, patience=9)
    reward_model = trainer.train(
        None, None, noise, tmp_path / "head", 0, lambda _, metrics: losses.extend(metrics.values())
    )
    assert losses.index(min(losses)) < len(losses) - 1
    held = [noise[i] for i in Random("reward model/0").sample(range(60), 60)[:6]]
    rewards = [reward_model.score([(pair.prompt, pair.chosen), (pair.prompt, pair.rejected)]) for pair in held]
    assert log_loss([chosen - rejected for chosen, rejected in rewards]) == pytest.approx(min(losses), abs=1e-4)


def test_training_on_embeddings_ends_when_patience_does(tmp_path: Path) -> None:
    encoder, losses = saved_encoder(tmp_path / "encoder"), list[float]()
    noise = [replace(p, chosen=p.rejected, rejected=p.chosen) if i % 2 else p for i, p in enumerate(TRAIN[:60])]
    trainer = embeddings_trainer(encoder, lr=0.05, epochs=50, patience=2)
    trainer.train(None, None, noise, tmp_path / "head", 0, lambda _, metrics: losses.extend(metrics.values()))
    assert len(losses) == losses.index(min(losses)) + 1 + 2 < 50


def test_a_loss_that_is_no_number_ends_the_training(tmp_path: Path) -> None:
    loaded = tiny()
    with torch.no_grad():
        loaded.model.model.norm.weight.fill_(math.nan)
    with pytest.raises(DivergenceError, match=r"fit\.lr: 0\.002, but the loss of step 1 is nan; expected a"):
        sequence_trainer().train(*loaded, TRAIN, tmp_path, 0, silent)


def test_warm_up_and_clipping_are_as_stated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rates = list[float]()
    step = torch.optim.AdamW.step

    def watched(self: torch.optim.AdamW, *given: Any) -> Any:
        rates.append(self.param_groups[0]["lr"])
        return step(self, *given)

    monkeypatch.setattr(torch.optim.AdamW, "step", watched)
    sequence_trainer(lr=1.0, warmup=0.5, epochs=2, batch_size=8).train(*tiny(), TRAIN[:32], tmp_path, 0, silent)
    assert rates == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0]


# --- pairs ------------------------------------------------------------------------------------------------------------


class Pairs(Task):
    """A task that is nothing but pairs."""

    def __init__(self, train: list[Pair], test: list[Pair]) -> None:
        self._splits = {"train": train, "test": test}

    def pairs(self, split: str) -> list[Pair]:
        return self._splits[split]


def choice(**changes: Any) -> PairChoice:
    limits = {"train": "train", "test": "test", "train_limit": None, "test_limit": None, "seed": 0}
    return PairChoice(**limits | changes)


def test_a_training_pair_whose_prompt_is_held_out_is_left_out() -> None:
    train, test, left_out = choice().choose(Pairs([TRAIN[0], TRAIN[1], TEST[0]], [TEST[0], TEST[1]]))
    assert (train, test, left_out) == (TRAIN[:2], TEST[:2], 1)


def test_limits_draw_by_seed_and_keep_the_order() -> None:
    task = Pairs(TRAIN, TEST)
    first, again, other = (choice(train_limit=20, test_limit=5, seed=seed).choose(task) for seed in (1, 1, 2))
    assert first == again != other
    assert (len(first[0]), len(first[1])) == (20, 5)
    assert first[0] == sorted(first[0], key=TRAIN.index)


def test_no_pairs_at_all_are_refused_split_by_split() -> None:
    with pytest.raises(DataError) as caught:
        choice().choose(Pairs([], []))
    assert [fault.split(":")[0] for fault in caught.value.faults] == ["pairs.train", "pairs.test"]
    with pytest.raises(DataError, match="every prompt of 'train' is also in 'test'"):
        choice().choose(Pairs(TEST, TEST))


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data" / "helpful-base"
    folder.mkdir(parents=True)
    for split, pairs in (("train", TRAIN[:64]), ("test", TEST[:20])):
        rows = [{"chosen": f"{p.prompt} {p.chosen}", "rejected": f"{p.prompt} {p.rejected}"} for p in pairs]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder.parent


def command(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["rrl-reward-model", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        main()
    return int(caught.value.code or 0)


def given(data: Path, *more: object) -> list[object]:
    return [f"data.path={data}", f"run.dir={data.parent / 'out'}", "task.subsets=[helpful-base]", *more]


SMALL = ("model.hidden_size=32", "model.num_hidden_layers=1")


def test_the_command_writes_a_model_a_report_and_a_picture(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(monkeypatch, *given(data, *SMALL, "fit.epochs=1")) == 0
    out = data.parent / "out"
    result = json.loads((out / "result.json").read_text())
    assert result["pairs"] == {"train": 64, "test": 20, "left_out_prompt_in_test": 0}
    assert result["test"]["pairs"] == 20
    assert 0 <= result["test"]["interval95"][0] <= result["test"]["accuracy"] <= result["test"]["interval95"][1] <= 1
    assert sum(row["pairs"] for row in result["test"]["reliability"]) == 20
    assert (out / "calibration.png").read_bytes()[:4] == b"\x89PNG"
    assert AutoModelForSequenceClassification.from_pretrained(out).config.num_labels == 1
    assert str(out) in capsys.readouterr().out
    assert command(monkeypatch, *given(data)) == 2
    assert "run.dir:" in capsys.readouterr().err


def test_the_command_trains_on_embeddings_without_loading_the_model(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = saved_encoder(data.parent / "encoder")
    more = ("fit=embeddings", f"fit.embedder.path={encoder}", "fit.epochs=2", "model=hf", "model.path=nowhere")
    assert command(monkeypatch, *given(data, *more)) == 0
    assert json.loads((data.parent / "out" / "result.json").read_text())["reward_model"]["kind"] == "embeddings"


@pytest.mark.parametrize(
    ("more", "reported"),
    [
        (["task=trace"], "pairs.train: the task Trace has no pairs in its split 'train'"),
        (["fit.lr=0", "pairs.test_limit=0"], "fit.lr: expected a number > 0, got 0"),
        (["fit=embeddings"], "fit.embedder.path: missing"),
        (["fit=embeddings", "fit.embedder.path=/nowhere"], "embedder.path: '/nowhere' cannot be used"),
        (["model=hf", "model.path=/nowhere"], "model.path: '/nowhere' is no local folder"),
    ],
)
def test_faults_are_reported_without_a_traceback_and_leave_nothing_behind(
    more: list[str], reported: str, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    about_hh = () if "task=trace" in more else (f"data.path={data}", "task.subsets=[helpful-base]")
    assert command(monkeypatch, f"run.dir={data.parent / 'out'}", *about_hh, *more) == 2
    shown = capsys.readouterr().err
    assert reported in shown
    assert "Traceback" not in shown
    assert not (data.parent / "out").exists()


def test_a_file_in_which_every_pair_is_a_tie_is_reported(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    row = {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: b"}
    (data / "helpful-base" / "train.jsonl").write_text(json.dumps(row) + "\n")
    assert command(monkeypatch, *given(data)) == 2
    assert "at least one pair with different sides" in capsys.readouterr().err
    assert "helpful-base, train: 1 rows; left out: chosen equals rejected: 1" in caplog.messages


def test_a_reading_must_keep_something() -> None:
    with pytest.raises(ValueError, match="max_length: expected at least 1, got 0"):
        reading(max_length=0)
