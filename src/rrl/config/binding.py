"""Objects from mappings: ``_target_`` names a class, the other keys are its constructor's keyword-only arguments.

An argument without its own key is taken from the top-level key, or the key of ``data``, of the same name.
"""

import inspect
import json
import math
import types
import typing
from collections.abc import Collection, Mapping
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin

from rrl.config.importing import load_class
from rrl.contracts.calling import raised
from rrl.errors import nearest, shown
from rrl.ranges import OutOfRange

BROKEN = object()
"""Stands for a part that could not be constructed: reported already, so it fits everywhere."""
SWITCHES = {"yes": "true", "on": "true", "no": "false", "off": "false"}


class Source(NamedTuple):
    """The place of a value that parts take by its name: ``prefix`` and ``key`` name it, ``owner`` is its mapping."""

    prefix: str
    key: str
    owner: Mapping[str, Any]


class Binder:
    """Makes the objects of one configuration and collects its faults in ``faults``.

    An argument that a part's own mapping lacks is taken from ``shared`` by its name; ``taken`` lists the keys used.
    """

    def __init__(self, faults: list[str], shared: Mapping[str, Source]) -> None:
        self.faults, self.shared = faults, shared
        self.taken: set[str] = set()

    def make(self, value: Any, path: str) -> Any:
        """The value with every ``_target_`` mapping in it turned into its object."""
        if isinstance(value, Mapping):
            if "_target_" in value:
                return self._construct(value, path)
            return {key: self.make(item, f"{path}.{key}") for key, item in value.items()}
        if isinstance(value, list | tuple):
            return tuple(self.make(item, f"{path}[{i}]") for i, item in enumerate(value))
        return value

    def _construct(self, node: Mapping[str, Any], path: str) -> Any:
        target = load_class(str(node["_target_"]), path, self.faults)
        known = len(self.faults)
        sources = {key: Source(f"{path}.", key, node) for key in node if key != "_target_"}
        if target is not None:
            sources |= self._shared_by(target, sources)
        arguments = {name: self.make(at.owner.get(at.key), at.prefix + at.key) for name, at in sources.items()}
        if target is None:
            return BROKEN
        hints = typing.get_type_hints(target.__init__)
        arguments = {name: _whole(value, hints.get(name, Any)) for name, value in arguments.items()}
        for name, at in sources.items():  # readers of the configuration itself get the same whole numbers
            if isinstance(at.owner, dict) and isinstance(at.owner.get(at.key), float):
                at.owner[at.key] = arguments[name]
        named = {name: at.prefix + at.key for name, at in sources.items()}
        unbound = _binding_faults(target, arguments, named, path)
        self.faults += unbound.values()
        if len(self.faults) > known:
            good = {key: value for key, value in arguments.items() if value is not BROKEN and key not in unbound}
            self.faults += [_with_key(fault, named, path) for fault in _range_faults(target, good)]
            return BROKEN
        try:
            return target(**arguments)
        except ValueError as error:
            self.faults += [_with_key(fault, named, path) for fault in _faults_of(error, target, arguments)]
        except (TypeError, LookupError, ArithmeticError, AttributeError, NameError, OSError, RuntimeError) as error:
            self.faults.append(f"{path}: {target.__qualname__} could not be made ({raised(error)}); fix this class")
        return BROKEN

    def _shared_by(self, target: Any, given: Collection[str]) -> dict[str, Source]:
        """The sources of arguments that the part's own mapping lacks and that are shared."""
        lacking = [name for name in inspect.signature(target).parameters if name not in given and name in self.shared]
        found = {name: self.shared[name] for name in lacking}
        self.taken |= {at.prefix + at.key for at in found.values()}
        return found


def _with_key(fault: str, named: Mapping[str, str], path: str) -> str:
    """A part's fault with an argument's name replaced by its key."""
    name, separator, rest = fault.partition(":")
    return f"{named.get(name, f'{path}.{name}')}{separator}{rest}"


def _faults_of(error: ValueError, target: Any, arguments: Mapping[str, Any]) -> list[str]:
    """The faults in ``error``, and those that the part finds with the arguments that are in their range."""
    if not isinstance(error, OutOfRange):
        return [str(error)]
    others = {key: value for key, value in arguments.items() if key not in error.names}
    return [*error.faults, *(_range_faults(target, others) if len(others) < len(arguments) else [])]


