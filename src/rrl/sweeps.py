"""``rrl-train -m``: everything checked, then Hydra's sweeper and launcher started, watched, and their jobs reported."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rrl.devices import visible
from rrl.errors import ConfigError, shown
from rrl.jobs import PAUSE, devices_needed, quoted
from rrl.overrides import conf_dir, groups
from rrl.rundir import writable
from rrl.sweep_records import Sweep, last_line, read_jobs, report, write_sweep

PROGRAM = (sys.executable, "-m", "rrl.cli.train")
LAUNCH = (sys.executable, "-c", "from rrl.jobs import launch; launch()")
LOCAL = ("basic", "joblib", "submitit_local")
"""The launchers whose jobs run on this machine."""

NOT_HERE = {
    "run.dir": "names one run; jobs lie below the sweep's directory: give hydra.sweep.dir=...",
    "resume": "goes on with one run; leave --multirun away",
    "dry_run": "is for one run; leave --multirun away",
    "hydra.sweep.subdir": "jobs are named by what differs; leave it away",
}
SWITCHES = ("-m", "--multirun")


@dataclass(frozen=True)
class Plan:
    """What the arguments ask for: Hydra's own settings, and of each task override all the values it takes in turn."""

    texts: Sequence[str]
    hydra: Sequence[str]
    settings: Any
    values: Mapping[str, Sequence[str]]

    @property
    def folder(self) -> Path:
        """The sweep's directory."""
        return Path(str(self.settings.sweep.dir)).expanduser().absolute()


def sweep(arguments: Sequence[str], tell: Callable[[str], None]) -> int:
    """Run all jobs and tell how they end; 0 when all finished, 1 when one did not, 130 when interrupted.

    Raises ConfigError before anything starts.
    """
    plan = _plan(arguments)
    devices = _check(plan)
    plan.folder.mkdir(parents=True, exist_ok=True)
    fixed = [key for key, texts in plan.values.items() if len(texts) == 1]
    started = Sweep(folder=str(plan.folder), command=arguments, program=PROGRAM, fixed=fixed, devices=devices)
    write_sweep(started)
    tell(f"sweep directory: {plan.folder}")
    code = _launch(plan, started, tell)
    tell(report(read_jobs(plan.folder), plan.folder))
    return _exit_code(code, started, tell)


def _plan(arguments: Sequence[str]) -> Plan:
    """Read the arguments; raises ConfigError when Hydra's own settings cannot be composed."""
    given = [argument for argument in arguments if argument not in SWITCHES]
    hydra = [text for text in given if re.match(r"\+*hydra[./]", text)]
    texts = [text for text in given if text not in hydra]
    chosen = [text for text in texts if text.removeprefix("experiment=") in groups()["experiment"]]
    settings = _settings([*chosen, *hydra])
    params = [f"{key}={value}" for key, value in (settings.sweeper.get("params") or {}).items()]
    return Plan(texts, hydra, settings, {**_values(params), **_values(texts)})


def _settings(overrides: Sequence[str]) -> Any:
    """Hydra's own settings: launcher, sweeper, directory."""
    import hydra
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException

    with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        options = {group: loader.get_group_options(group) for group in ("hydra/launcher", "hydra/sweeper")}
        missing = [fault for text in overrides for fault in _missing(text, options)]
        if missing:
            raise ConfigError(*missing)
        try:
            return hydra.compose("train", list(overrides), return_hydra_config=True).hydra
        except HydraException as error:
            cause = str(error.__cause__).split("\n")[0] if error.__cause__ else ""
            raise ConfigError(" ".join(f"hydra: {error} {cause}".split())) from error


def _missing(text: str, options: Mapping[str, Sequence[str]]) -> list[str]:
    """The fault of choosing a plug-in that is not installed."""
    group, _, choice = text.partition("=")
    if group not in options or choice in options[group]:
        return []
    installed = ", ".join(options[group])
    return [
        f"{group}: no such choice {shown(choice)}; installed: {installed}; joblib, submitit and optuna come with "
        "pip install -e '.[sweep]'"
    ]


