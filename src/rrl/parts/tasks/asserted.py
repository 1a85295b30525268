"""The common part of data sets of functions to write that are judged by tests with assertions."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from rrl.errors import ConfigError
from rrl.parts.tasks.rows import DataSet, Row, load_split, read_objects, read_rows, refuse
from rrl.types import Example, Feedback, Rollout
from rrl.verifiers.assertions import AssertVerifier


@dataclass(frozen=True, kw_only=True)
class Asserted(DataSet):
    """Functions to write, whose tests ``judge`` runs.

    ``path`` is the published file (``.jsonl``, ``.jsonl.gz`` or ``.json`` with a list), or a folder that holds one of
    ``FILES``; None loads ``hub_id``, a name and its configuration as in ``name:full``. ``instruction`` ends the
    question; empty, the question is the published prompt alone, which a base model completes.
    """

    path: str | None
    hub_id: str
    instruction: str
    judge: AssertVerifier

    gives = frozenset({"references", "programs"})
    FILES: ClassVar[tuple[str, ...]]
    FIELDS: ClassVar[tuple[str, ...]]
    SPLITS: ClassVar[tuple[str, ...]]

    @abstractmethod
    def example(self, row: Row) -> Example:
        """The problem of a row. Raises ValueError with its fault."""

    @abstractmethod
    def belongs(self, row: Row, split: str) -> bool:
        """Whether a row of the published file is in this split."""

    def examples(self, split: str) -> list[Example]:
        """Every problem of the split, in the file's order."""
        if split not in self.SPLITS:
            known = ", ".join(self.SPLITS)
            raise ConfigError(f"evaluation.split: {type(self).__name__} has no split {split!r}; expected {known}")
        if self.path is None:
            name, _, config = self.hub_id.partition(":")
            rows = load_split(None, hub_id=name, hub_config=config or None, split=split, fields=self.FIELDS)
        else:
            rows = [row for row in self._published(Path(self.path).expanduser()) if self.belongs(row, split)]
        found, faults = list[Example](), list[str]()
        for row in rows:
            try:
                found.append(self.example(row))
            except (ValueError, TypeError) as error:
                faults.append(f"task_id {row.get('task_id')!r}: {error}")
        refuse(faults, "fix or replace the file, or give another data.path")
        return found

    def start(self) -> None:
        """Check that programs can be run."""
        self.judge.start()

    def verify(self, rollouts: Sequence[Rollout]) -> list[Feedback]:
        """Score 1 for a response whose program passes all tests, else 0. Evidence: ``ProgramEvidence``."""
        return self.judge.verify(rollouts)

    def asked(self, text: str) -> str:
        """The question of a published prompt."""
        return f"{text.rstrip()}\n\n{self.instruction}" if self.instruction else text

    def _published(self, path: Path) -> list[Row]:
        file = next((path / name for name in self.FILES if (path / name).is_file()), path / self.FILES[0])
        file = file if path.is_dir() else path
        if file.suffix == ".json":
            rows = read_objects(file)
            refuse(_lacking(rows, self.FIELDS), "fix or replace the file, or give another data.path")
            return rows
        return read_rows(file, self.FIELDS)


def _lacking(rows: Sequence[Row], fields: Sequence[str]) -> list[str]:
    """Fields that are no texts."""
    return [
        f"item {number}: field {name!r}: expected a string, there are {list(row)}"
        for number, row in enumerate(rows)
        for name in fields
        if not isinstance(row.get(name), str)
    ]
