"""The steps that make a table of the paper anew: fine-tuning, reward models, arms over seeds, measurements."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rrl.config.choices import groups
from rrl.errors import ConfigError, UsageError, shown
from rrl.study.reproduce_steps import Measurement, RewardModelFit, Step, Training
from rrl.study.sweep_jobs import quoted

REPLAY = ("rrl", "redraw", "random_cut")
ARMS = {
    "gsm8k": ("ppo", "gsi", *REPLAY),
    "math": ("ppo", "gsi", *REPLAY),
    "code": ("ppo", "ppocoder", "rltf", *REPLAY),
    "dialogue": ("ppo", *REPLAY),
}
"""The arms of each table beside supervised fine-tuning; ``experiments/reproduce`` has a file for each."""
FROM_BASE = ("sft", "gsi")
"""Arms that begin with the base model; the others begin with the one after supervised fine-tuning."""
OF_FITS = ("fit", "pairs", "task", "data", "model")
"""Overrides that the training of a reward model takes, by their first words."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """A table to make: its task and scale, the seeds of its arms, and where its parts lie.

    ``data`` is ``data.path`` (None: the hub), ``limit`` the number of test problems of each level (None: all).
    """

    task: str
    scale: str
    seeds: Sequence[int]
    data: str | None
    limit: int | None
    folder: Path
    overrides: Sequence[str]

    def run(self, arm: str, seed: int) -> str:
        """The name of a run and of its directory."""
        return arm if arm == "sft" else f"{arm}-s{seed}"

    @property
    def judged(self) -> bool:
        """Whether answers are compared by a judge, since no verifier can say which are right."""
        return self.task == "dialogue"

    @property
    def own_judge(self) -> bool:
        return any(text.startswith("judge=") for text in self.overrides)

    def runs(self) -> list[tuple[str, int]]:
        """Every arm with each of its seeds, seed by seed; supervised fine-tuning, which all seeds share, first."""
        return [("sft", 0), *((arm, seed) for seed in self.seeds for arm in ARMS[self.task])]


def scales(task: str) -> list[str]:
    """The scales that there are files for."""
    found = [name.split("/") for name in groups()["experiment"] if name.startswith(f"reproduce/{task}/")]
    return [path[-1] for path in found if path[-1] != "task"]


def steps(target: Target) -> list[Step]:
    """All steps, each after those that it needs."""
    made: list[Step] = list(_reward_models(target))
    judges, paying = ([step.name for step in made if (step.name == "judge") == judging] for judging in (True, False))
    for arm, seed in target.runs():
        run, begun = target.run(arm, seed), [] if arm in FROM_BASE else ["sft"]
        measured = dict.fromkeys([run, *judges, *(["sft"] if target.judged else [])])
        made.append(Training(run, target.folder, [*paying, *begun], _training(target, arm, seed)))
        made.append(Measurement(f"evaluate-{run}", target.folder, measured, _measuring(target, arm, run)))
    return made


def undone(every: Sequence[Step]) -> list[Step]:
    """The steps whose result is not there; raises one ConfigError with the faults of all."""
    left, faults = [], dict[str, None]()
    for step in every:
        try:
            left += [] if step.done() else [step]
        except UsageError as error:
            faults |= dict.fromkeys(error.faults)
    if faults:
        raise ConfigError(*faults)
    return left


def _reward_models(target: Target) -> Iterator[Step]:
    """For dialogues the one that pays and, unless another judge is given, the one that judges."""
    names = ([] if target.own_judge else ["judge"]) if target.judged else []
    taken = [text for text in target.overrides if _head(text) in OF_FITS]
    for name in ["reward_model", *names] if target.judged else []:
        yield RewardModelFit(name, target.folder, (), [f"experiment={_arm_file(target, name)}", *_data(target), *taken])


def _training(target: Target, arm: str, seed: int) -> list[str]:
    base = arm in FROM_BASE
    start = [] if base else ["model=hf", f"model.path={quoted(target.folder / 'sft' / 'actor')}"]
    given = [text for text in target.overrides if _head(text) not in ("judge", "fit", "pairs")]
    paid = ["reward_model=sequence", f"reward_model.path={quoted(target.folder / 'reward_model')}"]
    return [
        f"experiment=[reproduce/{target.task}/{target.scale},{_arm_file(target, arm)}]",
        *_data(target),
        f"seed={seed}",
        *start,
        *(paid if target.judged else []),
        *(text for text in given if base or _head(text) != "model"),
    ]


def _measuring(target: Target, arm: str, run: str) -> list[str]:
    """Accuracy or, of dialogues, wins against the model after supervised fine-tuning (of that: the data's answers)."""
    common = [f"from_run={target.folder / run}", f"evaluation.limit={shown(target.limit)}"]
    if not target.judged:
        return common
    against = "reference" if arm == "sft" else str(target.folder / "sft")
    path = f"reward_model.path={quoted(target.folder / 'judge')}"
    judge = [] if target.own_judge else ["judge=reward_model", "reward_model=sequence", path]
    return [*common, f"against={against}", *judge, *(text for text in target.overrides if _head(text) == "judge")]


def _arm_file(target: Target, arm: str) -> str:
    """The experiment of an arm or a reward model: the scale may have one of its own."""
    own = f"reproduce/{target.scale}/{arm}"
    return own if own in groups()["experiment"] else f"reproduce/{arm}"


def _data(target: Target) -> list[str]:
    return [] if target.data is None else [f"data.path={quoted(Path(target.data).expanduser().absolute())}"]


def _head(text: str) -> str:
    """The first word of an override's key."""
    return text.lstrip("+").partition("=")[0].partition(".")[0]
