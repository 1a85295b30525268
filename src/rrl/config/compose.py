"""Composing a configuration from the command line; every misspelt key and group is reported at once."""

import pickle
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from rrl.config.arguments import read
from rrl.config.choices import (
    Written,
    conf_dir,
    content,
    contents,
    files,
    group_names,
    search_path,
    take_own_parts,
    walk,
    written,
)
from rrl.config.effects import strangers, takes
from rrl.config.resolvers import next_question, register
from rrl.config.saved import on_another_task
from rrl.config.spelling import GONE, likeliest_choice, likeliest_key, other_name
from rrl.errors import ConfigError, closest, shown

ANEW = ("judge", "reward_model")
"""Groups that are chosen anew when a run is evaluated."""
WHOLE = (
    "run", "prompts", "template", "policy", "engine", "trainer", "evaluation", "sampler", "reward", "objective", "task",
    "data", "model", "algo",
)  # fmt: skip
"""The top-level keys of every run's config.yaml."""
TORN = "expected the file that the run has written; bring it back from a copy, or begin a new run"


class Composed(NamedTuple):
    """A resolved configuration, the faults of overrides that were left out, and the configuration ``before`` overrides.

    ``given`` are the keys and groups that were set, ``values`` every key with its references unresolved.
    """

    config: dict[str, Any]
    faults: list[str]
    before: dict[str, Any]
    given: list[str]
    values: dict[str, Any]


def compose(name: str, overrides: Sequence[str], only: Sequence[str] | None = None) -> Composed:
    """``conf/<name>.yaml`` under ``overrides``: ``group=choice`` and ``key=value``; a mapping replaces the old one.

    Keeps ``only`` these top-level keys (None: all). An unknown choice or key is left out and reported in ``faults``.
    Raises ConfigError when nothing can be composed.
    """
    from omegaconf import OmegaConf

    register()
    faults = take_own_parts()
    with _as_config_errors(faults):
        files = written()
        known = {group for group in _groups_of(name, files) if only is None or group in (*only, "experiment")}
        chosen, values = _divide(read(overrides, faults), known, faults)
        config = pickle.loads(_merged(name, tuple(chosen), files))
        ours = [*content(conf_dir() / f"{name}.yaml"), *(key for _, key in contents(files, own=False))]
        faults += strangers(dict(walk(_plain(config, resolve=False))), ours)
        config = config if only is None else OmegaConf.masked_copy(config, list(only))
        return _settle(config, values, faults, only, chosen)


@lru_cache(maxsize=512)
def _merged(name: str, chosen: Sequence[str], files: Written) -> bytes:
    """``conf/<name>.yaml`` with its choices, as composed by Hydra, once for these ``files``, pickled."""
    import hydra

    with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return pickle.dumps(hydra.compose(name, [search_path(), *chosen]))  # copied so faster than by deepcopy


@lru_cache
def _groups_of(name: str, files: Written) -> frozenset[str]:
    """The groups in the defaults of ``conf/<name>.yaml``; ``files`` is the key of the cache."""
    entries = content(conf_dir() / f"{name}.yaml")["defaults"]
    named = {group for entry in entries if isinstance(entry, Mapping) for group in entry}
    others = [entry for entry in entries if isinstance(entry, str) and entry != "_self_"]
    return frozenset(named & set(group_names())).union(*(_groups_of(other, files) for other in others))


def compose_run(folder: Path, overrides: Sequence[str]) -> Composed:
    """The configuration of a finished run, its model replaced by the run's actor, under ``overrides``.

    Groups in ``ANEW`` can be chosen as for a new run, and so can another task than the run's own, whose settings stay.
    Texts that end a response follow the template, as in a new run.
    """
    register()
    faults = take_own_parts()
    with _as_config_errors(faults):
        config = _saved(folder / "config.yaml")
        actor = {"path": str(folder / "actor"), "revision": None, "attention": "sdpa", "trust_remote_code": False}
        config.model, config.warmstart = {"_target_": "rrl.training.models.HuggingFace", **actor}, None
        if config.engine.get("stop") == next_question(str(config.data.get("plain_template"))):
            config.engine.stop = "${next_question:}"
        chosen, values = _divide(read(overrides, faults), (*ANEW, "task"), faults)
        chosen = [choice for choice in chosen if choice != f"task={config.data.name}"]
        config.judge = None
        fresh = pickle.loads(_merged("evaluate", tuple(chosen), written())) if chosen else config
        for group in [choice.partition("=")[0] for choice in chosen]:
            config[group] = fresh._get_node(group)  # references unresolved
        if any(choice.startswith("task=") for choice in chosen):
            config = on_another_task(config, fresh)
        return _settle(config, values, faults)


