"""The plan of a sweep, from its arguments or those of the sweep to resume, and its checks."""

import importlib.util
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rrl.config.binding import Binder
from rrl.config.choices import groups
from rrl.config.multirun import settings, values_of
from rrl.errors import ConfigError
from rrl.processes.devices import visible_devices
from rrl.records.run_directory import writable
from rrl.records.secrecy import referenced
from rrl.study.search import Optuna
from rrl.study.sweep_files import read_sweep
from rrl.study.sweep_jobs import devices_needed, quoted

LOCAL = ("basic", "joblib", "submitit_local")
"""The launchers with jobs on this machine."""
NOT_HERE = {
    "run.dir": "names one run; the directories of jobs are below that of the sweep: give hydra.sweep.dir=...",
    "dry_run": "is for one run; omit --multirun",
    "hydra.sweep.subdir": "jobs are named by their overrides; omit it",
}
SWITCHES = ("-m", "--multirun")
SETTING = re.compile(r"\+*(hydra[./]|search[.=])")
"""Matches settings of the sweep itself, which jobs do not get, and which may change when it is resumed."""


@dataclass(frozen=True)
class SweepPlan:
    """The content of the arguments: Hydra's own settings, and all ``values`` of each task override.

    ``command`` are the arguments of the first start; ``again`` is true for a resumed sweep; ``search`` is None where
    all combinations are run.
    """

    command: Sequence[str]
    again: bool
    texts: Sequence[str]
    hydra: Sequence[str]
    settings: Any
    search: Optuna | None
    values: Mapping[str, Sequence[str]]

    @property
    def folder(self) -> Path:
        return Path(str(self.settings.sweep.dir)).expanduser().absolute()

    @property
    def space(self) -> dict[str, str]:
        """The values among which a search chooses, by key; none without a search."""
        if self.search is None:
            return {}
        given = dict(text.partition("=")[::2] for text in self.texts)
        varied = {key: text for key, text in given.items() if len(self.values.get(key, ())) > 1}
        return {key: str(value) for key, value in self.search.params.items() if key not in given} | varied


def read_plan(arguments: Sequence[str]) -> SweepPlan:
    """Read the arguments; raises ConfigError when the settings of Hydra or of a search cannot be composed."""
    given = [argument for argument in arguments if argument not in SWITCHES]
    command, again = _command(given)
    texts = [text for text in command if not SETTING.match(text)]
    aside = [text for text in command if SETTING.match(text)]
    chosen = [text for text in texts if text.removeprefix("experiment=") in groups()["experiment"]]
    hydra, written = settings([*chosen, *aside])
    search = _make_search(written)
    params = [] if search is None else [f"{key}={value}" for key, value in search.params.items()]
    own = [text for text in aside if not text.lstrip("+").startswith("search")]
    return SweepPlan(command, again, texts, own, hydra, search, {**values_of(params), **values_of(texts)})


def _command(given: Sequence[str]) -> tuple[list[str], bool]:
    """The arguments of a new sweep or, with ``resume``, of the sweep to resume; and whether there is one."""
    wanted = next((text.partition("=")[2] for text in given if text.startswith("resume=")), "null")
    rest = [text for text in given if not text.startswith("resume=")]
    if wanted == "null":
        return rest, False
    places = [text.partition("=")[2].strip("'") for text in rest if text.startswith("hydra.sweep.dir=")]
    if wanted == "auto" and not places:
        raise ConfigError("resume: 'auto' needs the sweep's directory; give hydra.sweep.dir, or resume=SWEEP")
    folder = Path(places[-1] if wanted == "auto" else wanted).expanduser().absolute()
    if (folder / "sweep.json").is_file():
        return [*_as_before(folder, rest), f"hydra.sweep.dir={quoted(folder)}"], True
    if wanted == "auto":
        return rest, False
    raise ConfigError(
        f"resume: {str(folder)!r} holds no sweep; expected a folder with sweep.json; resume one run without --multirun"
    )


