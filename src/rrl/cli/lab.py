"""rrl-lab: every rule for choosing states, tried on the failures of a run's checkpoint without training."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from rrl.cli import shell
from rrl.cli.audit import run_folder, whole
from rrl.errors import ConfigError, nearest

HELP = """
rrl-lab lets a checkpoint of a run answer some problems, has every rule (selection=...) cut the failures, and continues
each cut.

  rrl-lab RUN                           all rules on the last checkpoint: success per new token against re-drawing the
                                        same problems, error-free cuts where the task can tell, agreement of rules
  ... rules=confidence,entropy          these rules
  ... problems=64 n=4 continuations=4   problems, responses to each, and continuations of each cut and prompt
  ... level=L10 step=100 seed=0         problems of one level, another checkpoint, other draws
  ... out=DIR                           lab.json, lab.md and lab.png, into a new folder

It prints Markdown tables, and before anything is generated the most tokens that it costs. The run is only read. Other
arguments, as run.threads=2, change the run's configuration as far as a resume allows.
"""
NUMBERS = {"problems": 64, "n": 4, "continuations": 4, "seed": 0}
OPTIONS = (*NUMBERS, "step", "level", "rules", "out")


def main() -> None:
    sys.exit(shell.run_command(_lab, HELP))


def _lab(arguments: Sequence[str]) -> None:
    from rrl.processes.distributed import rank
    from rrl.records.files import whole_folder
    from rrl.records.run_directory import writable, write_json
    from rrl.study.lab import LabSettings, try_rules
    from rrl.study.lab_table import as_markdown, draw

    given, rest = shell.options(arguments, OPTIONS)
    numbers = {name: whole(name, given[name] or str(default)) for name, default in NUMBERS.items()}
    step = None if given["step"] is None else whole("step", given["step"])
    try:
        settings = LabSettings(**numbers, step=step, level=given["level"], rules=_rules(given["rules"]))
    except ValueError as error:
        raise ConfigError(str(error)) from error
    places = [text for text in rest if "=" not in text or os.path.isdir(text)]
    if len(places) != 1:
        raise ConfigError(f"RUN: expected one run, as in rrl-lab runs/trace-rrl-s0-..., got {len(places)}")
    out = given["out"] and writable(Path(given["out"]).expanduser(), "out")
    if out and out.exists():
        raise ConfigError(f"out: {given['out']!r} exists; expected a new folder; give another name or move it away")

    def say(text: str) -> None:
        if rank() == 0:
            print(text, file=sys.stderr, flush=True)

    result = try_rules(run_folder(places[0]), settings, [text for text in rest if text not in places], say)
    if rank() == 0:
        print(as_markdown(result))
        if out:
            with whole_folder(out) as folder:
                write_json(folder / "lab.json", result)
                (folder / "lab.md").write_text(as_markdown(result), encoding="utf-8")
                draw(result, folder / "lab.png")


def _rules(text: str | None) -> tuple[str, ...] | None:
    from rrl.config.choices import groups

    if text is None:
        return None
    names, known = tuple(text.strip("[]").replace(" ", "").split(",")), groups()["selection"]
    wrong = [name for name in names if name not in known]
    if wrong:
        raise ConfigError(*(f"rules: no rule {name!r}{nearest(name, known)}" for name in wrong))
    return names


if __name__ == "__main__":
    main()
