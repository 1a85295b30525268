"""Composing a configuration from the command line, with every misspelt key and group told at once."""

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from rrl.errors import ConfigError

ALIASES = {
    "lr": "policy.actor_lr",
    "learning_rate": "policy.actor_lr",
    "actor_learning_rate": "policy.actor_lr",
    "critic.optim.lr": "policy.critic_lr",
    "critic_learning_rate": "policy.critic_lr",
    "max_grad_norm": "policy.grad_clip",
    "max_norm": "policy.grad_clip",
    "warmup_steps": "policy.lr_warmup_steps",
    "per_device_train_batch_size": "policy.micro_batch_size",
    "micro_train_batch_size": "policy.micro_batch_size",
    "ppo_micro_batch_size_per_gpu": "policy.micro_batch_size",
    "micro_rollout_batch_size": "engine.batch_size",
    "batch_size": "trainer.train_batch_size",
    "rollout_batch_size": "trainer.train_batch_size",
    "mini_batch_size": "trainer.ppo_mini_batch_size",
    "num_generations": "trainer.n",
    "n_samples_per_prompt": "trainer.n",
    "max_steps": "trainer.total_training_steps",
    "num_train_epochs": "trainer.total_training_steps",
    "total_epochs": "trainer.total_training_steps",
    "num_ppo_epochs": "trainer.ppo_epochs",
    "max_epochs": "trainer.ppo_epochs",
    "cliprange": "objective.clip_ratio",
    "eps_clip": "objective.clip_ratio",
    "epsilon": "objective.clip_ratio",
    "value_clip": "objective.cliprange_value",
    "lambd": "objective.lam",
    "init_kl_coef": "objective.kl_coef",
    "kl_loss_coef": "objective.kl_coef",
    "beta": "objective.kl_coef",
    "whiten_rewards": "objective.normalise",
    "prompt_max_len": "data.max_prompt_length",
    "response_length": "data.max_response_length",
    "max_completion_length": "data.max_response_length",
    "generate_max_len": "data.max_response_length",
    "train_files": "data.path",
    "prompt_data": "data.path",
    "model_name_or_path": "model.path",
    "pretrain": "model.path",
    "output_dir": "run.dir",
    "default_local_dir": "run.dir",
    "save_path": "run.dir",
    "save_steps": "run.save_freq",
    "eval_steps": "run.test_freq",
}
"""What TRL, OpenRLHF and verl call a thing, and what it is called here."""


class Composed(NamedTuple):
    """A resolved configuration, the faults of overrides that were left out, and what it is without any value set.

    ``sources`` names, for each key that takes its value from another one, that other one.
    """

    config: dict[str, Any]
    faults: list[str]
    sound: dict[str, Any]
    sources: dict[str, str]

    def at_source(self, fault: str) -> str:
        """The fault with the key that a user sets in place of the key that takes its value from there."""
        key = re.split("[:, ]", fault, maxsplit=1)[0]
        for taken, source in self.sources.items():
            if key == taken or key.startswith(f"{taken}."):
                return self.at_source(source + fault[len(taken) :])
        return fault


def conf_dir() -> Path:
    """The folder of configurations: the checkout's, or the one that was installed with the package."""
    here = Path(__file__).resolve().parent
    checkout = here.parents[1] / "conf"
    return checkout if (checkout / "train.yaml").is_file() else here / "conf"


def compose(name: str, overrides: Sequence[str]) -> Composed:
    """``conf/<name>.yaml`` under ``overrides``: ``group=choice`` and ``key=value``; a mapping replaces the old one.

    A choice or key that is not there is left out and told. Raises ConfigError when nothing can be composed.
    """
    import hydra

    faults: list[str] = []
    with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"), _told(faults):
        given = _read(overrides, faults)
        choices = [o for o in given if _is_choice(o)]
        chosen, lost = _choose(choices, faults)
        values = [o for o in given if o not in choices and o.key_or_group.split(".")[0] not in lost]
        return _settle(hydra.compose(name, chosen), values, faults)


