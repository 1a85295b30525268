"""rrl-train: compose, check, train."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rrl.cli import shell
from rrl.errors import ConfigError

HELP = """
rrl-train trains a language model by reinforcement learning, with or without retrospective replay.

  rrl-train                                    the built-in task, a tiny model, RRL
  rrl-train algo=ppo seed=1                    its baseline
  rrl-train task=gsm8k model=hf model.path=Qwen/Qwen2.5-0.5B data.path=DIR
  rrl-train ... launcher.num_processes=2       two processes; torchrun and srun may start them as well
  rrl-train ... dry_run=true                   print the plan of the run and its memory, and exit
  rrl-train resume=RUN                         continue a run from its last checkpoint
  rrl-train ... run.dir=RUN resume=auto        the same if RUN holds a run, else begin it
  rrl-train -m algo=ppo,rrl seed=0,1,2         a run for each combination, in separate processes
  rrl-train -m resume=SWEEP                    continue a sweep
  rrl-train --cfg                              print the composed configuration and exit
  rrl-train --completion bash                  print the completion script for bash, zsh or fish

Every key of the configuration can be set as key=value; for a misspelt one the nearest valid name is shown.
"""
OPTIONS = ("resume", "dry_run")
"""Arguments of the form key=value that are not keys of the configuration."""


LaunchRequest = tuple[dict[str, Any], Any, Path]
"""A checked configuration, its parts, and the run's directory."""


def main() -> None:
    sys.exit(shell.run_command(_train, HELP))


def _train(arguments: Sequence[str]) -> None:
    if arguments and arguments[0] in ("--completion", "--complete"):
        from rrl.cli.completion import answer

        print(answer(*arguments[:2]), end="")
        return
    if {"-m", "--multirun"} & set(arguments):
        from rrl.study.sweeps import sweep

        sys.exit(sweep(arguments, show=print))
    from rrl.processes.launch import started_by_others

    if started_by_others():
        from rrl.cli.worker import work_together

        def choose() -> tuple[dict[str, Any], Path] | None:
            request = _request(arguments)
            if request is None:
                return None
            config, _, folder = request
            return config, folder

        shell.exit_at_once(shell.guarded(lambda: work_together(choose)))
    request = _request(arguments)
    if request is not None:
        _start_training(*request)


def _request(arguments: Sequence[str]) -> LaunchRequest | None:
    """The run that the arguments request; None after printing a configuration or a plan instead."""
    from rrl.config.check import load
    from rrl.runs.resume import resume

    options, rest = shell.options([text for text in arguments if text != "--cfg"], OPTIONS)
    again, dry_run = options["resume"], shell.is_true("dry_run", options["dry_run"])
    if dry_run and again not in (None, "null"):
        raise ConfigError(f"dry_run: true, with resume={again}; only a new run can be planned; keep one")
    folder = None if again in (None, "auto", "null") else Path(str(again)).expanduser().absolute()
    config, parts = load("train", rest) if folder is None else resume(folder, rest)
    if "--cfg" in arguments:
        from rrl.config.saved import as_yaml

        print(as_yaml(config), end="")
        return None
    if dry_run:
        from rrl.preflight.plan import plan, plan_text

        print(plan_text(plan(config, parts)))
        return None
    return config, parts, folder or _new_folder(config, parts, auto=again == "auto")


def _new_folder(config: dict[str, Any], parts: Any, *, auto: bool) -> Path:
    """The directory of a new run or, with ``resume=auto``, of the one in ``run.dir``."""
    from rrl.config.saved import absolute
    from rrl.runs.resume import refuse_changes, saved

    if not auto:
        chosen: Path = parts.run.choose(f"{config['data']['name']}-{config['algo']}")
        return chosen.absolute()
    if parts.run.dir is None:
        raise ConfigError("resume: 'auto' needs the run's directory; give run.dir, or resume=RUN")
    folder = Path(parts.run.dir).expanduser().absolute()
    if not (folder / "config.yaml").is_file():
        return _new_folder(config, parts, auto=False)
    refuse_changes(saved(folder), absolute(config), folder)
    return folder


def _start_training(config: dict[str, Any], parts: Any, folder: Path) -> None:
    """Train in this process, or start several and wait for them."""
    if parts.launcher.processes == 1:
        from rrl.records.display import display
        from rrl.runs.experiment import train

        train(config, parts, folder, display(config["algo"]))
        return
    from rrl.config.saved import write_config
    from rrl.processes.launch import why
    from rrl.records.status import RunLock

    parts.launcher.refuse_misfits()
    with RunLock(folder):  # no other process trains there
        write_config(folder, config)
    code = parts.launcher.start(folder)
    if code:
        print(why(folder), file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
