"""One training run from configuration to results: steps, evaluations, records."""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rrl.assemble import Prepared, make_trainer, measure, prepare
from rrl.clock import Clock
from rrl.config import Parts
from rrl.display import Display
from rrl.evaluation import evaluation_metrics
from rrl.rundir import dump_rollouts, manifest, write_config, write_json
from rrl.tracking import Tracker
from rrl.trainer import Trainer
from rrl.types import Metrics

log = logging.getLogger(__name__)


def train(config: Mapping[str, Any], parts: Parts, display: Display) -> Path:
    """Run the experiment and return the directory it was written in.

    The directory holds config.yaml, manifest.json, metrics.jsonl, evaluations.jsonl, rollouts/, actor/ (Hugging Face
    format) and, at the end, result.json.
    """
    folder = parts.run.choose(f"{config['data']['name']}-{config['algo']}")
    parts.run.limit_threads()
    if parts.warmstart is not None:
        display.begin("warm start")
    prepared = prepare(config, parts, display.advance)
    trainer = make_trainer(parts, prepared, Clock(display.phase))
    write_config(folder, config)
    about = manifest(config, {"train": prepared.train, "test": prepared.test}, prepared.tokenizer)
    write_json(folder / "manifest.json", {**about, "warmstart": prepared.warmstart})
    log.info("run directory: %s", folder)
    tracker = Tracker(folder, parts.logger, config)
    display.begin("training")
    try:
        _run(Recorder(folder, config["data"]["name"], parts, prepared, trainer), tracker, display)
    finally:
        tracker.finish()
        display.close()
    return folder


@dataclass
class Recorder:
    """Evaluates and saves around the trainer's steps; ``source`` is the data's name in metrics."""

    folder: Path
    source: str
    parts: Parts
    prepared: Prepared
    trainer: Trainer
    evaluations: list[dict[str, Any]] = field(init=False, default_factory=list)

    def evaluate(self) -> Metrics:
        """Measure on held-out problems; append to evaluations.jsonl."""
        step, tokens = self.trainer.global_step, self.trainer.tokens_generated
        with self.trainer.clock.phase("testing"):
            result = measure(self.parts, self.prepared)
        result = {"step": step, "tokens_generated": tokens, **result}
        self.evaluations.append(result)
        with (self.folder / "evaluations.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(result) + "\n")
        return evaluation_metrics(result, self.source)

    def save(self, name: str) -> None:
        """Write the actor in Hugging Face format."""
        with self.trainer.clock.phase("save_checkpoint"):
            self.trainer.policy.save(self.folder / name)

    def dump(self) -> None:
        """Write the last step's rollouts."""
        step = self.trainer.global_step
        path = self.folder / "rollouts" / f"step-{step:06d}.jsonl"
        dump_rollouts(path, step, self.trainer.last_rollouts, self.prepared.tokenizer)

    def finish(self) -> None:
        """Save the actor and sum the run up in result.json."""
        self.save("actor")
        budget = {"steps": self.trainer.global_step, "tokens_generated": self.trainer.tokens_generated}
        write_json(
            self.folder / "result.json", {**budget, "before": self.evaluations[0], "after": self.evaluations[-1]}
        )


def _run(recorder: Recorder, tracker: Tracker, display: Display) -> None:
    settings, trainer = recorder.parts.run, recorder.trainer
    tracker.log(0, recorder.evaluate())
    for metrics in trainer.run():
        step = trainer.global_step
        if _due(step, settings.test_freq) or trainer.progress >= 1:
            metrics |= recorder.evaluate()
        if _due(step, settings.rollout_freq):
            recorder.dump()
        if _due(step, settings.save_freq):
            recorder.save(f"actor-step-{step:06d}")
        metrics |= _timing(trainer)
        tracker.log(step, metrics)
        display.advance(trainer.progress, metrics)
    recorder.finish()


def _due(step: int, every: int | None) -> bool:
    return every is not None and step % every == 0


def _timing(trainer: Trainer) -> Metrics:
    """Seconds by phase, their sum without evaluation and saving, and the tokens written in a second of it."""
    seconds = trainer.clock.take()
    aside = ("timing_s/testing", "timing_s/save_checkpoint")
    step = sum(value for name, value in seconds.items() if name not in aside)
    tokens = sum(len(rollout.actions) for rollout, _ in trainer.last_rollouts)
    return seconds | {
        "timing_s/step": step,
        "perf/time_per_step": step,
        "perf/total_num_tokens": float(tokens),
        "perf/throughput": tokens / max(step, 1e-9),
    }
