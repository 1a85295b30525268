r"""HH-RLHF: dialogues whose last answer comes in a chosen and a rejected version, judged by a reward model.

Bai et al. 2022, "Training a Helpful and Harmless Assistant with RLHF" (arXiv:2204.05862). Turns begin with
``\n\nHuman:`` and ``\n\nAssistant:``; what was compared is what follows the last ``\n\nAssistant:``.
"""

import logging
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rrl.contracts import judging
from rrl.contracts.judging import RewardModel
from rrl.errors import ConfigError, DataError
from rrl.parts.tasks.rows import DataSet, Row, load_split, refuse, split_file
from rrl.ranges import Range, check_ranges
from rrl.training.calibration import preference
from rrl.types import Example, Feedback, Pair, Rollout, Verdict
from rrl.verifiers.dialogues import ASSISTANT, HUMAN, first_answer, split_answer, turns

log = logging.getLogger(__name__)
SUBSETS = ("helpful-base", "harmless-base", "helpful-online", "helpful-rejection-sampled")
ODDITIES = {
    "equal": "chosen equals rejected",
    "empty": "an empty last answer",
    "prompts_differ": "the text before the last answer differs",
    "human_last": "a human turn comes last",
    "no_assistant": "no assistant turn",
}
SIDES = ("chosen", "rejected")
EMPTY = Feedback(0.0, Verdict.UNPARSEABLE, {"reward": None, "reference_reward": None})
"""The feedback on an empty answer."""


@dataclass(kw_only=True)
class HH(DataSet):
    """The data set, and a reward model as its verifier.

    ``path`` is a folder with ``<subset>/train.jsonl`` and ``<subset>/test.jsonl`` (or ``.jsonl.gz``) for each of
    ``subsets``; None loads ``hub_id`` from the hub. ``split_rows`` makes both splits from the test file where
    there is no train file: of every ten rows the first ``split_rows`` are ``train``, the others ``test``. Without
    ``reward_model`` nothing can be judged.

    A row with any of ``ODDITIES`` is no pair, but still a prompt if its chosen dialogue is whole: if it ends with an
    answer of the assistant's that is not empty. An example's level is ``helpful`` or ``harmless``.
    """

    path: str | None
    hub_id: str
    subsets: tuple[str, ...]
    split_rows: int | None
    reward_model: RewardModel | None
    _reference_rewards: dict[tuple[str, str], float] = field(init=False, default_factory=dict)

    gives = frozenset({"references", "preferences"})

    def __post_init__(self) -> None:
        check_ranges(self, Range(("split_rows",), 1, 9, "1 to 9 of every ten rows,"))
        wrong = [subset for subset in self.subsets if subset not in SUBSETS]
        if wrong or not self.subsets or len(set(self.subsets)) < len(self.subsets):
            raise ValueError(f"subsets: expected some of {list(SUBSETS)}, each once, got {list(self.subsets)}")

    def examples(self, split: str) -> list[Example]:
        """The prompts of ``train`` or ``test``, subset by subset, each with its chosen answer as the reference."""
        return [
            _example(f"hh/{subset}/{split}/{number}", subset, *whole)
            for subset, number, row in self._rows(split)
            if (whole := _whole(row["chosen"])) is not None
        ]

    def pairs(self, split: str) -> list[Pair]:
        """The pairs without oddities; the counts of the others are logged."""
        rows = self._rows(split)
        for subset, counts in self._count(rows).items():
            why = ", ".join(f"{ODDITIES[name]}: {count}" for name, count in counts.items() if count and name != "rows")
            log.info("%s, %s: %d rows; left out: %s", subset, split, counts["rows"], why or "none")
        return [
            _pair(f"hh/{subset}/{split}/{number}", subset, row) for subset, number, row in rows if not oddities(row)
        ]

    def oddities(self, split: str) -> dict[str, dict[str, int]]:
        """How many rows each subset has and, by name, how many have each of ``ODDITIES``; a row may have several."""
        return self._count(self._rows(split))

    def faults(self) -> list[str]:
        """A missing reward model."""
        if self.reward_model is not None:
            return []
        return [
            "reward_model: none, but task=hh judges by one; expected reward_model=sequence or reward_model=embeddings, "
            "with reward_model.path=<what rrl-reward-model has written>"
        ]

    def start(self) -> None:
        self._required().start()

    def verify(self, rollouts: Sequence[Rollout]) -> list[Feedback]:
        """Score: the Bradley-Terry probability that the answer is preferred to the reference; right above 1/2.

        The answer is the response up to its next turn. An empty one is unparseable and not scored; a number that is
        not finite is the reward model's error. Evidence: ``reward`` and ``reference_reward``, or ``error``.
        """
        answers = [first_answer(rollout.response) for rollout in rollouts]
        examples = [rollout.state.problem.example for rollout in rollouts]
        asked = [(e.question, a) for e, a in zip(examples, answers, strict=True) if a]
        wanted = [(e.question, e.answer) for e, a in zip(examples, answers, strict=True) if a]
        new = [pair for pair in dict.fromkeys(wanted) if pair not in self._reference_rewards]
        rewards = judging.scores(self._required(), [*new, *asked])
        self._reference_rewards |= zip(new, rewards[: len(new)], strict=True)
        left = iter(rewards[len(new) :])
        return [
            _judge(next(left), self._reference_rewards[e.question, e.answer]) if a else EMPTY
            for e, a in zip(examples, answers, strict=True)
        ]

    def _required(self) -> RewardModel:
        if self.reward_model is None:
            raise ConfigError(*self.faults())
        return self.reward_model

    def _count(self, rows: Sequence[tuple[str, int, Row]]) -> dict[str, dict[str, int]]:
        counts = {subset: Counter(dict.fromkeys(("rows", *ODDITIES), 0)) for subset in self.subsets}
        for subset, _, row in rows:
            counts[subset].update(("rows", *oddities(row)))
        return {subset: dict(found) for subset, found in counts.items()}

    def _rows(self, split: str) -> list[tuple[str, int, Row]]:
        """Subset, number in its file, and content of every row of a split."""
        name = split if self.split_rows is None else "test"
        self._refuse_missing(split)
        found = []
        for subset in self.subsets:
            rows = load_split(self.path, hub_id=self.hub_id, hub_config=None, split=name, fields=SIDES, data_dir=subset)
            found += [(subset, number, row) for number, row in enumerate(rows) if self._belongs(number, split)]
        return found

    def _belongs(self, number: int, split: str) -> bool:
        return self.split_rows is None or (number % 10 < self.split_rows) == (split == "train")

    def _refuse_missing(self, split: str) -> None:
        """Report the remedy where there is a test file but no train file."""
        if self.split_rows is not None:
            if split not in ("train", "test"):
                raise DataError(f"split: {split!r}; task.split_rows makes train and test; expected one of these")
            return
        if self.path is None or split != "train":
            return
        folders = [Path(self.path).expanduser() / subset for subset in self.subsets]
        refuse(
            [
                f"{split_file(folder, split)}: no such file, but there is {split_file(folder, 'test').name}"
                for folder in folders
                if not split_file(folder, split).is_file() and split_file(folder, "test").is_file()
            ],
            "fetch the file, or set task.split_rows=8 to train on eight of every ten rows of test and hold out the "
            "others (numbers so obtained do not compare with published ones)",
        )


