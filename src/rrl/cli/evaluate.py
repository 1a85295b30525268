"""rrl-evaluate: measure a run's actor, or any model, on a task's held-out problems."""

import json
import sys
from collections.abc import Sequence

from rrl.cli import shell

HELP = """
rrl-evaluate measures accuracy on held-out problems and prints a JSON result (n, seed, interval, template, sampling).

  rrl-evaluate from_run=runs/trace-rrl-s0-...   the actor of a run, by the run's own configuration
  rrl-evaluate from_run=DIR evaluation.n=8      with other settings
  rrl-evaluate task=gsm8k data.path=DIR model=hf model.path=FOLDER_OR_ID
  ... output=result.json                        writes the result to a new file
"""


def main() -> None:
    """Entry point."""
    sys.exit(shell.run(_evaluate, HELP))


def _evaluate(arguments: Sequence[str]) -> None:
    from pathlib import Path

    from rrl.assemble import FrozenSource, measure, prepare_evaluation
    from rrl.config import load
    from rrl.distributed import device
    from rrl.errors import ConfigError
    from rrl.rundir import writable, write_json

    given = shell.options(arguments, ("from_run", "output"))
    run, target = given["from_run"], given["output"]
    rest = [argument for argument in arguments if not argument.startswith(("from_run=", "output="))]
    output = None if target is None else Path(target).expanduser()
    if output is not None and output.exists():
        raise ConfigError(f"output: {str(output)!r} exists; expected a new file; give another name or move it away")
    if output is not None:
        writable(output.parent, "output")
    config, parts = load("train", rest, run=run)
    parts.run.limit_threads()
    parts.task.start()
    prepared = prepare_evaluation(parts, lambda progress, metrics: None)
    parts.engine.start(FrozenSource(prepared.model.to(device())), prepared.tokenizer, parts.run.seed)
    result = {"task": config["data"]["name"], "model": config["model"], **measure(parts, prepared)}
    print(json.dumps(result, indent=2))
    if output is not None:
        write_json(output, result)


if __name__ == "__main__":
    main()