def _as_before(folder: Path, now: Sequence[str]) -> list[str]:
    """The arguments of the sweep in ``folder``, with the present settings of the sweep itself."""
    before = read_sweep(folder).command
    own, old = ([text for text in texts if not SETTING.match(text)] for texts in (referenced(now), before))
    if own and own != old:
        raise ConfigError(
            f"resume: the sweep in {str(folder)!r} was started with {' '.join(old)!r}, now {' '.join(own)!r}; expected "
            "the same, or none of them; give another hydra.sweep.dir for another sweep"
        )
    settings = {text.partition("=")[0]: text for text in (*before, *now) if SETTING.match(text)}
    return [*old, *(text for key, text in settings.items() if key != "hydra.sweep.dir")]


def _make_search(value: Any) -> Optuna | None:
    """The settings of a search, checked like those of a part."""
    if value is None:
        return None
    faults: list[str] = []
    made: Optuna = Binder(faults, {}).make(value, "search")
    if importlib.util.find_spec("optuna") is None:
        faults.append("search: optuna is not installed; pip install 'rrl[sweep]'")
    if faults:
        raise ConfigError(*faults)
    return made


def check_plan(plan: SweepPlan) -> list[str] | None:
    """The devices to lease, None where a cluster assigns them; raises one ConfigError with all faults."""
    devices = visible_devices() if plan.settings.runtime.choices["hydra/launcher"] in LOCAL else None
    faults = [*_misuses(plan), *_load_faults(plan, devices)]
    if faults:
        raise ConfigError(*dict.fromkeys(faults))
    return devices


def _misuses(plan: SweepPlan) -> Iterator[str]:
    """Arguments without a meaning in a sweep."""
    for text in [*plan.texts, *plan.hydra]:
        yield from _misuse(text, searching=plan.search is not None)
    for key, texts in plan.values.items():
        repeated = [text for text in dict.fromkeys(texts) if texts.count(text) > 1]
        if repeated and plan.search is None:
            yield f"{key}: {repeated[0]!r} is among its values twice, which is the same job twice; keep one"
    if plan.search is not None and not plan.space:
        yield "search: no key takes more than one value; expected some, as in policy.actor_lr='interval(1e-5,1e-3)'"
    if plan.folder.exists() and not plan.again and (not plan.folder.is_dir() or any(plan.folder.iterdir())):
        yield (
            f"hydra.sweep.dir: {str(plan.folder)!r} exists and is not an empty folder; expected a new one; "
            f"give another, or continue a sweep with rrl-train -m resume={plan.folder}"
        )
    try:
        writable(plan.folder, "hydra.sweep.dir")
    except ConfigError as error:
        yield from error.faults


def _misuse(text: str, *, searching: bool) -> Iterator[str]:
    key, _, value = text.partition("=")
    if key in NOT_HERE:
        yield f"{text}: {NOT_HERE[key]}"
    if not searching and re.search(r"\binterval\(", value):
        yield f"{text}: an interval needs a search; list values, or use search=optuna"
    if re.search(r"\bglob\(", value):
        yield f"{text}: patterns are not expanded; list the choices"


def _load_faults(plan: SweepPlan, devices: Sequence[str] | None) -> Iterator[str]:
    """Faults of the first job's configuration, and of its variants with each other value."""
    from rrl.config.check import load

    for overrides in _variants(plan.values):
        try:
            config, _ = load("train", overrides)
        except ConfigError as error:
            yield from error.faults
            continue
        if plan.search is not None and plan.search.pruner != "none" and config["run"]["test_freq"] is None:
            yield "search.pruner: 'median' needs evaluations in training; set run.test_freq, or search.pruner=none"
        count = devices_needed(config)
        if devices and count > len(devices):
            yield f"launcher.num_processes: {count}, but there are {len(devices)} devices here: {', '.join(devices)}"


def _variants(values: Mapping[str, Sequence[str]]) -> Iterator[list[str]]:
    """The first value of every key, then each other one in its place; of more than 20 values only the two ends."""
    kept = {key: texts for key, texts in values.items() if key not in NOT_HERE}
    first = {key: texts[0] for key, texts in kept.items() if texts}
    yield list(first.values())
    for key, texts in kept.items():
        for text in texts[1:] if len(texts) <= 20 else texts[-1:]:
            yield list({**first, key: text}.values())
