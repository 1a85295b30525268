"""Trains and measures a reward model on pairs, and writes a folder with the model and its report."""

import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

from rrl.config.check import RewardModelParts
from rrl.config.saved import write_config
from rrl.contracts import border, judging
from rrl.contracts.calling import calling
from rrl.contracts.judging import RewardModel
from rrl.errors import DivergenceError
from rrl.records.display import Display
from rrl.records.plots import reliability_diagram
from rrl.records.run_directory import write_json
from rrl.training.calibration import expected_calibration_error, log_loss, reliability, share_chosen
from rrl.training.intervals import accuracy
from rrl.types import Pair

log = logging.getLogger(__name__)
BINS = 10
CHUNK = 64
"""Pairs scored between two reports of progress."""


def train_reward_model(
    config: Mapping[str, Any], parts: RewardModelParts, folder: Path, display: Display
) -> dict[str, Any]:  # fmt: skip
    """Train on the training pairs, measure the saved model on the others; returns the content of result.json."""
    train, test, left_out = parts.pairs.choose(parts.task)
    log.info("pairs: %d to train on, %d held out", len(train), len(test))
    begun = time.monotonic()
    model, tokenizer = parts.model.load(border.vocabulary(parts.task)) if parts.fit.needs_model else (None, None)
    display.begin("training")
    with calling("fit", parts.fit, "train"):
        reward_model = parts.fit.train(model, tokenizer, train, folder, parts.run.seed, display.advance)
    write_config(folder, config)
    seconds = time.monotonic() - begun
    display.begin("measuring")
    result = {
        "task": config["data"]["name"],
        "seed": parts.run.seed,
        "pairs": {"train": len(train), "test": len(test), "left_out_prompt_in_test": left_out},
        "seconds": {"training": round(seconds, 1)},
        "test": measure_reward_model(reward_model, test, display),
        "reward_model": reward_model.described(),
    }
    display.close()
    reliability_diagram(result["test"]["reliability"], f"{len(test)} held-out pairs", folder / "calibration.png")
    write_json(folder / "result.json", result)
    return result


def measure_reward_model(model: RewardModel, pairs: Sequence[Pair], display: Display) -> dict[str, Any]:
    """Accuracy with interval overall, by level and by subset; log-loss and calibration; rewards."""
    chosen, rejected = _score(model, pairs, display)
    differences = [c - r for c, r in zip(chosen, rejected, strict=True)]
    table = reliability(differences, BINS)
    return {
        **_pair_accuracy(differences),
        "levels": _by_name(differences, [pair.level for pair in pairs]),
        "strata": {
            kind: _by_name(differences, [pair.strata.get(kind, "") for pair in pairs])
            for kind in sorted(pairs[0].strata)
        },
        "log_loss": log_loss(differences),
        "calibration_error": expected_calibration_error(table),
        "reliability": table,
        "rewards": {"chosen": _mean_and_std(chosen), "rejected": _mean_and_std(rejected)},
        "longer_is_better": _pair_accuracy([float(len(pair.chosen) - len(pair.rejected)) for pair in pairs]),
    }


def _score(model: RewardModel, pairs: Sequence[Pair], display: Display) -> tuple[list[float], list[float]]:
    """Rewards of the chosen and of the rejected responses. Raises DivergenceError unless all are finite."""
    scores: list[float] = []
    for begin in range(0, len(pairs), CHUNK):
        part = pairs[begin : begin + CHUNK]
        asked = [(pair.prompt, text) for pair in part for text in (pair.chosen, pair.rejected)]
        scores += judging.scores(model, asked)
        display.advance((begin + len(part)) / len(pairs), {})
    wrong = [score for score in scores if not abs(score) < float("inf")]
    if wrong:
        raise DivergenceError(f"reward model: {len(wrong)} of {len(scores)} rewards are {wrong[0]}; lower fit.lr")
    return scores[::2], scores[1::2]


def _pair_accuracy(differences: Sequence[float]) -> dict[str, Any]:
    """The share of pairs with a higher number for the chosen response; a tie is half."""
    found = accuracy([[share_chosen(difference)] for difference in differences])
    kept = {"accuracy": found["accuracy"], "interval95": found["interval95"], "pairs": found["n_problems"]}
    return {**kept, "ties": sum(difference == 0 for difference in differences)}


def _by_name(differences: Sequence[float], names: Sequence[str]) -> dict[str, Any]:
    return {
        name: _pair_accuracy([d for d, other in zip(differences, names, strict=True) if other == name])
        for name in sorted(set(names))
    }


def _mean_and_std(rewards: Sequence[float]) -> dict[str, float]:
    return {"mean": fmean(rewards), "std": pstdev(rewards)}
