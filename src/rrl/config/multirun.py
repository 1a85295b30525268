"""Hydra's part of a sweep: its settings, the values of each override, and its jobs."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rrl.config.arguments import parsed
from rrl.config.choices import conf_dir, search_path
from rrl.errors import ConfigError, shown


class Handed(NamedTuple):
    """A job from Hydra: the sweep's directory, the job's number, and its overrides."""

    folder: Path
    number: int
    overrides: Sequence[str]


def hand_out(task: Callable[[Any], Any]) -> None:
    """Hydra expands ``sys.argv`` and passes each job's configuration to ``task``, through its launcher."""
    import hydra

    hydra.main(config_path=str(conf_dir()), config_name="train", version_base="1.3")(task)()


def handed() -> Handed:
    """This process's job."""
    from hydra.core.hydra_config import HydraConfig

    about = HydraConfig.get()
    return Handed(Path(about.sweep.dir), int(about.job.num), list(about.overrides.task))


def settings(overrides: Sequence[str]) -> tuple[Any, Any]:
    """Hydra's own settings (launcher, directory), and the unresolved ones of a search, None without one."""
    import hydra
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from omegaconf import OmegaConf

    with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
        options = {"hydra/launcher": GlobalHydra.instance().config_loader().get_group_options("hydra/launcher")}
        missing = [fault for text in overrides for fault in _missing(text, options)]
        if missing:
            raise ConfigError(*missing)
        try:
            config = hydra.compose("train", [*overrides, search_path()], return_hydra_config=True)
        except HydraException as error:
            cause = str(error.__cause__).split("\n")[0] if error.__cause__ else ""
            raise ConfigError(" ".join(f"hydra: {error} {cause}".split())) from error
    return config.hydra, OmegaConf.to_container(config.search) if config.search else None


def _missing(text: str, options: Mapping[str, Sequence[str]]) -> list[str]:
    """The fault of choosing a plug-in that is not installed."""
    group, _, choice = text.partition("=")
    if group == "hydra/sweeper" and choice != "basic":
        return [f"{text}: no such choice; expected none; to have values chosen give search=optuna"]
    if group not in options or choice in options[group]:
        return []
    installed = ", ".join(options[group])
    return [
        f"{group}: no such choice {shown(choice)}; installed: {installed}; joblib and submitit come with "
        "pip install -e '.[sweep]'"
    ]


def values_of(texts: Sequence[str]) -> dict[str, list[str]]:
    """The overrides of jobs by key: one for a fixed key; an interval's ends and one between for an interval."""
    from hydra.errors import HydraException

    values: dict[str, list[str]] = {}
    for text in texts:
        try:
            override = parsed(text)
            key, each = override.get_key_element(), _each(override)
        except HydraException:
            key, each = text, [text]
        # The configuration's own check reports overrides that are unreadable or given twice.
        values[text if key in values else key] = each
    return values


def _each(override: Any) -> list[str]:
    """The override with each of its values."""
    key, value = override.get_key_element(), override.value()
    if not override.is_sweep_override():
        return [str(override.input_line)]
    if override.is_interval_sweep():
        inside = value.start + 0.618 * (value.end - value.start)
        values = (value.start, int(inside) if isinstance(value.start, int) else inside, value.end)
        return [f"{key}={number}" for number in values]
    return [f"{key}={text}" for text in override.sweep_string_iterator()]