def _range_faults(target: Any, arguments: Mapping[str, Any]) -> list[str]:
    """The faults that a part's checks find in these arguments alone; none where the checks need another argument."""
    try:
        part = object.__new__(target)
        vars(part).update(arguments)
        part.__post_init__()
    except ValueError as error:
        return _faults_of(error, target, arguments)
    except Exception:  # it needs another argument
        return []
    return []


def _binding_faults(
    target: Any, arguments: Mapping[str, Any], named: Mapping[str, str], path: str
) -> dict[str, str]:  # fmt: skip
    """The fault of each argument that is missing, unknown or of a type other than the signature's."""
    parameters = inspect.signature(target).parameters
    hints = typing.get_type_hints(target.__init__)
    faults = {key: f"{path}.{key}: missing; {target.__name__} needs it" for key in parameters if key not in arguments}
    for key, value in arguments.items():
        if key not in parameters:
            hint = nearest(key, list(parameters))
            faults[key] = f"{named[key]}: {target.__name__} takes no such argument{hint}"
        elif value is not BROKEN and not _fits(value, hints.get(key, Any)):
            finite = "a finite " if isinstance(value, float) and not math.isfinite(value) else ""
            wanted = f"{finite}{_spell(hints[key])}"
            faults[key] = f"{named[key]}: expected {wanted}, got {shown(value)}{_remedy(value, hints[key])}"
    return faults


def _remedy(value: Any, hint: Any) -> str:
    """The correct form of a number or a switch that was given as a text, or of a part that was given as its keys."""
    kinds = [kind for kind in get_args(hint) or (hint,) if isinstance(kind, type) and get_origin(kind) is None]
    if isinstance(value, Mapping) and any(kind.__module__ != "builtins" for kind in kinds):
        return "; name a choice of this group, and set its keys after it"
    plain = SWITCHES.get(value.lower(), value) if isinstance(value, str) else ""
    try:
        return f"; write {plain}, without quotes" if _fits(json.loads(plain), hint) else ""
    except ValueError:
        return ""


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value is of the annotated type; an int serves as a float, a Protocol accepts any object."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return any(_fits(value, option) for option in arguments)
    if origin is Literal:
        return any(value == option and type(value) is type(option) for option in arguments)
    if origin is tuple:
        items = arguments[:1] * len(value) if isinstance(value, tuple) and Ellipsis in arguments else arguments
        return isinstance(value, tuple) and len(value) == len(items) and all(map(_fits, value, items))
    if origin is dict:
        pairs = value.items() if isinstance(value, dict) else [(None, None)]
        return all(_fits(key, arguments[0]) and _fits(item, arguments[1]) for key, item in pairs)
    if hint in (float, int):
        return _is_number(value, hint)
    if hint in (str, bool, type(None)):
        return isinstance(value, hint)
    return hint is Any or not isinstance(value, str | int | float | dict | tuple | None)


def _whole(value: Any, hint: Any) -> Any:
    """The value, with whole numbers such as 1e5 or 8.0 as int where no float is expected."""
    options = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    if isinstance(value, float):
        return int(value) if value.is_integer() and float not in options and _fits(int(value), hint) else value
    if isinstance(value, tuple) and get_origin(hint) is tuple:
        return tuple(_whole(item, get_args(hint)[0]) for item in value)
    if isinstance(value, dict) and get_origin(hint) is dict:
        return {key: _whole(item, get_args(hint)[1]) for key, item in value.items()}
    return value


def _is_number(value: Any, kind: type) -> bool:
    whole = isinstance(value, int) and not isinstance(value, bool)
    return whole or (kind is float and isinstance(value, float) and math.isfinite(value))


def _spell(hint: Any) -> str:
    """The annotation in words."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(_spell(option) for option in arguments)
    if origin is Literal:
        return " | ".join(repr(option) for option in arguments)
    if origin is tuple:
        count = "" if Ellipsis in arguments else f"{len(arguments)} "
        return f"a list of {count}{_spell(arguments[0]).replace('a list', 'lists', 1)}"
    if origin is dict:
        return f"a mapping of names to {_spell(arguments[1])}"
    return {type(None): "null"}.get(hint, getattr(hint, "__name__", str(hint)))