def compose_run(folder: Path, overrides: Sequence[str]) -> Composed:
    """The configuration a run was made with, its model replaced by the run's actor, under ``overrides``."""
    from omegaconf import OmegaConf

    if not (folder / "config.yaml").is_file() or not (folder / "actor").is_dir():
        raise ConfigError(
            f"from_run: {str(folder)!r} holds no finished run; expected a folder with config.yaml and actor/; "
            "give the run.dir of a run that came to its end"
        )
    faults: list[str] = []
    with _told(faults):
        config = OmegaConf.load(folder / "config.yaml")
        actor = {"path": str(folder / "actor"), "revision": None, "attention": "sdpa", "trust_remote_code": False}
        config.model, config.warmstart = {"_target_": "rrl.models.HuggingFace", **actor}, None
        return _settle(config, _read(overrides, faults), faults)


def _read(overrides: Sequence[str], faults: list[str]) -> list[Any]:
    """The overrides that can be read, one a key."""
    read: dict[str, Any] = {}
    for text in overrides:
        override = _parse(text)
        if isinstance(override, str):
            faults.append(override)
            continue
        before = read.setdefault(override.key_or_group, override)
        if before.input_line != text:
            faults.append(f"{override.key_or_group}: given twice, as {before.input_line!r} and {text!r}; keep one")
    return list(read.values())


def _parse(text: str) -> Any:
    """The override, or what is wrong with it."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    if text.startswith("-"):
        return f"{text}: no such option; expected key=value, or --help"
    try:
        override = OverridesParser.create().parse_override(text)
    except HydraException:
        override = None
    if override is None or override.package or not override.key_or_group:
        example = "\"template.text='Q: {question}'\""
        return f"{text!r}: cannot be read; expected key=value; quote special characters, as in {example}"
    if override.is_delete():
        return f"{text}: a key cannot be taken away; set it to another value, such as null"
    if override.is_sweep_override():
        return f"{text}: several values, expected one; give a list as key=[a,b], or start one run for each"
    return override


def _choose(choices: Sequence[Any], faults: list[str]) -> tuple[list[str], list[str]]:
    """The choices for Hydra, a misspelt one replaced by the nearest, and the groups for which there is none near."""
    chosen, lost = [], []
    for override in choices:
        group, wanted = override.key_or_group, override.value()
        options = groups()[group]
        meant = "none" if wanted is None and "none" in options else str(wanted)
        if wanted is None and group == "experiment":
            continue
        if meant not in options:
            near = closest(meant, options)
            hint = f"; did you mean {near!r}?" if near else ";"
            faults.append(f"{group}: no such choice {shown(wanted)}{hint} valid: {', '.join(options)}")
            meant = near or ""
        if meant:
            chosen.append(f"{group}={meant}")
        else:
            lost.append(group)
    return chosen, lost


def _settle(config: Any, values: Sequence[Any], faults: list[str]) -> Composed:
    """Set the values whose keys ``config`` has (or that add one by ``+``), with a fault for each other one."""
    from omegaconf import OmegaConf

    keys = list(_leaves(OmegaConf.to_container(config), ""))
    sound = _plain(config)
    OmegaConf.set_struct(config, False)
    for o in values:
        key, value = o.key_or_group, o.value()
        if key not in keys and not o.is_add() and not o.is_force_add():
            faults.append(f"{key}: no such key{_suggest(key, keys)}")
        elif isinstance(sound.get(key), Mapping) and not isinstance(value, Mapping):
            example = next(k for k in keys if k.startswith(f"{key}.") and not k.endswith("_target_"))
            faults.append(f"{key}: expected keys of its own, got {shown(value)}; set them, as in {example}=...")
        else:
            OmegaConf.update(config, key, value, merge=False, force_add=True)
    return Composed(_plain(config), faults, sound, dict(_sources(OmegaConf.to_container(config), "")))


def _sources(node: Any, path: str) -> Iterator[tuple[str, str]]:
    """Every key whose whole value is another key's, and that key."""
    if isinstance(node, Mapping):
        for key, item in node.items():
            yield from _sources(item, f"{path}.{key}" if path else str(key))
    elif isinstance(node, str) and (taken := re.fullmatch(r"\$\{([\w.]+)\}", node)):
        yield path, taken[1]


def _plain(config: Any) -> dict[str, Any]:
    from omegaconf import OmegaConf

    resolved = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    assert isinstance(resolved, dict)
    return {str(key): value for key, value in resolved.items()}


