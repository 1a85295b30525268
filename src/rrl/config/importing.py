"""Importing a class by its dotted name, and the reasons for failure: no such module, a line that fails, no class."""

import importlib
import inspect
import os
import typing
from types import ModuleType
from typing import Any

from rrl.contracts.calling import raised
from rrl.errors import closest
from rrl.processes.environment import OWN

FORM = "expected package.module.Class"


def load_class(name: str, path: str, faults: list[str]) -> Any:
    """The class that ``_target_`` at ``path`` names; None, with a fault, where it cannot be imported."""
    try:
        return _imported_class(name)
    except LookupError as error:
        faults.append(f"{path}._target_: {name!r} {error.args[0]}")
        return None


def _imported_class(name: str) -> Any:
    """Raises LookupError with the reason."""
    place, _, attribute = name.rpartition(".")
    module = _module(place)
    if not hasattr(module, attribute):
        near = closest(attribute, [key for key, value in vars(module).items() if isinstance(value, type)])
        where = getattr(module, "__file__", None) or "built in"
        hint = f"; did you mean '{place}.{near}'?" if near else ""
        raise LookupError(f"cannot be imported (module {place!r}, {where}, has no {attribute!r}); {FORM}{hint}")
    found = getattr(module, attribute)
    if not isinstance(found, type):
        raise LookupError(f"is no class; {FORM}")
    try:
        inspect.signature(found), typing.get_type_hints(found.__init__)  # type: ignore[misc]
    except (NameError, TypeError, ValueError, AttributeError) as error:
        raise LookupError(
            f"has a constructor whose arguments cannot be read ({error}); expected each with a type that can be "
            "looked up when the module runs"
        ) from error
    return found


def _module(place: str) -> ModuleType:
    """Raises LookupError with the reason, for any error of the module's own code too."""
    if not place or place.startswith("."):
        raise LookupError(f"cannot be imported (Empty module name); {FORM}")
    try:
        return importlib.import_module(place)
    except (Exception, SystemExit) as error:
        absent = error.name if isinstance(error, ModuleNotFoundError) else None
        if absent and f"{place}.".startswith(f"{absent}."):
            raise LookupError(f"cannot be imported ({error}); {FORM}{_where_to_look(place)}") from error
        raise LookupError(
            f"cannot be imported ({raised(error)}); expected a module that can be imported; fix it"
        ) from error


def _where_to_look(place: str) -> str:
    """The remedy for a module that does not exist."""
    if place.startswith("rrl."):
        return ""
    own = os.environ.get(OWN)
    now = f"is {own!r}" if own else "is not set"
    return f", installed or in a folder that {OWN} names; {OWN} {now}: export {OWN}=FOLDER, where the module lies"
