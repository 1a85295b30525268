"""What every command has in common: help, faults without a traceback, exit codes."""

import logging
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import NoReturn

from rrl.cli.streams import open_streams, printed
from rrl.errors import ConfigError, DivergenceError, StorageError, UsageError
from rrl.processes.logs import set_up_logging
from rrl.processes.out_of_memory import OutOfMemory
from rrl.processes.stopping import Interrupted
from rrl.records.secrecy import redacted
from rrl.records.texts import visible

QUIET = {
    "DS_ACCELERATOR_LOG": "0",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
}
"""What other people's libraries read from the environment; a user's own setting wins."""


def run(command: Callable[[Sequence[str]], None], help_text: str) -> int:
    """Run a command on the arguments; 0 done, 1 training failed, 2 a fault of the input, 130 interrupted."""
    open_streams()
    arguments = sys.argv[1:]
    if any(argument in ("-h", "--help") for argument in arguments):
        return printed(lambda: _tell(help_text))
    quieten()
    return printed(lambda: guarded(lambda: command(arguments)))


def _tell(help_text: str) -> int:
    print(help_text.strip() + "\n\n" + _groups())
    return 0


def guarded(work: Callable[[], None]) -> int:
    """Do the work and return the exit code; faults that a user can mend are printed without a traceback."""
    try:
        work()
    except UsageError as error:
        print(visible(redacted(str(error))), file=sys.stderr)
        return 1 if isinstance(error, DivergenceError | OutOfMemory | StorageError) else 2
    except Interrupted as stop:
        print(stop, file=sys.stderr)
        return 130
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


def options(arguments: Sequence[str], names: Sequence[str]) -> dict[str, str | None]:
    """The values of ``name=...`` among the arguments, None where there is none. Raises ConfigError for several."""
    found: dict[str, str | None] = dict.fromkeys(names)
    for name in names:
        values = [argument.partition("=")[2] for argument in arguments if argument.startswith(f"{name}=")]
        if len(values) > 1:
            raise ConfigError(f"{name}: given twice, as {values[0]!r} and {values[1]!r}; keep one")
        if values == [""]:
            raise ConfigError(f"{name}: empty; expected a value, as in {name}=...; or leave it out")
        found[name] = values[0] if values else None
    return found


def with_run(arguments: Sequence[str], purpose: str) -> list[str]:
    """The arguments of a command that takes a run by ``from_run``; a folder alone is taken so.

    Raises ConfigError where another command's name for a run is given, with the ``purpose`` that this one has.
    """
    names = ("run.dir", "run", "resume", "run_dir")
    faults = [
        f"{name}: {value!r}, but this command writes no run and goes on with none; to {purpose} the run in it give "
        f"from_run={value}"
        for name, _, value in (argument.partition("=") for argument in arguments)
        if name in names and value
    ]
    if faults:
        raise ConfigError(*faults)
    alone = [text for text in arguments if not text.startswith("-") and ("=" not in text or Path(text).is_dir())]
    return [f"from_run={text}" if text in alone else text for text in arguments]


def without(arguments: Sequence[str], names: Sequence[str]) -> list[str]:
    """The arguments that are none of these options."""
    return [argument for argument in arguments if not argument.startswith(tuple(f"{name}=" for name in names))]


def new_file(name: str, value: str | None) -> Path | None:
    """The file that an option names; raises ConfigError unless it can be made."""
    from rrl.records.run_directory import writable

    if value is None:
        return None
    file = Path(value).expanduser()
    if file.exists():
        raise ConfigError(f"{name}: {str(file)!r} exists; expected a new file; give another name or move it away")
    writable(file.parent, name)
    return file


def is_true(name: str, value: str | None) -> bool:
    """An option that is on or off. Raises ConfigError for any other value."""
    if value not in (None, "true", "false"):
        raise ConfigError(f"{name}: expected true or false, got {value!r}")
    return value == "true"


def leave(code: int) -> NoReturn:
    """End this process, one of several, without Python's own end, in which threads of gloo now and then abort it."""
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


def quieten() -> None:
    """Our own messages at level INFO, other people's from WARNING on."""
    set_up_logging()
    sys.excepthook = _tell_bug
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)


def _tell_bug(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """A traceback as Python prints it, without secrets."""
    print(redacted("".join(traceback.format_exception(kind, error, trace))), end="", file=sys.stderr)


def _groups() -> str:
    """The choices of every configuration group."""
    from rrl.config.compose import groups

    rows = [f"  {group}={'|'.join(options)}" for group, options in sorted(groups().items()) if options]
    return "Choices:\n" + "\n".join(rows)
