"""rrl-demo: PPO and RRL side by side on the built-in task, with a table and a picture at the end."""

import json
import logging
import multiprocessing
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rrl.cli import shell
from rrl.cli.sft import warm_up

HELP = """
rrl-demo warms up a tiny model, and trains it by PPO and by RRL with an equal budget of generated tokens.

  rrl-demo                                     300,000 tokens an arm: some minutes on two cores
  rrl-demo trainer.total_tokens=100000 seed=1  any key of rrl-train except algo and run.dir
"""
ARMS = ("ppo", "rrl")


def main() -> None:
    sys.exit(shell.run_command(_demo, HELP))


def _demo(arguments: Sequence[str]) -> None:
    from rrl.config.check import load

    folder = Path("runs") / f"demo-{time.strftime('%Y%m%d-%H%M%S')}"
    for arm in ARMS:
        _, parts = load("train", [*arguments, f"algo={arm}", f"run.dir={folder / arm}"])
    print("Programs to run in one's head: level L3 has easy instructions, L10 hard ones; L6 is never trained.")
    if parts.warmstart is not None:
        warm_up(parts, "both", "warm start")  # once, in the cache, for both arms
    _train_arms(folder, arguments)
    results = {arm: json.loads((folder / arm / "result.json").read_text()) for arm in ARMS}
    mode = f"mean@{parts.evaluation.n}" if parts.evaluation.n else "greedy"
    print(_accuracy_table(results, mode))
    print(_next_steps(folder, results, mode))


def _train_arms(folder: Path, overrides: Sequence[str]) -> None:
    """Train each arm in a process, and draw their bars here."""
    from rrl.records.display import display

    context = multiprocessing.get_context("spawn")
    events = context.Queue()
    bars = {arm: display(arm, position) for position, arm in enumerate(ARMS)}
    for bar in bars.values():
        bar.begin("training")  # before the arms, so that their output does not disturb the bars
    running = {}
    for arm in ARMS:
        options = [*overrides, f"algo={arm}", f"run.dir={folder / arm}"]
        running[arm] = context.Process(target=_train_arm, args=(arm, options, events), daemon=True)
        running[arm].start()
    while running:
        _draw_bars(events, bars)
        for arm in [arm for arm, process in running.items() if not process.is_alive()]:
            if running.pop(arm).exitcode:
                raise SystemExit(f"arm {arm} failed; see the message above")
    _draw_bars(events, bars)
    for bar in bars.values():
        bar.close()


def _draw_bars(events: Any, bars: Mapping[str, Any]) -> None:
    """Draw the arms' progress since the last call."""
    time.sleep(0.1)
    while not events.empty():
        arm, method, values = events.get()
        if method != "begin" or values == ("training",):  # the warm start was shown before
            getattr(bars[arm], method)(*values)


def _train_arm(arm: str, overrides: Sequence[str], events: Any) -> None:
    from rrl.config.check import load
    from rrl.runs.experiment import train

    shell.quieten()
    logging.getLogger("rrl").setLevel(logging.WARNING)  # only the parent draws

    def work() -> None:
        config, parts = load("train", overrides)
        display: Any = _RemoteDisplay(arm, events)
        train(config, parts, parts.run.choose(arm), display)

    sys.exit(shell.guarded(work))


class _RemoteDisplay:
    """A display in another process: sends each call there."""

    def __init__(self, arm: str, events: Any) -> None:
        self._arm, self._events = arm, events

    def __getattr__(self, method: str) -> Callable[..., None]:
        return lambda *values: self._events.put((self._arm, method, values))


def _accuracy_table(results: Mapping[str, Any], mode: str) -> str:
    from rrl.records.texts import with_interval

    rows = [f"\nHeld-out accuracy ({mode}, with 95 % interval over problems)", f"{'':10}{'before':>24}" + "".join(
        f"{arm + ' after':>24}" for arm in ARMS)]  # fmt: skip
    for level in results["ppo"]["before"][mode]["levels"]:
        evaluations = [results["ppo"]["before"], *(results[arm]["after"] for arm in ARMS)]
        cells = [evaluation[mode]["levels"][level] for evaluation in evaluations]
        texts = (with_interval(cell["accuracy"], cell["interval95"]) for cell in cells)
        rows.append(f"{level:10}" + "".join(f"{text:>24}" for text in texts))
    spent = "".join(f"{results[arm]['tokens_generated']:>24,}" for arm in ARMS)
    return "\n".join([*rows, f"{'tokens':10}{0:>24}{spent}"])


def _next_steps(folder: Path, results: Mapping[str, Any], mode: str) -> str:
    from rrl.records.plots import learning_curves
    from rrl.study.comparison import Measure

    picture = folder / "curves.png"
    measures = [Measure("accuracy", mode, level) for level in results["ppo"]["before"][mode]["levels"]]
    panels = {
        f"level {measure.level}": {arm.upper(): [measure.points(folder / arm)] for arm in ARMS} for measure in measures
    }
    learning_curves(panels, f"held-out accuracy ({mode})", "PPO and RRL, one seed each", picture)
    return f"""
Curves: {picture}
One seed is a demonstration, not evidence: compare arms over several seeds, and replay with its re-draw control.
Next:
  rrl-report {folder} out={folder / "report.html"}
                                                a page of both: curves, rollouts token by token, replayed states
  rrl-train sampler=reanalyse_redraw seed=1     the control: the same problems, without their prefixes
  rrl-train algo=rrl selection=critic_rise      another rule for promising states
  rrl-evaluate from_run={folder / "rrl"} evaluation.n=16
  docs/rrl.md explains every key and metric"""


if __name__ == "__main__":
    main()