def compose_saved(file: Path, overrides: Sequence[str]) -> Composed:
    """The configuration that a run has written in ``file``, under ``overrides``."""
    faults = take_own_parts()
    with _as_config_errors(faults):
        return _settle(_saved(file), read(overrides, faults), faults)


def _saved(file: Path) -> Any:
    """A run's configuration, as saved. Raises ConfigError where it is unreadable or incomplete."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    try:
        config = OmegaConf.load(file)
        values = dict(walk(_plain(config)))
    except OmegaConfBaseException:
        raise
    except (YAMLError, OSError, ValueError, AttributeError) as error:  # no YAML, no mapping, no text, no file
        raise ConfigError(f"{file}: cannot be read ({' '.join(str(error).split())[:200]}); {TORN}") from error
    _refuse_torn(values, file)
    return config


def _refuse_torn(values: Mapping[str, Any], file: Path) -> None:
    """Raise ConfigError for an incomplete config.yaml of a run; other files pass."""
    missing = [name for name in WHOLE if name not in values]
    begun = any((file.parent / name).exists() for name in ("status.json", "manifest.json", "metrics.jsonl"))
    if missing and begun and "fit" not in values:
        raise ConfigError(f"{file}: cut off or changed (it has no {', '.join(missing)}); {TORN}")


def _divide(given: Sequence[Any], known: Collection[str], faults: list[str]) -> tuple[list[str], list[Any]]:
    """The overrides divided into choices of ``known`` groups, for Hydra, and values that are set after them."""
    choices = [o for o in given if o.key_or_group in known and not isinstance(o.value(), Mapping)]
    chosen, lost = _choose(choices, faults)
    return chosen, [o for o in given if o not in choices and o.key_or_group.split(".")[0] not in lost]


def _choose(choices: Sequence[Any], faults: list[str]) -> tuple[list[str], list[str]]:
    """The choices for Hydra, misspelt ones replaced by the nearest, and the groups of those that have none.

    Several experiments can be chosen, as in ``experiment=[a,b]``: values of later ones win.
    """
    chosen, lost = [], []
    for override in choices:
        group, wanted = override.key_or_group, override.value()
        if wanted is None and group == "experiment":
            continue
        several = group == "experiment" and isinstance(wanted, list)
        meant = [option for each in (wanted if several else [wanted]) if (option := _option(group, each, faults))]
        if meant:
            chosen.append(f"{group}=[{','.join(meant)}]" if several else f"{group}={meant[0]}")
        else:
            lost.append(group)
    return chosen, lost


def _option(group: str, wanted: Any, faults: list[str]) -> str:
    """The option of a group, the nearest one with a fault where it has no such option; "" where nothing is near."""
    options = list(files(group))
    meant = "none" if wanted is None and "none" in options else str(wanted)
    if meant not in options:
        meant = closest(meant, options) or ""
        hint = f"; did you mean {meant!r}?" if meant else ";"
        faults.append(f"{group}: no such choice {shown(wanted)}{hint} valid: {', '.join(options)}")
    return meant


def _settle(
    config: Any, values: Sequence[Any], faults: list[str], only: Sequence[str] | None = None, chosen: Sequence[str] = ()
) -> Composed:  # fmt: skip
    """Set the values whose keys ``config`` has (or that add a key by ``+``); adds a fault for each other one."""
    from omegaconf import OmegaConf

    tree, before = dict(walk(_plain(config, resolve=False))), _plain(config)
    keys = list(tree)
    OmegaConf.set_struct(config, False)
    for o in values:
        key, value = o.key_or_group, o.value()
        if key not in keys and (fault := _fault_of_new(o, tree, only)):
            faults.append(fault)
        elif isinstance(before.get(key), Mapping) and (key == "data" or not isinstance(value, Mapping)):
            settable = [k for k in keys if k.startswith(f"{key}.") and not k.endswith("_target_")]
            remedy = f"set them, as in {settable[0]}=..." if settable else "it has none to set; leave it out"
            run = f"; to go on with a run give resume={value}" if key == "run" and isinstance(value, str) else ""
            faults.append(f"{key}: expected keys of its own, got {shown(value)}; {remedy}{run}")
        else:
            OmegaConf.update(config, key, value, merge=False, force_add=True)
            OmegaConf.select(config, key)  # raises here, with this key, for a reference to a missing key
    tree = dict(walk(_plain(config, resolve=False)))
    given = [o.key_or_group for o in values] + [choice.partition("=")[0] for choice in chosen]
    return Composed(_plain(config), faults, before, [key for key in given if tree.get(key) is not None], tree)


def _fault_of_new(override: Any, tree: Mapping[str, Any], only: Sequence[str] | None) -> str | None:
    """The fault of an override whose key is not in ``tree``; None where it adds one that does not mean another."""
    key, added = override.key_or_group, override.is_add() or override.is_force_add()
    parent, _, name = key.rpartition(".")
    target = tree.get(f"{parent}._target_")
    taken = takes(target, name)
    if added and (taken or target is None or not other_name(key)):
        return None
    if taken and not {name, f"data.{name}"} & tree.keys():
        return f"{key}: not in the file of this part; add it there, or give +{key}={shown(override.value())}"
    brought = _brought(list(tree), only).get(key, "")
    if key != "judge" and brought.startswith(f"{key}="):  # a group that a saved configuration is without
        return f"{key}: it chooses a part, and a run's choices of parts stay as they are"
    return f"{key}: no such key{_suggest(key, list(tree), only)}"


def _suggest(key: str, keys: Sequence[str], only: Sequence[str] | None) -> str:
    """A hint at the probable meaning of a key that is not among ``keys``; ``only`` are the valid top-level keys."""
    if key.split(".")[0] == "judge" and "judge" not in keys:
        return "; nothing is judged here: judges belong to rrl-evaluate"
    elsewhere = _brought(keys, only)
    if key in GONE:
        return f"; {GONE[key]}"
    if key in elsewhere:
        return f"; it comes with {elsewhere[key]}"
    choice = likeliest_choice(key)
    if choice:
        return f"; did you mean {choice}?"
    meant = likeliest_key(key, keys, elsewhere)
    if meant in keys or meant in elsewhere:
        return f"; did you mean {meant!r}" + (f" (with {elsewhere[meant]})?" if meant in elsewhere else "?")
    split = [name.rpartition(".")[::2] for name in keys if not name.endswith("_target_")]
    siblings = [leaf for parent, leaf in split if parent == key.rpartition(".")[0]]
    return f"; valid: {', '.join(siblings)}" if 0 < len(siblings) <= 20 else "; --cfg prints all keys"


def _brought(keys: Collection[str], only: Sequence[str] | None) -> dict[str, str]:
    """Keys that are not among ``keys``, and the choices of the first group that brings them, as ``kl=loss|reward``."""
    choices: dict[str, str] = {}
    for choice, name in contents(written()):
        group, _, option = choice.partition("=")
        if not choice or name in keys or (only is not None and name.split(".")[0] not in only):
            continue
        if name not in choices:
            choices[name] = choice
        elif choices[name].partition("=")[0] == group:
            choices[name] += f"|{option}"
    return dict(reversed(choices.items()))  # keys of later groups are looked at first


def _plain(config: Any, *, resolve: bool = True) -> dict[str, Any]:
    from omegaconf import OmegaConf

    tree = OmegaConf.to_container(config, resolve=resolve, throw_on_missing=resolve)
    assert isinstance(tree, dict)
    return {str(key): value for key, value in tree.items()}


@contextmanager
def _as_config_errors(faults: Sequence[str]) -> Iterator[None]:
    """Turn errors of Hydra and OmegaConf into a ConfigError that also has the faults so far."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    try:
        yield
    except OmegaConfBaseException as error:
        key = f"{error.full_key}: " if error.full_key else ""
        lost = re.search(r"Interpolation key '([\w.]+)' not found", str(error))
        absent = re.search(r"Environment variable '(\w+)' not found", str(error))
        fault = str(error).split("\n")[0]
        if absent:
            fault = f"{absent[1]} is not in the environment, and its value belongs here; export {absent[1]}=..."
        elif lost:
            own = [key for choice, key in contents(written()) if not choice]
            own = [key for key in own if not key.startswith(("defaults", "hydra"))]
            fault = f"${{{lost[1]}}} refers to no key{_suggest(lost[1], own, None)}"
        raise ConfigError(*faults, key + fault) from error
    except (HydraException, YAMLError) as error:
        raise ConfigError(*faults, " ".join(str(error if error.args else error.__cause__).split())) from error
