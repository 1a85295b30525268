"""The common parts of all commands: help, faults without a traceback, exit codes."""

import errno
import gc
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
from rrl.processes.stopping import Interrupted, heeding_interrupts
from rrl.records.secrecy import redacted
from rrl.records.texts import visible

QUIET = {
    "DS_ACCELERATOR_LOG": "0",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
}
"""Environment variables of other libraries; a user's own setting takes precedence."""
COLLECT = 100_000
"""New objects between collections of garbage. Imports make a million that stay: with Python's 700, searching them again
and again takes a fifth of a command's start."""


FULL = "make room, or write to another disk; what was written before stays"
DENIED = "expected a path that this user may read and write; give another one, or change its permissions"
REFUSED = {
    errno.ENOSPC: (1, FULL),
    errno.EDQUOT: (1, FULL),
    errno.ENAMETOOLONG: (2, "expected a name of at most 255 bytes; give a shorter one"),
    errno.EACCES: (2, DENIED),
    errno.EROFS: (2, DENIED),
    errno.ENOTDIR: (2, "expected a folder; give another path"),
    errno.EISDIR: (2, "expected a file; give another path"),
}
"""Exit code and remedy of what the system refuses wherever a file is touched, by the number of the error."""


def run_command(command: Callable[[Sequence[str]], None], help_text: str) -> int:
    """Run a command on the arguments; 0 done, 1 training failed, 2 a fault of the input, 130 interrupted."""
    open_streams()
    arguments = sys.argv[1:]
    if any(argument in ("-h", "--help") for argument in arguments):
        return printed(lambda: _print_help(help_text))
    quieten()
    with heeding_interrupts() as interrupted:
        code = printed(lambda: guarded(lambda: command(arguments)))
    return 130 if code == 0 and interrupted() else code


def _print_help(help_text: str) -> int:
    from rrl.config.choices import groups

    rows = [f"  {group}={'|'.join(options)}" for group, options in sorted(groups().items()) if options]
    print("\n".join([help_text.strip(), "", "Choices:", *rows]))
    return 0


def guarded(work: Callable[[], None]) -> int:
    """Do the work and return the exit code; faults that a user can fix are printed without a traceback."""
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
    except OSError as error:
        if error.errno not in REFUSED:
            raise
        code, remedy = REFUSED[error.errno]
        print(visible(redacted(f"cannot read or write:\n  {error}; {remedy}")), file=sys.stderr)
        return code
    return 0


def options(arguments: Sequence[str], names: Sequence[str]) -> tuple[dict[str, str | None], list[str]]:
    """The values of ``name=...``, None without one, and the other arguments. Raises ConfigError for several values."""
    found: dict[str, str | None] = dict.fromkeys(names)
    for name in names:
        values = [argument.partition("=")[2] for argument in arguments if argument.startswith(f"{name}=")]
        if len(values) > 1:
            raise ConfigError(f"{name}: given twice, as {values[0]!r} and {values[1]!r}; keep one")
        if values == [""]:
            raise ConfigError(f"{name}: empty; expected a value, as in {name}=...; or omit it")
        found[name] = values[0] if values else None
    return found, [argument for argument in arguments if not argument.startswith(tuple(f"{name}=" for name in names))]


def with_run(arguments: Sequence[str], purpose: str) -> list[str]:
    """The arguments of a command with the option ``from_run``; a folder alone becomes its value.

    Raises ConfigError for another command's option for a run; ``purpose`` is this command's verb.
    """
    names = ("run.dir", "run", "resume", "run_dir")
    faults = [
        f"{name}: {value!r}, but this command neither writes nor resumes a run; to {purpose} the run in it give "
        f"from_run={value}"
        for name, _, value in (argument.partition("=") for argument in arguments)
        if name in names and value
    ]
    if faults:
        raise ConfigError(*faults)
    alone = [text for text in arguments if not text.startswith("-") and ("=" not in text or os.path.isdir(text))]
    return [f"from_run={text}" if text in alone else text for text in arguments]


def new_file(name: str, value: str | None) -> Path | None:
    """The file that an option names; raises ConfigError when it exists or cannot be written."""
    from rrl.records.run_directory import writable

    if value is None:
        return None
    file = Path(value).expanduser()
    if file.exists():
        raise ConfigError(f"{name}: {str(file)!r} exists; expected a new file; give another name or move it away")
    writable(file.parent, name)
    return file


def is_true(name: str, value: str | None) -> bool:
    """The value of a boolean option; raises ConfigError for any other value."""
    if value not in (None, "true", "false"):
        raise ConfigError(f"{name}: expected true or false, got {value!r}")
    return value == "true"


def exit_at_once(code: int) -> NoReturn:
    """End this process, one of several, without Python's shutdown, which threads of gloo sometimes abort."""
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


def quieten() -> None:
    """Set up logging, tracebacks without secrets, quiet libraries, and rare collections of garbage."""
    gc.set_threshold(COLLECT)
    set_up_logging()
    sys.excepthook = _print_traceback
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)


def _print_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    print(redacted("".join(traceback.format_exception(kind, error, trace))), end="", file=sys.stderr)