@contextmanager
def _told(faults: Sequence[str]) -> Iterator[None]:
    """Turn the complaints of Hydra and OmegaConf into a ConfigError that also has the faults so far."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError  # type: ignore[import-untyped]

    try:
        yield
    except OmegaConfBaseException as error:
        key = f"{error.full_key}: " if error.full_key else ""
        raise ConfigError(*faults, key + str(error).split("\n")[0]) from error
    except (HydraException, YAMLError) as error:
        raise ConfigError(*faults, " ".join(str(error if error.args else error.__cause__).split())) from error


def shown(value: Any) -> str:
    """A value as a user would write it."""
    if isinstance(value, tuple):
        value = list(value)
    return "null" if value is None else repr(value)


def nearest(name: str, valid: Sequence[str]) -> str:
    """``"; did you mean 'x'?"`` with the valid name closest to ``name``, or a list of all when none is close."""
    near = closest(name, valid)
    if near:
        return f"; did you mean {near!r}?"
    return f"; valid: {', '.join(sorted(valid))}" if len(valid) <= 20 else ""


def closest(name: str, valid: Sequence[str]) -> str | None:
    """The valid name most like ``name``, if any is like it."""
    best = max(valid, key=lambda candidate: _likeness(name, candidate), default="")
    return best if best and _likeness(name, best) >= 0.6 else None


def _likeness(name: str, candidate: str) -> float:
    """How alike two names are, 0 to 1; a single word of the candidate may do, at a small discount."""
    whole = difflib.SequenceMatcher(None, name, candidate).ratio()
    words = [difflib.SequenceMatcher(None, name, word).ratio() for word in candidate.split("_")]
    return max(whole, 0.95 * max(words))


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


def _leaves(node: Any, path: str) -> Iterator[str]:
    """Every key of a configuration, inner nodes included, dotted."""
    if path:
        yield path
    if isinstance(node, Mapping):
        for key, item in node.items():
            yield from _leaves(item, f"{path}.{key}" if path else str(key))


def _suggest(key: str, keys: Sequence[str]) -> str:
    """What a key that is not among ``keys`` probably meant."""
    elsewhere = {name: choice for name, choice in _keys_of_choices(conf_dir()).items() if name not in keys}
    if key in elsewhere:
        return f"; it comes with {elsewhere[key]}"
    meant = _alias(key) or _same_end(key, [*keys, *elsewhere]) or _likest(key, keys)
    if meant:
        return f"; did you mean {meant!r}" + (f" (with {elsewhere[meant]})?" if meant in elsewhere else "?")
    split = [name.rpartition(".")[::2] for name in keys if not name.endswith("_target_")]
    siblings = [leaf for parent, leaf in split if parent == key.rpartition(".")[0]]
    return f"; valid: {', '.join(siblings)}" if 0 < len(siblings) <= 20 else "; rrl-train --cfg prints all keys"


@cache
def _keys_of_choices(folder: Path) -> dict[str, str]:
    """Every key that a choice of a group brings, and the first such choice."""
    from omegaconf import OmegaConf

    found: dict[str, str] = {}
    for group, options in groups().items():
        for option in options if group != "experiment" else []:
            file = folder / group / f"{option}.yaml"
            tree = OmegaConf.to_container(OmegaConf.load(file))
            whole = file.read_text(encoding="utf-8").startswith("# @package _global_")
            for key in _leaves(tree if whole else {group: tree}, ""):
                if not key.endswith(("_target_", "defaults")):
                    found.setdefault(key, f"{group}={option}")
    return found


def _alias(key: str) -> str | None:
    """What another library's name for a key is called here; the longest known end of ``key`` counts."""
    known = [name for name in ALIASES if f".{key}".endswith(f".{name}")]
    return ALIASES[max(known, key=len)] if known else None


def _same_end(key: str, keys: Sequence[str]) -> str | None:
    """The first key that ends in the same two words as ``key``, or in the same one."""
    for words in (2, 1):
        end = key.split(".")[-words:]
        for candidate in keys:
            if len(end) == words and candidate.split(".")[-words:] == end:
                return candidate
    return None


def _likest(key: str, keys: Sequence[str]) -> str | None:
    """The key, or the key of the alias, whose last word is most like that of ``key``; siblings have a start."""
    parent, _, leaf = key.rpartition(".")
    scores = {name: _likeness(leaf, name.rpartition(".")[2]) for name in keys}
    scores |= {name: score + 0.15 for name, score in scores.items() if name.rpartition(".")[0] == parent}
    for alias, name in ALIASES.items():
        scores[name] = max(scores.get(name, 0.0), _likeness(leaf, alias))
    best = max(scores, key=lambda name: scores[name])
    return best if scores[best] >= 0.75 else None
