"""Study: how well a small network on frozen sentence embeddings predicts the preferences of HH-RLHF.

    python experiments/hh/embeddings.py DATA MODEL OUT joint,apart

DATA is the folder hh-rlhf, MODEL a folder or hub id of an encoder; the last word names the features to try.

Expected: see experiments/results/hh/README.md. Cost: about half an hour of one core for all embeddings of a small
encoder (kept in OUT/*.pt, so that the study goes on where it was stopped), then a minute for all fits.
The splits are made by row number from the test files: the figures do not compare with published ones.
"""

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, stdev

import torch

from rrl.parts.reward_models.embedder import Embedder
from rrl.parts.reward_models.embeddings import EmbeddingsRewardModel
from rrl.parts.reward_models.fit_embeddings import EmbeddingsTrainer
from rrl.parts.reward_models.reading import Reading
from rrl.parts.tasks.hh import HH
from rrl.records.display import Display
from rrl.runs.reward_model import measure_reward_model
from rrl.training.preference_pairs import PairChoice

SEEDS = (0, 1, 2)
HEADS = {"linear": (), "mlp": (256,)}
SUBSETS = ("helpful-base", "harmless-base")


@dataclass(kw_only=True)
class Remembering(Embedder):
    """Embeds every text once, for all arms and, by its file, for later calls of the study."""

    file: Path
    known: dict[tuple[str, str], torch.Tensor] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.file.is_file():
            self.known = torch.load(self.file)

    def _vectors(self, pairs, batch_size):
        new = [pair for pair in dict.fromkeys(pairs) if pair not in self.known]
        if new:
            self.known |= zip(new, super()._vectors(new, batch_size), strict=True)
            if len(self.known) // 500 > (len(self.known) - len(new)) // 500:
                torch.save(self.known, self.file)
        return torch.stack([self.known[pair] for pair in pairs])


def study(data: str, model: str, out: Path, kinds: list[str]) -> dict:
    """Every arm over the seeds; the means and deviations of its accuracies, and each report."""
    task = HH(path=data, hub_id="", subsets=SUBSETS, split_rows=8, reward_model=None)
    choice = PairChoice(train="train", test="test", train_limit=None, test_limit=None, seed=0)
    train, test, _ = choice.choose(task)
    arms = {}
    for features in kinds:
        embedder = Remembering(
            path=model, revision=None, pooling="mean", features=features, trust_remote_code=False,
            reading=Reading(layout="plain", max_length=256), file=out / f"{features}.pt",
        )  # fmt: skip
        for name, hidden in HEADS.items():
            reports = [fit(embedder, hidden, train, test, seed, out / f"{features}-{name}-{seed}") for seed in SEEDS]
            right = [report["accuracy"] for report in reports]
            arms[f"{features}, {name}"] = {"mean": fmean(right), "std": stdev(right), "seeds": reports}
            print(features, name, [round(x, 4) for x in right], flush=True)
        torch.save(embedder.known, embedder.file)
    return {"pairs": {"train": len(train), "test": len(test)}, "arms": arms}


def fit(embedder: Remembering, hidden, train, test, seed: int, folder: Path) -> dict:
    """One head, measured from its folder but with the embeddings that are there."""
    trainer = EmbeddingsTrainer(
        embedder=embedder, hidden=hidden, dropout=0.1, lr=1e-3, weight_decay=1e-2, epochs=50, batch_size=64,
        validation=0.1, patience=5, embed_batch_size=16,
    )  # fmt: skip
    reward_model: EmbeddingsRewardModel = trainer.train(None, None, train, folder, seed, tell)
    reward_model.start()
    assert reward_model._loaded is not None
    reward_model._loaded = (embedder, reward_model._loaded[1])
    return {"seed": seed, **measure_reward_model(reward_model, test, Display())}


def tell(progress: float, metrics) -> None:
    """How far the embedding is."""
    if progress < 0.9:
        print(f"embedded {progress / 0.9:.0%}", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    target = Path(sys.argv[3])
    target.mkdir(parents=True, exist_ok=True)
    result = study(sys.argv[1], sys.argv[2], target, sys.argv[4].split(","))
    (target / "embeddings.json").write_text(json.dumps(result, indent=1) + "\n")
