"""rrl-audit: are a run's remembered states solvable, does its critic rank them, do early ones stay likely."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from rrl.cli import shell
from rrl.errors import ConfigError
from rrl.records.status import suggestion

HELP = """
rrl-audit continues the remembered states of a run's checkpoints, and scores early ones under every checkpoint.

  rrl-audit RUN                   how often states are solvable, against their prompts; whether the critic ranks them;
                                  the log-probability of the first states under each checkpoint's actor
  rrl-audit RUN RUN ...           the same of several runs; all score the first states of the first run with replay
  ... states_of=RUN               the first states of another run, for runs without replay
  ... continuations=8 states=64   continuations of each state, and states drawn at each checkpoint
  ... steps=100,200               these checkpoints (all)
  ... prefixes=64 bins=4 seed=0   early states that are scored, groups of the calibration, seed of draws
  ... out=FILE                    the results as JSON, with every state, into a new file

It prints Markdown tables, and before anything is generated the most tokens that it costs. Runs are only read. Ctrl-C
ends it with what was found at the checkpoints so far, and names the others. Other arguments, as run.threads=2, change
the runs' configurations as far as a resume allows.
"""
NUMBERS = {"continuations": 8, "states": 64, "prefixes": 64, "bins": 4, "seed": 0}
OPTIONS = (*NUMBERS, "steps", "states_of", "out")


def main() -> None:
    sys.exit(shell.run_command(_audit, HELP))


def _audit(arguments: Sequence[str]) -> None:
    from rrl.processes.distributed import rank
    from rrl.processes.stopping import Interrupted
    from rrl.records.run_directory import write_json
    from rrl.study.audit import AuditSettings, audit
    from rrl.study.audit_table import as_markdown

    given, rest = shell.options(arguments, OPTIONS)
    numbers = {name: whole(name, given[name] or str(default)) for name, default in NUMBERS.items()}
    steps = given["steps"] and tuple(whole("steps", text) for text in given["steps"].split(","))
    try:
        settings = AuditSettings(**numbers, steps=steps or None)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    places = [text for text in rest if "=" not in text or os.path.isdir(text)]
    runs, out = [run_folder(text) for text in places], shell.new_file("out", given["out"])
    if not runs:
        raise ConfigError("RUN: missing; expected one run or more, as in rrl-audit runs/trace-rrl-s0-...")

    def say(text: str) -> None:
        if rank() == 0:
            print(text, file=sys.stderr, flush=True)

    states_of = given["states_of"] and run_folder(given["states_of"], "states_of")
    overrides = [text for text in rest if text not in places]
    result = audit(list(dict.fromkeys(runs)), states_of or None, settings, overrides, say)
    if rank() == 0:
        print(as_markdown(result))
        if out is not None:
            write_json(out, result)
    if "left" in result:
        left = "; ".join(f"{run} steps={','.join(map(str, steps))}" for run, steps in result["left"].items())
        raise Interrupted(f"interrupted; not audited: {left}")


def whole(name: str, text: str) -> int:
    """The number that an option gives; raises ConfigError where it is none."""
    if not text.isdecimal():
        raise ConfigError(f"{name}: expected a whole number, got {text!r}")
    return int(text)


def run_folder(text: str, name: str = "RUN") -> Path:
    """The folder of a run; raises ConfigError where it is none."""
    folder = Path(text).expanduser()
    if not (folder / "config.yaml").is_file():
        remedy = (suggestion(name, folder) or "rrl-status lists the runs").replace("RUN=", "")
        raise ConfigError(f"{name}: {text!r} holds no run; expected a folder with config.yaml; {remedy}")
    return folder


if __name__ == "__main__":
    main()
