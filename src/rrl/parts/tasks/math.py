r"""MATH: competition problems whose final answer stands in a box, judged as mathematics.

Hendrycks et al. 2021, "Measuring Mathematical Problem Solving With the MATH Dataset" (arXiv:2103.03874), and the 500 of
its test problems that Lightman et al. 2023, "Let's Verify Step by Step" (arXiv:2305.20050) held out.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rrl.errors import ConfigError
from rrl.parts.tasks.rows import DataSet, Row, load_split, refuse
from rrl.types import Example, Feedback, Rollout, Verdict
from rrl.verifiers.final_answers import AnswerFormat, final_answer, is_copied
from rrl.verifiers.math_verifier import MathVerifier, Pair

log = logging.getLogger(__name__)

SUBJECTS = (
    "algebra",
    "counting_and_probability",
    "geometry",
    "intermediate_algebra",
    "number_theory",
    "prealgebra",
    "precalculus",
)
"""The data set's configurations on the hub, in the order in which they are joined."""
SPLITS = ("train", "test", "math500")


@dataclass(frozen=True, kw_only=True)
class MATH(DataSet):
    """The data set and its verifier.

    ``path`` is a folder with ``train.jsonl``, ``test.jsonl`` and, if need be, ``math500.jsonl`` (or ``.jsonl.gz``);
    None loads all subjects of ``hub_id``, or ``math500_hub_id``, from the hub. ``answer_format`` says where a response
    may state its answer, see ``final_answers.final_answer``; ``judge`` says whether it is the reference's.

    An example's level is ``Level 1`` to ``Level 5`` (``Level ?`` in two rows), its stratum ``subject`` one of SUBJECTS.
    """

    path: str | None
    hub_id: str
    math500_hub_id: str
    answer_format: AnswerFormat
    judge: MathVerifier

    gives = frozenset({"references", "answers"})

    def examples(self, split: str) -> list[Example]:
        """The problems of ``train`` (7,500 in the official data), ``test`` (5,000) or ``math500``, in their order.

        Problems whose solution has an empty last box (two of ``train``) are left out, and logged.
        """
        if split not in SPLITS:
            raise ConfigError(f"evaluation.split: MATH has no split {split!r}; expected one of {', '.join(SPLITS)}")
        examples = list(self._math500() if split == "math500" else self._problems(split))
        empty = [example.id for example in examples if not example.answer]
        refuse(
            [f"{split}: none of {len(empty)} solutions ends in a box"] if len(empty) == len(examples) else [],
            "check that data.path or hub_id is MATH",
        )
        if empty:
            log.warning(
                "%s: %d problems have no final answer and are left out: %s", split, len(empty), ", ".join(empty)
            )
        return [example for example in examples if example.answer]

    def begin(self, rollouts: Sequence[Rollout]) -> None:
        self.judge.begin(self._pairs(rollouts))

    def verify(self, rollouts: Sequence[Rollout]) -> list[Feedback]:
        """Score 1 for a response whose final answer is the reference's, else 0; cut-off text is judged as it is.

        Evidence: ``parsed`` (the answer read, or None), ``form`` (the same without its setting, where that differs),
        ``expected``, ``outcome`` and, after a failure, ``error``.
        """
        judged = self.judge.judge(self._pairs(rollouts))
        return [
            _unless_copied(item, r.state.problem.example.question) for item, r in zip(judged, rollouts, strict=True)
        ]

    def _pairs(self, rollouts: Sequence[Rollout]) -> list[Pair]:
        return [(final_answer(r.response, self.answer_format), r.state.problem.example.answer) for r in rollouts]

    def _problems(self, split: str) -> Iterator[Example]:
        fields = ("problem", "level", "type", "solution")
        rows = [
            row
            for subject in (SUBJECTS if self.path is None else (None,))
            for row in load_split(self.path, hub_id=self.hub_id, hub_config=subject, split=split, fields=fields)
        ]
        for index, row in enumerate(rows):
            answer = final_answer(row["solution"], "boxed") or ""
            yield _example(row.get("unique_id", f"{split}/{index}"), row, row["type"], answer)

    def _math500(self) -> Iterator[Example]:
        fields = ("problem", "solution", "answer", "subject", "unique_id")
        split = "test" if self.path is None else "math500"
        rows = load_split(self.path, hub_id=self.math500_hub_id, hub_config=None, split=split, fields=fields)
        for row in rows:
            yield _example(row["unique_id"], row, row["subject"], row["answer"].strip())


def _unless_copied(feedback: Feedback, question: str) -> Feedback:
    evidence = feedback.evidence
    if evidence["outcome"] != "equal" or not is_copied(evidence["parsed"], evidence["expected"], question):
        return feedback
    return Feedback(0.0, Verdict.WRONG, {**evidence, "outcome": "copied"})


def _example(name: str, row: Row, subject: str, answer: str) -> Example:
    level = str(row.get("level", "?")).removeprefix("Level ")
    return Example(
        id=f"math/{name}",
        level=f"Level {level}",
        question=row["problem"],
        reference=row["solution"],
        answer=answer,
        strata={"subject": subject.lower().replace("&", "and").replace(" ", "_")},
    )