def _values(texts: Sequence[str]) -> dict[str, list[str]]:
    """For each key the overrides that jobs get in turn: one for a fixed key, the two ends of an interval."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    values: dict[str, list[str]] = {}
    for text in texts:
        try:
            override = OverridesParser.create().parse_override(text)
            key, each = override.get_key_element(), _each(override)
        except HydraException:
            key, each = text, [text]
        # What cannot be read or is given twice stays as it is: the configuration's own check tells it.
        values[text if key in values else key] = each
    return values


def _each(override: Any) -> list[str]:
    """The override with each of its values."""
    key, value = override.get_key_element(), override.value()
    if not override.is_sweep_override():
        return [str(override.input_line)]
    if override.is_interval_sweep():
        return [f"{key}={value.start}", f"{key}={value.end}"]
    return [f"{key}={text}" for text in override.sweep_string_iterator()]


def _check(plan: Plan) -> list[str] | None:
    """The devices to lend, None where a cluster has them; raises one ConfigError with all faults."""
    devices = visible() if plan.settings.runtime.choices["hydra/launcher"] in LOCAL else None
    faults = [*_misuses(plan), *_load_faults(plan, devices)]
    if faults:
        raise ConfigError(*dict.fromkeys(faults))
    return devices


def _misuses(plan: Plan) -> Iterator[str]:
    """What makes no sense in a sweep."""
    for text in [*plan.texts, *plan.hydra]:
        yield from _misuse(text, basic=plan.settings.runtime.choices["hydra/sweeper"] == "basic")
    sweeper = plan.settings.sweeper
    if "direction" in sweeper and str(sweeper.direction).rpartition(".")[2] != "maximize":
        yield "hydra.sweeper.direction: a job is judged by its held-out accuracy; set hydra.sweeper.direction=maximize"
    if plan.folder.exists() and (not plan.folder.is_dir() or any(plan.folder.iterdir())):
        yield f"hydra.sweep.dir: {str(plan.folder)!r} exists and is not an empty folder; expected a new one"
    try:
        writable(plan.folder, "hydra.sweep.dir")
    except ConfigError as error:
        yield from error.faults


def _misuse(text: str, *, basic: bool) -> Iterator[str]:
    key, _, value = text.partition("=")
    if key in NOT_HERE:
        yield f"{text}: {NOT_HERE[key]}"
    if basic and re.search(r"\binterval\(", value):
        yield f"{text}: an interval needs a sweeper that chooses; list values, or use hydra/sweeper=optuna"
    if re.search(r"\bglob\(", value):
        yield f"{text}: patterns are not expanded; list the choices"


def _load_faults(plan: Plan, devices: Sequence[str] | None) -> Iterator[str]:
    """Faults of the first job's configuration, and of it with each other value in turn."""
    from rrl.config import load

    for overrides in _variants(plan.values):
        try:
            config, _ = load("train", overrides)
        except ConfigError as error:
            yield from error.faults
            continue
        count = devices_needed(config)
        if devices and count > len(devices):
            yield f"launcher.num_processes: {count}, but there are {len(devices)} devices here: {', '.join(devices)}"


def _variants(values: Mapping[str, Sequence[str]]) -> Iterator[list[str]]:
    """The first value of every key, then each other one in its place; of many only the two ends."""
    kept = {key: texts for key, texts in values.items() if key not in NOT_HERE}
    first = {key: texts[0] for key, texts in kept.items() if texts}
    yield list(first.values())
    for key, texts in kept.items():
        for text in texts[1:] if len(texts) <= 20 else texts[-1:]:
            yield list({**first, key: text}.values())


def _launch(plan: Plan, started: Sweep, tell: Callable[[str], None]) -> int:
    """Run Hydra in a process of its own and tell what becomes of the jobs; its exit code.

    In a session of its own, so that a terminal's Ctrl-C reaches no launcher's worker.
    """
    overrides = [*plan.texts, *plan.hydra, f"hydra.sweep.dir={quoted(plan.folder)}"]
    with (plan.folder / "launcher.log").open("wb") as log, _stopping(started, tell):
        launcher = subprocess.Popen(
            [*LAUNCH, "--multirun", *overrides],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            return _watch(launcher, plan.folder, tell)
        finally:
            if launcher.poll() is None:
                os.killpg(launcher.pid, signal.SIGKILL)
                launcher.wait()


def _watch(launcher: "subprocess.Popen[bytes]", folder: Path, tell: Callable[[str], None]) -> int:
    """A line whenever a job's state is another than before; the launcher's exit code when it ends."""
    states: dict[str, str] = {}
    while True:
        code = launcher.poll()
        jobs = read_jobs(folder)
        for job in jobs:
            if states.get(job.name) != job.state:
                tell(f"  {job.name}: {job.state}")
        states = {job.name: job.state for job in jobs}
        if code is not None:
            return code
        time.sleep(PAUSE)


@contextmanager
def _stopping(started: Sweep, tell: Callable[[str], None]) -> Iterator[None]:
    """Turn signals into requests to stop: at the first the jobs save, at the second they are killed."""

    def ask(number: int, frame: object) -> None:
        started.stop_file.parent.mkdir(exist_ok=True)
        with started.stop_file.open("ab") as file:
            file.write(b".")
        if started.stops() > 2:
            raise KeyboardInterrupt
        tell(
            "stopping: running jobs save and end; once more kills them" if started.stops() == 1 else "killing the jobs"
        )

    caught = [s for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if signal.getsignal(s) is not signal.SIG_IGN]
    before = {number: signal.signal(number, ask) for number in caught}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _exit_code(code: int, started: Sweep, tell: Callable[[str], None]) -> int:
    """That of the sweep; a launcher that failed is told."""
    folder = Path(started.folder)
    if code:
        tell(f"\nthe launcher ended with code {code}: {last_line(folder / 'launcher.log')} ({folder / 'launcher.log'})")
    if started.stops():
        return 130
    jobs = read_jobs(folder)
    return int(bool(code) or not jobs or any(job.state != "finished" for job in jobs))
