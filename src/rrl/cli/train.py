"""rrl-train: compose, check, train."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rrl.cli import shell

HELP = """
rrl-train trains a language model by reinforcement learning, with or without retrospective replay.

  rrl-train                                    the embedded task, a tiny model, RRL
  rrl-train algo=ppo seed=1                    its baseline
  rrl-train task=gsm8k model=hf model.path=Qwen/Qwen2.5-0.5B data.path=DIR
  rrl-train ... launcher.num_processes=2       two processes; torchrun and srun may start them as well
  rrl-train ... dry_run=true                   print what would be done and how much memory it takes, and exit
  rrl-train resume=RUN                         go on with a run from its last checkpoint
  rrl-train ... run.dir=RUN resume=auto        the same if RUN holds a run, else begin it
  rrl-train -m algo=ppo,rrl seed=0,1,2         a run for each combination, in processes of their own
  rrl-train -m resume=SWEEP                    go on with a sweep
  rrl-train --cfg                              print the composed configuration and exit
  rrl-train --completion bash                  print what completes command lines in bash, zsh or fish

Every key of the configuration can be set as key=value; a misspelt one gets its nearest valid name.
"""
OPTIONS = ("resume", "dry_run")
"""What is given as key=value and is no key of the configuration."""


class LaunchRequest(NamedTuple):
    """What there is to do: a checked configuration, and where."""

    config: dict[str, Any]
    parts: Any
    folder: Path


def main() -> None:
    """Entry point."""
    sys.exit(shell.run(_train, HELP))


def _train(arguments: Sequence[str]) -> None:
    if arguments and arguments[0] in ("--completion", "--complete"):
        from rrl.cli.completion import answer

        print(answer(*arguments[:2]), end="")
        return
    if {"-m", "--multirun"} & set(arguments):
        from rrl.study.sweeps import sweep

        sys.exit(sweep(arguments, tell=print))
    from rrl.processes.launch import started_by_others

    if started_by_others():
        from rrl.cli.worker import work_together

        def choose() -> tuple[dict[str, Any], Path] | None:
            job = _choose(arguments)
            return None if job is None else (job.config, job.folder)

        shell.leave(shell.guarded(lambda: work_together(choose)))
    job = _choose(arguments)
    if job is not None:
        _start(job)


def _choose(arguments: Sequence[str]) -> LaunchRequest | None:
    """The checked configuration and the run's directory; None when the arguments only ask for something to be shown."""
    from rrl.config.check import load
    from rrl.errors import ConfigError
    from rrl.runs.resume import resume

    options = shell.options(arguments, OPTIONS)
    rest = [text for text in arguments if text != "--cfg" and text.partition("=")[0] not in OPTIONS]
    again, dry_run = options["resume"], shell.is_true("dry_run", options["dry_run"])
    if dry_run and again not in (None, "null"):
        raise ConfigError(f"dry_run: true, with resume={again}; only a run that has not begun is planned; keep one")
    folder = None if again in (None, "auto", "null") else Path(str(again)).expanduser().absolute()
    config, parts = load("train", rest) if folder is None else resume(folder, rest)
    if "--cfg" in arguments or dry_run:
        _show(config, parts, whole="--cfg" in arguments)
        return None
    return LaunchRequest(config, parts, folder or _new_folder(config, parts, auto=again == "auto"))


def _new_folder(config: dict[str, Any], parts: Any, *, auto: bool) -> Path:
    """The directory of a new run or, by ``resume=auto``, of the one that ``run.dir`` holds."""
    from rrl.config.saved import absolute
    from rrl.errors import ConfigError
    from rrl.runs.resume import refuse_changes, saved

    if not auto:
        chosen: Path = parts.run.choose(f"{config['data']['name']}-{config['algo']}")
        return chosen.absolute()
    if parts.run.dir is None:
        raise ConfigError("resume: 'auto' needs to know where the run is; give run.dir, or resume=RUN")
    folder = Path(parts.run.dir).expanduser().absolute()
    if not (folder / "config.yaml").is_file():
        return _new_folder(config, parts, auto=False)
    refuse_changes(saved(folder), absolute(config), folder)
    return folder


def _show(config: dict[str, Any], parts: Any, *, whole: bool) -> None:
    if whole:
        from rrl.config.saved import as_yaml

        print(as_yaml(config), end="")
        return
    from rrl.preflight.plan import as_text, plan

    print(as_text(plan(config, parts)))


def _start(job: LaunchRequest) -> None:
    """Train in this process, or start several and wait for them."""
    if job.parts.launcher.processes == 1:
        from rrl.records.display import display
        from rrl.runs.experiment import train

        train(job.config, job.parts, job.folder, display(job.config["algo"], every=job.parts.run.log_seconds))
        return
    from rrl.config.saved import write_config
    from rrl.processes.launch import why
    from rrl.records.status import hold

    job.parts.launcher.refuse_misfits()
    with hold(job.folder):  # nobody else trains there
        write_config(job.folder, job.config)
    code = job.parts.launcher.start(job.folder)
    if code:
        print(why(job.folder), file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
