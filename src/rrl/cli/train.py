"""rrl-train: compose, check, train."""

import sys
from collections.abc import Sequence

from rrl.cli import shell

HELP = """
rrl-train trains a language model by reinforcement learning, with or without retrospective replay.

  rrl-train                                    the embedded task, a tiny model, RRL
  rrl-train algo=ppo seed=1                    its baseline
  rrl-train task=gsm8k model=hf model.path=Qwen/Qwen2.5-0.5B data.path=DIR
  rrl-train --cfg                              print the composed configuration and exit

Every key of the configuration can be set as key=value; a misspelt one gets its nearest valid name.
"""


def main() -> None:
    """Entry point."""
    sys.exit(shell.run(_train, HELP))


def _train(arguments: Sequence[str]) -> None:
    from rrl.config import load
    from rrl.rundir import as_yaml

    config, parts = load("train", [argument for argument in arguments if argument != "--cfg"])
    if "--cfg" in arguments:
        print(as_yaml(config), end="")
        return
    from rrl.display import display
    from rrl.experiment import train

    train(config, parts, display(config["algo"]))


if __name__ == "__main__":
    main()
