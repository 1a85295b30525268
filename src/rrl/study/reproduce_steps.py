"""Steps of a reproduction: each is one command, knows whether its result is there, and refuses one made otherwise."""

import os
import shutil
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rrl.config.check import load
from rrl.config.choices import walk
from rrl.config.saved import absolute
from rrl.errors import ConfigError
from rrl.records.files import read_object
from rrl.records.fingerprints import fingerprint
from rrl.records.run_directory import write_json
from rrl.records.status import read_state
from rrl.runs.resume import LENGTHS, refuse_changes, saved
from rrl.study.sweep_jobs import quoted

Command = Callable[[str, Sequence[str]], int]
"""Runs a module of ``rrl.cli`` with arguments; returns the exit code."""


@dataclass(frozen=True)
class Step(ABC):
    """A command with its ``arguments``, and the names of the steps that it ``needs``; all lie in one ``folder``."""

    name: str
    folder: Path
    needs: Collection[str]
    arguments: Sequence[str]

    @property
    def made(self) -> Path:
        """The folder or the file that the step makes."""
        return self.folder / self.name

    @abstractmethod
    def done(self) -> bool:
        """Whether the result is there; raises ConfigError where it was made by another configuration."""

    @abstractmethod
    def work(self, command: Command) -> int:
        """Make the result, or go on with making it; returns the exit code."""

    def devices(self) -> int:
        """How many accelerators the command uses."""
        return 1

    def busy(self) -> bool:
        """Whether another process is at this work, as one that outlived a killed rrl-reproduce."""
        return False

    def asides(self, *endings: str) -> list[Path]:
        """Where to write what is not whole yet; what an interrupted attempt left there is removed."""
        for left in self.folder.glob(f".{self.name}.*"):
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        return [self.folder / f".{self.name}.{os.getpid()}{ending}" for ending in endings]

    def source(self) -> str:
        """A hash of the results that the step needs."""
        return fingerprint(read_object(self.folder / name / "result.json")[0] for name in sorted(self.needs))

    def refuse_other_source(self, recorded: str | None) -> None:
        """Raise ConfigError where the result was made from others than the present ones."""
        if recorded not in (None, self.source()):
            raise ConfigError(
                f"{self.made}: made from another {' or '.join(self.needs)} than the present one; expected the result "
                "of the present one; move it away, and the same command makes it anew"
            )


class Training(Step):
    """A run of ``rrl-train``; it goes on where it was interrupted."""

    def done(self) -> bool:
        config, _ = load("train", self.arguments, starting=())
        if not (self.made / "config.yaml").is_file():
            return False
        before, after = saved(self.made), absolute(config)
        _refuse_changes(before, after, self.made)
        self.refuse_other_source(read_object(self._record)[0].get("source"))
        old, new = dict(walk(before)), dict(walk(after))
        return read_state(self.made).state == "finished" and all(old.get(key) == new.get(key) for key in LENGTHS)

    def work(self, command: Command) -> int:
        write_json(self._record, {"source": self.source()})
        return command("train", [*self.arguments, f"run.dir={quoted(self.made)}", "resume=auto"])

    def devices(self) -> int:
        return int(load("train", self.arguments, starting=())[0]["launcher"]["num_processes"])

    def busy(self) -> bool:
        state = read_state(self.made)
        return state.state == "running" and state.host == socket.gethostname()

    @property
    def _record(self) -> Path:
        """Beside the run's directory, which has to be empty when the run begins."""
        return self.folder / "sources" / f"{self.name}.json"


def _refuse_changes(before: Mapping[str, Any], after: Mapping[str, Any], folder: Path) -> None:
    """As ``refuse_changes``, with the remedy that rrl-reproduce has."""
    try:
        refuse_changes(before, after, folder)
    except ConfigError as error:
        faults = (fault.replace("begin a new run in another run.dir", "give another out=") for fault in error.faults)
        raise ConfigError(*faults) from error


class RewardModelFit(Step):
    """A training of ``rrl-reward-model``; it begins anew where it was interrupted."""

    def done(self) -> bool:
        config, _ = load("train_reward_model", self.arguments, starting=())
        if not (self.made / "result.json").is_file():
            return False
        _refuse_changes(saved(self.made), absolute(config), self.made)
        return True

    def work(self, command: Command) -> int:
        (aside,) = self.asides("")
        code = command("reward_model", [*self.arguments, f"run.dir={quoted(aside)}"])
        if code == 0:
            aside.rename(self.made)
        return code


class Measurement(Step):
    """A call of ``rrl-evaluate``: its output, with arguments and the hash of what was measured, and every response."""

    @property
    def made(self) -> Path:
        return self.folder / f"{self.name}.json"

    def done(self) -> bool:
        found, faults = read_object(self.made)
        self.refuse_other_source(found.get("source"))
        if faults or found.get("arguments", self.arguments) != list(self.arguments):
            raise ConfigError(
                f"{self.made}: {faults or ' '.join(found['arguments'])}; expected the result of rrl-evaluate "
                f"{' '.join(self.arguments)}; move it away, and the same command makes it anew"
            )
        return bool(found)

    def work(self, command: Command) -> int:
        if self.done():
            return 0
        rows = "judgements" if any(text.startswith("judge=") for text in self.arguments) else "responses"
        result, responses = self.asides(".json", ".jsonl")
        code = command("evaluate", [*self.arguments, f"output={result}", f"{rows}={responses}"])
        if code == 0:
            made_from = {"source": self.source(), "arguments": list(self.arguments)}
            responses.replace(self.made.with_suffix(".jsonl"))
            write_json(self.made, {**made_from, **read_object(result)[0]})
            result.unlink()
        return code