def oddities(row: Row) -> frozenset[str]:
    """Which of ``ODDITIES`` a row has."""
    chosen, rejected = (split_answer(row[side]) for side in SIDES)
    found = {"equal"} if row["chosen"] == row["rejected"] else set()
    if chosen is None or rejected is None:
        return frozenset(found | {"no_assistant"})
    if chosen[0] != rejected[0]:
        found.add("prompts_differ")
    for _, answer in (chosen, rejected):
        if not answer.strip():
            found.add("empty")
        if HUMAN in answer:
            found.add("human_last")
    return frozenset(found)


def _whole(dialogue: str) -> tuple[str, str] | None:
    """Prompt and answer of a dialogue that ends with an answer of the assistant's which is not empty."""
    found = split_answer(dialogue)
    return None if found is None or not found[1].strip() or HUMAN in found[1] else found


def _example(name: str, subset: str, prompt: str, answer: str) -> Example:
    return Example(
        id=name,
        level=_level(subset),
        question=prompt,
        reference=answer.rstrip(),
        answer=answer.strip(),
        strata={"subset": subset},
        turns=turns(prompt),
    )


def _pair(name: str, subset: str, row: Row) -> Pair:
    (prompt, mark, chosen), (_, _, rejected) = (row[side].rpartition(ASSISTANT) for side in SIDES)
    return Pair(name, _level(subset), prompt + mark, chosen.strip(), rejected.strip(), {"subset": subset})


def _level(subset: str) -> str:
    return subset.partition("-")[0]


def _judge(reward: float, reference: float) -> Feedback:
    evidence = {"reward": reward, "reference_reward": reference}
    if not (math.isfinite(reward) and math.isfinite(reference)):
        return Feedback(0.0, Verdict.ERROR, {"error": f"the reward model says {reward}, of the reference {reference}"})
    probability = preference(reward - reference)
    return Feedback(probability, Verdict.RIGHT if probability > 0.5 else Verdict.WRONG, evidence)
