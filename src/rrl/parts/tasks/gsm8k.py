r"""GSM8K: grade-school word problems, judged by the exact final number of a response.

Cobbe et al. 2021, "Training Verifiers to Solve Math Word Problems" (arXiv:2110.14168). A solution's last line is
``#### <number>``; its steps carry calculator annotations such as ``<<48/2=24>>``.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from rrl.parts.tasks.rows import DataSet, Row, load_split, refuse
from rrl.types import Example, Feedback, Rollout, Verdict
from rrl.verifiers.final_numbers import NumberFormat, read_answer, read_number


@dataclass(frozen=True, kw_only=True)
class GSM8K(DataSet):
    """The data set and its verifier.

    ``path`` is a folder with ``train.jsonl`` and ``test.jsonl`` (or ``.jsonl.gz``); None loads ``hub_id``, a name
    and its configuration as in ``openai/gsm8k:main``, from the hub. ``calculator_annotations`` keeps ``<<...>>`` in
    the references. ``answer_format`` says where a response may state its answer, see ``final_numbers.read_answer``.

    An example's level is its number of solution steps: ``steps1-2``, ``steps3-4`` or ``steps5+``. Steps are
    calculator annotations; a solution without any (95 in train, 18 in test) counts its lines instead.
    """

    path: str | None
    hub_id: str
    calculator_annotations: bool
    answer_format: NumberFormat

    gives = frozenset({"references", "answers"})

    def __post_init__(self) -> None:
        if self.answer_format not in get_args(NumberFormat):
            raise ValueError(f"answer_format={self.answer_format!r}: expected one of {get_args(NumberFormat)}")

    def examples(self, split: str) -> list[Example]:
        """Every problem of ``train`` (7,473 in the official data) or ``test`` (1,319), in the data set's order."""
        name, _, config = self.hub_id.partition(":")
        fields = ("question", "answer")
        rows = load_split(self.path, hub_id=name, hub_config=config or None, split=split, fields=fields)
        faults = [
            f"{split}, row {index}: field 'answer' ends in {row['answer'][-40:]!r}, expected '#### <number>'"
            for index, row in enumerate(rows)
            if not _ends_in_number(row["answer"])
        ]
        refuse(faults, "check that data.path or hub_id is GSM8K, and fix these rows")
        return [self._example(f"gsm8k/{split}/{index}", row) for index, row in enumerate(rows)]

    def verify(self, rollouts: Sequence[Rollout]) -> list[Feedback]:
        """Score 1 for a response whose final number equals the answer exactly, else 0; cut-off text is judged as it is.

        Evidence: ``parsed`` (the number read, or None), ``expected``, and ``error`` under Verdict.ERROR.
        """
        return [self._judge(rollout.response, rollout.state.problem.example.answer) for rollout in rollouts]

    def _example(self, name: str, row: Row) -> Example:
        solution = row["answer"]
        steps = solution.count("<<") or solution.count("\n")
        return Example(
            id=name,
            level="steps1-2" if steps <= 2 else "steps3-4" if steps <= 4 else "steps5+",
            question=row["question"],
            reference=solution if self.calculator_annotations else re.sub(r"<<.*?>>", "", solution),
            answer=_final_line(solution),
        )

    def _judge(self, response: str, answer: str) -> Feedback:
        try:
            expected = read_number(answer)
            if expected is None:
                raise ValueError(f"answer={answer!r}: expected a number")
            parsed = read_answer(response, self.answer_format)
        except Exception as failure:  # one bad item must neither stop the batch nor count against the policy
            error = f"{type(failure).__name__}: {failure}"
            return Feedback(0.0, Verdict.ERROR, {"parsed": None, "expected": answer, "error": error})
        if parsed is None:
            return Feedback(0.0, Verdict.UNPARSEABLE, {"parsed": None, "expected": answer})
        right = parsed == expected
        evidence = {"parsed": str(parsed), "expected": answer}
        return Feedback(float(right), Verdict.RIGHT if right else Verdict.WRONG, evidence)


def _final_line(solution: str) -> str:
    return solution.rpartition("####")[2].strip()


def _ends_in_number(solution: str) -> bool:
    number = read_number(_final_line(solution))
    return number is not None and number == read_answer(solution, "strict")
