"""rrl-reward-model: train a reward model on pairs of responses, and measure it on pairs held out."""

import sys
from collections.abc import Sequence

from rrl.cli import shell

HELP = """
rrl-reward-model trains a Bradley-Terry reward model on pairs of which one response was preferred, and measures it on
held-out pairs: accuracy with interval, by level and subset, log-loss, calibration. The folder that it prints holds the
model, result.json, calibration.png and config.yaml.

  rrl-reward-model data.path=DIR model=hf model.path=Qwen/Qwen2.5-0.5B fit=sequence
  rrl-reward-model data.path=DIR fit=embeddings fit.embedder.path=FOLDER_OR_ID    frozen embeddings, on the CPU
  rrl-reward-model data.path=DIR                                                    a tiny model from scratch
  rrl-train task=hh reward_model=sequence reward_model.path=FOLDER ...                          then use it
"""


def main() -> None:
    """Entry point."""
    sys.exit(shell.run(_reward_model, HELP))


def _reward_model(arguments: Sequence[str]) -> None:
    from rrl.config.check import load

    config, parts = load("train_reward_model", [text for text in arguments if text != "--cfg"], judging=False)
    if "--cfg" in arguments:
        from rrl.config.saved import as_yaml

        print(as_yaml(config), end="")
        return
    from rrl.records.display import display
    from rrl.runs.reward_model import train_reward_model

    parts.run.limit_threads()
    folder = parts.run.choose(f"{config['data']['name']}-reward-model").absolute()
    result = train_reward_model(config, parts, folder, display("reward model"))
    print(_told(result["test"]))
    print(folder)


def _told(test: dict[str, object]) -> str:
    """The result in lines."""
    levels = test["levels"]
    assert isinstance(levels, dict), "made so"
    rows = [("overall", test), *levels.items(), ("longer is better", test["longer_is_better"])]
    lines = [
        f"{name:18}{part['accuracy']:.3f} [{part['interval95'][0]:.3f}, {part['interval95'][1]:.3f}] of {part['pairs']}"
        for name, part in rows
    ]
    return "\n".join([*lines, f"log-loss {test['log_loss']:.4f}, calibration error {test['calibration_error']:.4f}"])


if __name__ == "__main__":
    main()
