"""The run directory: its path, the protection against reuse, and the rollouts dumped in it."""

import os
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rrl.errors import ConfigError
from rrl.ranges import Range, at_least_one, check_ranges, not_negative, positive
from rrl.records.files import CACHE, nearest_there, step_name, write_whole
from rrl.records.full import FullRecords
from rrl.records.secrecy import hidden
from rrl.records.texts import as_json

if TYPE_CHECKING:  # a sweep's launcher and its jobs write no rollouts, and start faster without torch
    from rrl.types import Judged


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a command writes, and with how many threads; ``dir`` null makes a folder under ``runs/``."""

    seed: int
    dir: str | None
    threads: int | None

    def __post_init__(self) -> None:
        seeds = Range(("seed",), 0, 2**63 - 1, "a number from 0 to below 2**63")
        check_ranges(self, at_least_one("threads"), seeds)

    def choose(self, name: str) -> Path:
        """The path, not yet created; a generated one contains ``name``. Raises ConfigError when it holds anything."""
        if self.dir is None:
            generated = unused(Path("runs") / f"{name}-s{self.seed}-{time.strftime('%Y%m%d-%H%M%S')}")
            return writable(generated, "run.dir")
        folder = Path(self.dir).expanduser()
        if (folder / "config.yaml").is_file():
            raise ConfigError(
                f"run.dir: {self.dir!r} holds a run; expected a new folder; continue that run with resume={self.dir}, "
                "or give another run.dir"
            )
        if not is_empty(folder):
            raise ConfigError(
                f"run.dir: {self.dir!r} exists and is not an empty folder; expected a new one; give another run.dir, "
                "or move the old run away"
            )
        return writable(folder, "run.dir")

    def limit_threads(self) -> None:
        """Limit torch to ``threads``."""
        import torch

        if self.threads is not None:
            torch.set_num_threads(self.threads)


@dataclass(frozen=True, kw_only=True)
class RunSettings(Place):
    """Where a run is written and how often.

    ``dir`` is the run's directory (null: one is made under ``runs/``);
    ``threads`` limits torch's CPU threads; ``save_freq``, ``test_freq`` and ``rollout_freq`` count steps between
    checkpoints, evaluations and rollout dumps (null: only at the end). The last ``keep_last`` checkpoints are kept and,
    of those with an evaluation at their step, the ``keep_best`` with the highest accuracy. A phase that lasts longer
    than ``phase_limit`` seconds ends the run (null: no limit). ``records`` are written beside the usual ones.
    """

    save_freq: int | None
    keep_last: int
    keep_best: int
    phase_limit: float | None
    test_freq: int | None
    rollout_freq: int | None
    records: FullRecords | None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(
            self,
            at_least_one("save_freq", "test_freq", "rollout_freq", "keep_last"),
            not_negative("keep_best"),
            positive("phase_limit"),
        )


def cache_folder() -> Path:
    """Where warm starts and replies of judges are kept, by content: ``RRL_CACHE`` of the environment, or a default."""
    return Path(os.environ.get(CACHE) or "~/.cache/rrl").expanduser()


def cache(kind: str = "") -> Path:
    """The folder of one kind of them, not yet made; refuses one that cannot be written to."""
    return writable(cache_folder() / kind, CACHE)


def writable(folder: Path, key: str) -> Path:
    """The folder, which need not exist yet; raises ConfigError when it is not writable."""
    there = nearest_there(folder)
    try:
        with tempfile.TemporaryFile(dir=there):
            return folder
    except OSError as error:
        raise ConfigError(
            f"{key}: nothing can be written in {str(folder)!r} ({error.strerror}: {str(there)!r}); expected a folder "
            f"that this user may create and write to; give another {key}"
        ) from error


def is_empty(folder: Path) -> bool:
    """Whether a run can begin here: nothing is there but what one leaves that is killed before it has a config.yaml."""
    if not folder.is_dir():
        return not folder.exists()
    return all(path.name == ".lock" or path.match(".config.yaml.*.tmp") for path in folder.iterdir())


def unused(folder: Path) -> Path:
    """The folder, with a number appended to its name where it exists."""
    number, candidate = 1, folder
    while candidate.exists():
        number += 1
        candidate = folder.with_name(f"{folder.name}-{number}")
    return candidate


def write_json(path: Path, content: Any) -> None:
    """Write the file whole or not at all, without secrets."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, as_json(hidden(content), indent=2) + b"\n")


def rollout_rows(step: int, judged: "Sequence[Judged]", tokenizer: Any) -> list[dict[str, Any]]:
    """One step's rollouts: problem, prefix, response, verdict, and where each started."""
    return [
        {
            "step": step,
            "problem": asdict(rollout.state.problem.example),
            "replayed_from": rollout.state.replayed_from,
            "help": rollout.state.help,
            "prefix": tokenizer.decode(rollout.state.prefix),
            "prefix_tokens": rollout.state.prefix,
            "response": rollout.response,
            "tokens": len(rollout.actions),
            "finished": rollout.finished,
            "version": rollout.version,
            "score": feedback.score,
            "verdict": feedback.verdict.value,
            "evidence": dict(feedback.evidence),
            "logprobs": [round(logprob, 4) for logprob in rollout.logprobs],
        }
        for each in judged
        for rollout, feedback in [(each.rollout, each.feedback)]
    ]


def response_rows(
    step: int, answers: "Mapping[str, Sequence[Sequence[Judged]]]", tokenizer: Any
) -> list[dict[str, Any]]:
    """The responses of an evaluation, by mode and problem, as such rows, each with its ``mode``."""
    return [
        {"mode": mode, **row}
        for mode, problems in answers.items()
        for row in rollout_rows(step, [judged for each in problems for judged in each], tokenizer)
    ]


def dump_evaluation(
    folder: Path, row: Mapping[str, Any], answers: "Mapping[str, Sequence[Sequence[Judged]]]", tokenizer: Any
) -> None:
    """Add an evaluation to a run's records: its row of a step, and every response in a file of that step."""
    responses = response_rows(row["step"], answers, tokenizer)
    dump_rollouts(folder / "evaluations" / f"{step_name(row['step'])}.jsonl", responses)
    append(folder / "evaluations.jsonl", [row])


def append(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Add the rows to a file as JSONL."""
    with path.open("ab") as file:
        file.write(b"".join(as_json(row) + b"\n" for row in rows))


def dump_rollouts(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """The rows as JSONL."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, b"".join(as_json(row) + b"\n" for row in rows))
