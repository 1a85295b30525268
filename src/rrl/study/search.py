"""A search over values: Optuna chooses those of each job, receives its accuracies, and prunes jobs that fall behind."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from rrl.config.arguments import parsed
from rrl.ranges import at_least_one, check_ranges, not_negative
from rrl.records.files import accuracy_of, last_rows

STUDY = "study.journal"
"""The study's file in the sweep's directory. Several processes may write it, also on a shared file system."""


@dataclass(frozen=True, kw_only=True)
class Optuna:
    """The settings of a search for the highest held-out accuracy.

    ``n_trials`` jobs; ``sampler`` chooses values: "tpe" (Bergstra et al., NeurIPS 2011) after ``startup_trials`` random
    ones, or always "random". ``pruner`` "median" ends a job when its best accuracy is below the median of the others at
    the same step, after ``startup_trials`` have ended. ``params`` maps keys to values in the syntax of the command
    line: ``choice(a,b)``, ``range(1,9)``, ``interval(0,1)``, ``tag(log, interval(1e-4,1e-2))``.
    """

    n_trials: int
    sampler: Literal["tpe", "random"]
    pruner: Literal["median", "none"]
    startup_trials: int
    seed: int
    params: dict[str, Any]

    def __post_init__(self) -> None:
        check_ranges(self, at_least_one("n_trials", "startup_trials"), not_negative("seed"))

    def open(self, folder: Path, number: int) -> Any:
        """The study in the sweep's directory, with a different seed for each job ``number``."""
        import optuna
        from optuna.pruners import MedianPruner, NopPruner
        from optuna.samplers import RandomSampler, TPESampler
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        seed, first = self.seed * 1_000_003 + number, self.startup_trials
        # To TPE running jobs count as bad ones, so that no two try the same values.
        tpe = partial(TPESampler, n_startup_trials=first, constant_liar=True)
        return optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(folder / STUDY))),
            study_name="sweep",
            direction="maximize",
            load_if_exists=True,
            sampler=RandomSampler(seed) if self.sampler == "random" else tpe(seed=seed),
            pruner=NopPruner() if self.pruner == "none" else MedianPruner(n_startup_trials=first),
        )


class Trial:
    """The values of one job, and the reports of it to Optuna."""

    def __init__(self, study: Any, space: Mapping[str, str], number: int | None) -> None:
        """The study's trial ``number``, which was interrupted, or a new one with values from ``space``."""
        from optuna.trial import Trial as OptunaTrial

        distributions = {key: distribution(f"{key}={text}") for key, text in space.items()}
        self._study = study
        known = None if number is None else OptunaTrial(study, study.trials[number]._trial_id)
        self._trial = known or study.ask(distributions)
        self._seen = 0

    @property
    def number(self) -> int:
        return int(self._trial.number)

    @property
    def overrides(self) -> list[str]:
        return [f"{key}={value}" for key, value in self._trial.params.items()]

    def falls_behind(self, run: Path) -> bool:
        """Report the run's last evaluation if it is new; returns whether to prune the run."""
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
        """Report the end of the job, unless it was interrupted and may continue."""
        from optuna.trial import TrialState

        if state == "finished" and accuracy is not None:
            self._study.tell(self._trial, accuracy)
        elif state in ("finished", "failed", "pruned"):
            self._study.tell(self._trial, state=TrialState.PRUNED if state == "pruned" else TrialState.FAIL)


def distribution(text: str) -> Any:
    """Optuna's distribution over the values of an override; ValueError for an override with a single value."""
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
