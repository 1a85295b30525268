"""Runs in the sandbox, as text: calls recorded from a test, made by a program, and a test run on the values of calls.

Values pass between the processes as JSON data that keeps tuples, sets and keys of any kind apart. Only Python's library
is imported.
"""

import builtins
from collections.abc import Callable
from typing import Any

Call = list[Any]
"""A function's name, and its positional and named arguments, packed."""


def record(reference: str, functions: list[str], test: str) -> dict[str, Any]:
    """The calls of these functions that a test makes on the reference, and the value of each, packed."""
    space, calls, values = _names(reference), list[Call](), list[Any]()

    def recording(name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            calls.append([name, pack(args), pack(kwargs)])  # before the call, which may change them
            value = space[name](*args, **kwargs)
            values.append(pack(value))
            return value

        return call

    exec(test, {**space, **{name: recording(name) for name in functions}})
    return {"calls": calls, "values": values}


def perform(opening: str, program: str, calls: list[Call]) -> list[Any]:
    """The values, packed, of these calls of a program's functions, behind the text that it may build on."""
    space: dict[str, Any] = {"__builtins__": builtins, "__name__": "program"}
    for text, file in ((opening, "<prompt>"), (program, __file__)):
        exec(compile(text, file, "exec", dont_inherit=True), space)
    values = []
    for name, args, kwargs in calls:
        if name not in space:
            raise NameError(f"name {name!r} is not defined")
        values.append(pack(space[name](*unpack(args), **unpack(kwargs))))
    return values


def replay(reference: str, functions: list[str], test: str, calls: list[Call], values: list[Any]) -> str:
    """Run a test on these values of the calls; "passed", or the test's own error.

    A test that makes other calls than before has taken offence at a value, and fails too.
    """
    left = iter(zip(calls, values))  # noqa: B905 - as many of both, or the program has failed

    def replaying(name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            recorded, value = next(left, (None, None))
            assert recorded == [name, pack(args), pack(kwargs)], "other calls than those of the reference"
            return unpack(value)

        return call

    exec(test, {**_names(reference), **{name: replaying(name) for name in functions}})
    assert next(left, None) is None, "fewer calls than those of the reference"
    return "passed"


def _names(source: str) -> dict[str, Any]:
    space: dict[str, Any] = {"__builtins__": builtins, "__name__": "tests"}
    exec(source, space)
    return space


def pack(value: Any) -> Any:
    """A value as JSON data, subclasses as their base; TypeError for one that is not made of Python's plain types."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, complex):
        return {"complex": [value.real, value.imag]}
    if isinstance(value, dict):
        return {"dict": [[pack(key), pack(item)] for key, item in dict.items(value)]}
    for kind in (list, tuple, set, frozenset):
        if isinstance(value, kind):
            items = [pack(item) for item in kind.__iter__(value)]  # type: ignore[arg-type]
            return {kind.__name__: items if kind in (list, tuple) else sorted(items, key=repr)}
    raise TypeError(f"a {type(value).__name__}, which is no plain data")


def unpack(packed: Any) -> Any:
    """The value again."""
    if not isinstance(packed, dict):
        return packed
    ((kind, items),) = packed.items()
    if kind == "complex":
        return complex(*items)
    if kind == "dict":
        return {unpack(key): unpack(item) for key, item in items}
    return {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}[kind](unpack(item) for item in items)
