"""rrl-sft: supervised training on a task's references; the result is cached by content."""

import shutil
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rrl.cli import shell
from rrl.errors import StorageError

if TYPE_CHECKING:
    from pathlib import Path

    from rrl.config.check import Parts

HELP = """
rrl-sft trains a model on the references of a task, with the warmstart.* keys, and prints the model's folder.
The same model, data and settings are not trained twice. With run.dir=DIR the result is also copied there.

  rrl-sft                                      the warm start of the built-in task
  rrl-sft task=gsm8k data.path=DIR model=hf model.path=Qwen/Qwen2.5-0.5B warmstart.steps=200
"""


def main() -> None:
    sys.exit(shell.run_command(_sft, HELP))


def _sft(arguments: Sequence[str]) -> None:
    from rrl.config.check import load

    config, parts = load("train", _with_warm_start(arguments), starting=())
    parts.run.limit_threads()
    target = None if parts.run.dir is None else parts.run.choose("sft")
    folder = warm_up(parts, "sft", config["data"]["name"])
    if target is not None:
        _copy(folder, target)
    print(target or folder)


def warm_up(parts: "Parts", name: str, phase: str) -> "Path":
    """Train the warm start under a bar of this name, or find it in the cache; returns its folder."""
    from rrl.contracts import border
    from rrl.records.display import display
    from rrl.records.run_directory import cache
    from rrl.runs.assemble import warm_start

    cache()
    bar = display(name)
    bar.begin(phase)
    _, folder = warm_start(parts.model.load(border.vocabulary(parts.task)), parts, bar.advance)
    bar.close()
    return folder


def _copy(folder: "Path", target: "Path") -> None:
    """Copy the model to ``run.dir``; raises StorageError with the original folder, so that nothing is lost."""
    try:
        shutil.copytree(folder, target, dirs_exist_ok=True)
    except OSError as error:
        why = " ".join(str(error).split())[:200]
        raise StorageError(
            f"run.dir: {str(target)!r} cannot be written ({why}); the model is in {str(folder)!r}"
        ) from error


def _with_warm_start(arguments: Sequence[str]) -> list[str]:
    """The arguments, with ``warmstart=sft`` where they imply no warm start."""
    from rrl.config.choices import groups
    from rrl.config.compose import compose

    choices = [a for a in arguments if a.partition("=")[0] in groups()]
    if compose("train", choices).config["warmstart"] is not None:
        return list(arguments)
    return [*(a for a in arguments if not a.startswith("warmstart=")), "warmstart=sft"]


if __name__ == "__main__":
    main()
