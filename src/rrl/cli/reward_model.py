"""rrl-reward-model: train a reward model on pairs of responses, and measure it on held-out pairs."""

import sys
from collections.abc import Sequence
from typing import Any

from rrl.cli import shell

HELP = """
rrl-reward-model trains a Bradley-Terry reward model on pairs of a preferred and another response, and measures it on
held-out pairs: accuracy with interval, by level and subset, log-loss, calibration. The printed folder holds the model,
result.json, calibration.png and config.yaml.

  rrl-reward-model data.path=DIR model=hf model.path=Qwen/Qwen2.5-0.5B fit=sequence
  rrl-reward-model data.path=DIR fit=embeddings fit.embedder.path=FOLDER_OR_ID      frozen embeddings, on the CPU
  rrl-reward-model data.path=DIR                                                    a tiny model from scratch
  rrl-train task=hh reward_model=sequence reward_model.path=FOLDER ...          then use it
"""


def main() -> None:
    sys.exit(shell.run_command(_reward_model, HELP))


def _reward_model(arguments: Sequence[str]) -> None:
    from rrl.config.check import load

    config, parts = load("train_reward_model", [text for text in arguments if text != "--cfg"], starting=())
    if "--cfg" in arguments:
        from rrl.config.saved import as_yaml

        print(as_yaml(config), end="")
        return
    from rrl.records.display import display
    from rrl.runs.reward_model import train_reward_model

    parts.run.limit_threads()
    folder = parts.run.choose(f"{config['data']['name']}-reward-model").absolute()
    result = train_reward_model(config, parts, folder, display("reward model"))
    print(_result_text(result["test"]))
    print(folder)


def _result_text(test: dict[str, Any]) -> str:
    from rrl.records.texts import with_interval

    levels: dict[str, Any] = test["levels"]
    rows = [("overall", test), *levels.items(), ("longer is better", test["longer_is_better"])]
    lines = [f"{name:18}{with_interval(x['accuracy'], x['interval95'])} of {x['pairs']}" for name, x in rows]
    return "\n".join([*lines, f"log-loss {test['log_loss']:.4f}, calibration error {test['calibration_error']:.4f}"])


if __name__ == "__main__":
    main()
