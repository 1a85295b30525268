"""rrl-rescore: verify dumped rollouts again with the present verifier, and show what changed."""

import glob
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from rrl.cli import shell
from rrl.errors import ConfigError

HELP = """
rrl-rescore verifies the dumped rollouts of a run again with the present verifier, and shows what changed.

  rrl-rescore RUN                                   all dumps of a run, with the run's configuration
  rrl-rescore from_run=RUN dump=RUN/rollouts/step-000050.jsonl
  rrl-rescore task=math dump=FOLDER_OR_FILE         without a run; dump may be a pattern, as in 'runs/*/rollouts'
  ... task.answer_format=flexible                   with another verifier
  ... shown=50                                      changed rows on the terminal (20); the JSON has all
  ... json=true   output=result.json                JSON on the terminal; in a new file

The exit code is 0 whether or not anything changed; unreadable lines are reported and skipped.
"""
OPTIONS = ("from_run", "dump", "output", "json", "shown")


def main() -> None:
    sys.exit(shell.run_command(_rescore, HELP))


def _rescore(arguments: Sequence[str]) -> None:
    from rrl.config.check import load
    from rrl.records.run_directory import write_json
    from rrl.records.texts import visible
    from rrl.study.rescore import as_table, rescore

    given, rest = shell.options(shell.with_run(arguments, "judge"), OPTIONS)
    files, shown = _files(given["from_run"], given["dump"]), given["shown"] or "20"
    if not shown.isdigit():
        raise ConfigError(f"shown: expected a whole number, got {shown!r}")
    output = shell.new_file("output", given["output"])
    as_json = shell.is_true("json", given["json"])
    _, parts = load("train", rest, run=given["from_run"], starting=("task",))
    result = rescore(parts.task, files)
    if output is not None:
        write_json(output, result.as_mapping())
    print(json.dumps(result.as_mapping(), indent=2, default=str) if as_json else visible(as_table(result, int(shown))))


def _files(run: str | None, dump: str | None) -> list[Path]:
    """The dumps; of a folder all in it, in the order of their names."""
    if run is None and dump is None:
        raise ConfigError(
            "dump: missing; expected a file, a folder or a pattern, or from_run=RUN for all dumps of a run"
        )
    pattern = str(Path(run or "").expanduser() / "rollouts") if dump is None else str(Path(dump).expanduser())
    found = sorted(map(Path, glob.glob(pattern)))
    files = [file for path in found for file in (sorted(path.glob("*.jsonl")) if path.is_dir() else [path])]
    if not files:
        remedy = "give another dump" if dump else "dumps are written at run.rollout_freq; or give dump=FILE"
        raise ConfigError(f"{'dump' if dump else 'from_run'}: no dump of rollouts in {pattern!r}; {remedy}")
    return files


if __name__ == "__main__":
    main()
