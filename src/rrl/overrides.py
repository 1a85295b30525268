"""Composing a configuration from the command line, with every misspelt key and group told at once."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rrl.errors import ConfigError

ALIASES = {
    "learning_rate": "policy.actor_lr",
    "batch_size": "trainer.train_batch_size",
    "rollout_batch_size": "trainer.train_batch_size",
    "num_generations": "trainer.n",
    "n_samples_per_prompt": "trainer.n",
    "max_steps": "trainer.total_training_steps",
    "num_ppo_epochs": "trainer.ppo_epochs",
    "cliprange": "objective.clip_ratio",
    "init_kl_coef": "objective.kl_coef",
    "beta": "objective.kl_coef",
    "response_length": "data.max_response_length",
    "max_completion_length": "data.max_response_length",
    "model_name_or_path": "model.path",
    "pretrain": "model.path",
}
"""What TRL, OpenRLHF and verl call a thing, and what it is called here."""


def conf_dir() -> Path:
    """The folder of configurations: the checkout's, or the one that was installed with the package."""
    here = Path(__file__).resolve().parent
    checkout = here.parents[1] / "conf"
    return checkout if (checkout / "train.yaml").is_file() else here / "conf"


def compose(name: str, overrides: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """``conf/<name>.yaml`` under ``overrides``, resolved to plain data, and the faults of overrides left out.

    Raises ConfigError when nothing can be composed: an override that cannot be parsed, a choice that is not there.
    """
    import hydra
    from omegaconf import OmegaConf

    with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"), _told():
        parsed = _parse(overrides)
        choices = [o for o in parsed if _is_choice(o)]
        bad = [fault for o in choices for fault in _choice_faults(o.key_or_group, o.value())]
        if bad:
            raise ConfigError(*bad)
        base = OmegaConf.to_container(hydra.compose(name, [str(o.input_line) for o in choices]))
        known, faults = _sift([o for o in parsed if o not in choices], base)
        config = hydra.compose(name, [str(o.input_line) for o in (*choices, *known)])
        return _plain(config), faults


def compose_run(folder: Path, overrides: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """The configuration a run was made with, its model replaced by the run's actor, under ``overrides``."""
    from omegaconf import OmegaConf

    if not (folder / "config.yaml").is_file() or not (folder / "actor").is_dir():
        raise ConfigError(f"from_run: {str(folder)!r} holds no finished run; expected config.yaml and actor/")
    with _told():
        config = OmegaConf.load(folder / "config.yaml")
        actor = {"path": str(folder / "actor"), "revision": None, "attention": "sdpa", "trust_remote_code": False}
        config.model, config.warmstart = {"_target_": "rrl.models.HuggingFace", **actor}, None
        known, faults = _sift(_parse(overrides), OmegaConf.to_container(config))
        for o in known:
            OmegaConf.update(config, o.key_or_group, o.value())
        return _plain(config), faults


def _parse(overrides: Sequence[str]) -> list[Any]:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    return list(OverridesParser.create().parse_overrides(list(overrides)))


def _plain(config: Any) -> dict[str, Any]:
    from omegaconf import OmegaConf

    resolved = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    assert isinstance(resolved, dict)
    return {str(key): value for key, value in resolved.items()}


@contextmanager
def _told() -> Iterator[None]:
    """Turn the complaints of Hydra and OmegaConf into ConfigError."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(" ".join(str(error if error.args else error.__cause__).split())) from error


def nearest(name: str, valid: Sequence[str]) -> str:
    """``"; did you mean 'x'?"`` with the valid name closest to ``name``, or a list of all when none is close."""
    likeness = {candidate: _likeness(name, candidate) for candidate in valid}
    best = max(likeness, key=lambda candidate: likeness[candidate], default="")
    if best and likeness[best] >= 0.6:
        return f"; did you mean {best!r}?"
    return f"; valid: {', '.join(sorted(valid))}" if len(valid) <= 20 else ""


def _likeness(name: str, candidate: str) -> float:
    """How alike two names are, 0 to 1; a single word of the candidate may do, at a small discount."""
    whole = difflib.SequenceMatcher(None, name, candidate).ratio()
    words = [difflib.SequenceMatcher(None, name, word).ratio() for word in candidate.split("_")]
    return max(whole, 0.95 * max(words))


def _sift(parsed: Sequence[Any], base: Any) -> tuple[list[Any], list[str]]:
    """The overrides whose keys ``base`` has (or that add one by ``+``), and a fault for each other one."""
    keys = list(_leaves(base, ""))
    known = [
        o
        for o in parsed
        if o.key_or_group in keys or o.is_add() or o.is_force_add() or o.key_or_group.startswith("hydra.")
    ]
    unknown = [o.key_or_group for o in parsed if o not in known]
    return known, [f"{key}: no such key{_suggest(key, keys)}" for key in unknown]


def groups() -> dict[str, list[str]]:
    """Every configuration group and its options."""
    folders = [path for path in conf_dir().iterdir() if path.is_dir()]
    return {
        folder.name: sorted(str(file.relative_to(folder.resolve()).with_suffix("")) for file in _yamls(folder))
        for folder in folders
    }


def _yamls(folder: Path) -> list[Path]:
    """Configurations below a group's folder; results of experiments are none."""
    return [file for file in folder.resolve().glob("**/*.yaml") if "results" not in file.parts]


def _is_choice(override: Any) -> bool:
    return override.key_or_group in groups() and not isinstance(override.value(), Mapping)


def _choice_faults(group: str, choice: Any) -> list[str]:
    options = groups()[group]
    if choice is None or str(choice) in options:
        return []
    return [f"{group}: no such choice {choice!r}{nearest(str(choice), options)} (valid: {', '.join(options)})"]


def _leaves(node: Any, path: str) -> Iterator[str]:
    """Every key of a configuration, inner nodes included, dotted."""
    if path:
        yield path
    if isinstance(node, Mapping):
        for key, item in node.items():
            yield from _leaves(item, f"{path}.{key}" if path else str(key))


def _suggest(key: str, keys: Sequence[str]) -> str:
    leaf = key.rsplit(".", 1)[-1]
    if leaf in ALIASES:
        return f"; did you mean {ALIASES[leaf]!r}?"
    same_leaf = [candidate for candidate in keys if candidate.rsplit(".", 1)[-1] == leaf]
    if same_leaf:
        return f"; did you mean {same_leaf[0]!r}?"
    siblings = [candidate for candidate in keys if candidate.rpartition(".")[0] == key.rpartition(".")[0]]
    by_leaf = {candidate.rsplit(".", 1)[-1]: candidate for candidate in siblings or keys}
    best = max(by_leaf, key=lambda candidate: _likeness(leaf, candidate))
    return f"; did you mean {by_leaf[best]!r}?" if _likeness(leaf, best) >= 0.6 else nearest(key, keys)
