"""A search over values: Optuna chooses those of each job, hears of its accuracies, and ends jobs that fall behind."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rrl.config.multirun import parsed
from rrl.ranges import at_least_one, check_ranges
from rrl.records.files import accuracy_of, last_rows

STUDY = "study.journal"
"""The study's file in the sweep's directory. Several processes may write it, also on a shared file system."""


@dataclass(frozen=True, kw_only=True)
class Optuna:
    """How Optuna searches for the highest held-out accuracy.

    ``n_trials`` jobs; ``sampler`` chooses values: "tpe" (Bergstra et al., NeurIPS 2011) after ``startup_trials`` random
    ones, or always "random". ``pruner`` "median" ends a job whose best accuracy so far is below the median of the
    others' at the same step, as soon as ``startup_trials`` have ended. ``params`` maps keys to values as the command
    line has them: ``choice(a,b)``, ``range(1,9)``, ``interval(0,1)``, ``tag(log, interval(1e-4,1e-2))``.
    """

    n_trials: int
    sampler: Literal["tpe", "random"]
    pruner: Literal["median", "none"]
    startup_trials: int
    seed: int
    params: dict[str, Any]

    def __post_init__(self) -> None:
        check_ranges(self, at_least_one("n_trials", "startup_trials"))
        if self.seed < 0:
            raise ValueError(f"seed: expected 0 or more, got {self.seed}")

    def open(self, folder: Path, number: int) -> Any:
        """The study in the sweep's directory, for job ``number``: each draws with a seed of its own."""
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        return optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(folder / STUDY))),
            study_name="sweep",
            direction="maximize",
            load_if_exists=True,
            sampler=self._sampler(self.seed * 1_000_003 + number),
            pruner=self._pruner(),
        )

    def _sampler(self, seed: int) -> Any:
        from optuna.samplers import RandomSampler, TPESampler

        if self.sampler == "random":
            return RandomSampler(seed)
        # Running jobs count as bad ones, so that no two look at the same place.
        return TPESampler(n_startup_trials=self.startup_trials, constant_liar=True, seed=seed)

    def _pruner(self) -> Any:
        from optuna.pruners import MedianPruner, NopPruner

        return NopPruner() if self.pruner == "none" else MedianPruner(n_startup_trials=self.startup_trials)


class Trial:
    """One job's values, and what Optuna hears of it."""

    def __init__(self, study: Any, space: Mapping[str, str], number: int | None) -> None:
        """The study's trial ``number``, which was interrupted, or a new one with values from ``space``."""
        from optuna.trial import Trial as Told

        distributions = {key: distribution(f"{key}={text}") for key, text in space.items()}
        self._study = study
        self._trial = study.ask(distributions) if number is None else Told(study, study.trials[number]._trial_id)
        self._seen = 0

    @property
    def number(self) -> int:
        """The trial's number in the study."""
        return int(self._trial.number)

    @property
    def overrides(self) -> list[str]:
        """Its values, as the command line has them."""
        return [f"{key}={value}" for key, value in self._trial.params.items()]

    def falls_behind(self, run: Path) -> bool:
        """Tell the run's evaluations so far; whether the pruner would end it."""
        path = run / "evaluations.jsonl"
        size = path.stat().st_size if path.exists() else 0
        if size == self._seen:
            return False
        self._seen = size
        rows, _ = last_rows(path)
        if not rows or "step" not in rows[0]:
            return False
        self._trial.report(accuracy_of(rows[0]), rows[0]["step"])
        return bool(self._trial.should_prune())

    def end(self, state: str, accuracy: float | None) -> None:
        """Tell how the job ended; one that was interrupted may go on."""
        from optuna.trial import TrialState

        if state == "finished" and accuracy is not None:
            self._study.tell(self._trial, accuracy)
        elif state in ("finished", "failed", "pruned"):
            self._study.tell(self._trial, state=TrialState.PRUNED if state == "pruned" else TrialState.FAIL)


def distribution(text: str) -> Any:
    """Optuna's distribution of the values that an override takes; ValueError for one that takes none in turn."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    override = parsed(text)
    value: Any = override.value()
    if override.is_interval_sweep():
        whole = isinstance(value.start, int) and isinstance(value.end, int)
        kind = IntDistribution if whole else FloatDistribution
        return kind(value.start, value.end, log="log" in value.tags)
    if not override.is_sweep_override():
        raise ValueError(f"{text}: one value; expected several, as in choice(a,b), range(1,9) or interval(0,1)")
    return CategoricalDistribution(list(override.sweep_string_iterator()))
