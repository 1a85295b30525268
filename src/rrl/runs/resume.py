"""Resuming a run: the changes of its configuration that leave training unchanged, and its records taken back."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rrl.config.check import Parts, checked
from rrl.config.choices import walk
from rrl.config.compose import Composed, compose_saved
from rrl.errors import ConfigError, shown
from rrl.records.files import DUMPS, ROWS, STATES, last_rows, rewind
from rrl.records.run_directory import unused
from rrl.records.status import suggestion

log = logging.getLogger(__name__)
LENGTHS = ("trainer.total_training_steps", "trainer.total_tokens", "trainer.iterations")
LIMITS = ("trainer.mismatch_limit", "trainer.on_mismatch", "engine.tolerance", "old_log_prob.tolerance")
SERVERS = ("engine.servers", "engine.weights", "engine.timeout", "engine.patience")
HARMLESS = ("run", "logger", "launcher.hostfile", *LENGTHS, *LIMITS, *SERVERS)
"""Keys, with all keys below them, that may change when a run is resumed."""
REMEDY = f"remedy: a resume may change {', '.join(HARMLESS)} and the keys below them; anything else begins a new run"


def resume(folder: Path, overrides: Sequence[str]) -> tuple[dict[str, Any], Parts]:
    """The configuration of the run in ``folder`` with harmless ``overrides``, and its parts.

    Raises ConfigError naming every key that would change training.
    """
    composed = compose_saved(_config_of(folder), overrides)
    if composed.faults:
        raise ConfigError(*composed.faults, REMEDY)
    if "trainer" not in composed.before:
        raise ConfigError(f"resume: {str(folder)!r} holds no run of rrl-train; expected one; rrl-status lists them")
    _refuse_other_folder(composed, folder)
    composed.config["run"]["dir"] = composed.before["run"]["dir"]  # the same folder, written as before
    refuse_changes(composed.before, composed.config, folder)
    return checked(composed)


def _refuse_other_folder(composed: Composed, folder: Path) -> None:
    wanted, before = composed.config["run"]["dir"], composed.before["run"]["dir"]
    if wanted != before and (wanted is None or Path(wanted).expanduser().absolute() != folder.absolute()):
        raise ConfigError(
            f"run.dir: {shown(wanted)}, but a resumed run stays in its folder {str(folder)!r}; omit run.dir, or begin "
            "a new run without resume"
        )


def saved(folder: Path) -> dict[str, Any]:
    """The configuration of the run in ``folder``."""
    return compose_saved(_config_of(folder), []).config


def refuse_changes(before: Mapping[str, Any], after: Mapping[str, Any], folder: Path) -> None:
    """Raise ConfigError unless the configurations differ in harmless keys only."""
    old, new = dict(walk(before)), dict(walk(after))
    differing = [key for key in dict.fromkeys([*old, *new]) if _differ(old.get(key), new.get(key))]
    harmless = [key for key in differing for name in HARMLESS if key == name or key.startswith(f"{name}.")]
    changed = [key for key in differing if key not in harmless]
    leaves = [key for key in changed if not any(other.startswith(f"{key}.") for other in changed)]
    if leaves:
        raise ConfigError(
            *(
                f"{key}: {_value_or_absent(old, key)} in the run {str(folder)!r}, now {_value_or_absent(new, key)}; "
                "this changes training; keep the old value, or begin a new run in another run.dir"
                for key in leaves
            )
        )


def rewind_records(folder: Path, step: int | None) -> None:
    """Rewind the records to the checkpoint; without one, move those of a run beyond step 0 aside."""
    rows, _ = last_rows(folder / "metrics.jsonl")
    if step is None and rows and rows[0]["step"] > 0:
        aside = unused(folder / "records-without-checkpoint")
        aside.mkdir()
        for name in (*ROWS, STATES, *DUMPS):
            if (folder / name).exists():
                (folder / name).rename(aside / name)
        log.warning(
            "there is no checkpoint: the run begins anew; its records up to step %d are in %s", rows[0]["step"], aside
        )
    rewind(folder, step)


def _config_of(folder: Path) -> Path:
    file = folder / "config.yaml"
    if not file.is_file():
        remedy = suggestion("resume", folder) or "rrl-status lists the runs"
        raise ConfigError(f"resume: {str(folder)!r} holds no run; expected a folder with config.yaml; {remedy}")
    return file


def _differ(old: Any, new: Any) -> bool:
    both = isinstance(old, Mapping) and isinstance(new, Mapping)
    return not both and (old != new or type(old) is not type(new))


def _value_or_absent(values: Mapping[str, Any], key: str) -> str:
    return shown(values[key]) if key in values else "absent"
