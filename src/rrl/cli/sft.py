"""rrl-sft: supervised training on a task's references; the result is cached by content."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rrl.cli import shell

if TYPE_CHECKING:
    from pathlib import Path

HELP = """
rrl-sft trains a model on the references of a task, by the warmstart.* keys, and prints the folder it is in.
The same model, data and settings are not trained twice. With run.dir=DIR the result is also copied there.

  rrl-sft                                      the warm start of the embedded default
  rrl-sft task=gsm8k data.path=DIR model=hf model.path=Qwen/Qwen2.5-0.5B warmstart.steps=200
"""


def main() -> None:
    """Entry point."""
    sys.exit(shell.run(_sft, HELP))


def _sft(arguments: Sequence[str]) -> None:
    from rrl.config.check import load
    from rrl.contracts import border
    from rrl.records.display import display
    from rrl.runs.assemble import warm_start

    config, parts = load("train", _with_warm_start(arguments), judging=False)
    parts.run.cache()
    parts.run.limit_threads()
    target = None if parts.run.dir is None else parts.run.choose("sft")
    bar = display("sft")
    bar.begin(config["data"]["name"])
    loaded = parts.model.load(border.vocabulary(parts.task))
    _, folder = warm_start(loaded, parts, bar.advance)
    bar.close()
    if target is not None:
        _copy(folder, target)
    print(target or folder)


def _copy(folder: "Path", target: "Path") -> None:
    """Also into the folder that was asked for; where that fails, nothing is lost."""
    import shutil

    from rrl.errors import StorageError

    try:
        shutil.copytree(folder, target, dirs_exist_ok=True)
    except OSError as error:
        why = " ".join(str(error).split())[:200]
        raise StorageError(
            f"run.dir: {str(target)!r} takes no copy ({why}); the model is in {str(folder)!r}"
        ) from error


def _with_warm_start(arguments: Sequence[str]) -> list[str]:
    """The arguments, with ``warmstart=sft`` where they leave the warm start out."""
    from rrl.config.compose import compose, groups

    choices = [a for a in arguments if a.partition("=")[0] in groups()]
    left_out = compose("train", choices).config["warmstart"] is None
    kept = [a for a in arguments if not (left_out and a.startswith("warmstart="))]
    return [*kept, "warmstart=sft"] if left_out else kept


if __name__ == "__main__":
    main()
