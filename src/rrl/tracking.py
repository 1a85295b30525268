"""Where metrics go: metrics.jsonl always, Weights & Biases beside it by choice. The only file that imports wandb."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from rrl.errors import ConfigError
from rrl.types import Metrics


class Sink(Protocol):
    """Takes metrics beside the JSONL file."""

    def start(self, folder: Path, config: Mapping[str, Any]) -> None:
        """Begin a run that is written in ``folder``."""

    def log(self, step: int, metrics: Metrics) -> None:
        """Take one step's metrics."""

    def finish(self) -> None:
        """The run is over."""


@dataclass(kw_only=True)
class WandB(Sink):
    """Weights & Biases: online with WANDB_API_KEY in the environment, else offline under the run's directory."""

    project: str

    def start(self, folder: Path, config: Mapping[str, Any]) -> None:
        """Begin a W&B run of the same name as the folder, with the step as its own axis."""
        import wandb

        mode: Literal["online", "offline"] = "online" if os.environ.get("WANDB_API_KEY") else "offline"
        try:
            self._run = wandb.init(
                project=self.project, name=folder.name, dir=str(folder), config=dict(config), mode=mode
            )
        except wandb.Error as error:
            raise ConfigError(
                f"logger: Weights & Biases does not start ({error}); mend WANDB_API_KEY, unset it to write offline, or "
                "use logger=none"
            ) from error
        self._run.define_metric("*", step_metric="training/global_step")

    def log(self, step: int, metrics: Metrics) -> None:
        """Send the metrics, with their step among them."""
        self._run.log({**metrics, "training/global_step": step})

    def finish(self) -> None:
        """Close the W&B run."""
        self._run.finish()


class Tracker:
    """Writes metrics.jsonl, the truth, and passes every row on to a sink."""

    def __init__(self, folder: Path, sink: Sink | None, config: Mapping[str, Any]) -> None:
        self._file = (folder / "metrics.jsonl").open("a", encoding="utf-8")
        self._sink = sink
        if sink is not None:
            sink.start(folder, config)

    def log(self, step: int, metrics: Metrics) -> None:
        """One JSON object on a line of its own, written through."""
        self._file.write(json.dumps({"step": step, **metrics}) + "\n")
        self._file.flush()
        if self._sink is not None:
            self._sink.log(step, metrics)

    def finish(self) -> None:
        """Close file and sink."""
        self._file.close()
        if self._sink is not None:
            self._sink.finish()
