r"""Purpose: the verifier of GSM8K on every reference, in the forms that models write; right ones and near misses.
Launch:  make study-gsm8k DATA=FOLDER (of train.jsonl and test.jsonl)
         python experiments/gsm8k/forms.py DATA OUT
Expect:  every form read as right for each of the 8,792 references, and none of their near misses.
Cost:    about two minutes on one core.

Each response is the steps of the official solution and then the final number in one form, so that a near miss stands
beside the right number, as it does in the responses of a model.
"""

import json
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from rrl.parts.tasks.gsm8k import GSM8K
from rrl.types import Example, Problem, Rollout, State

FORMS = {
    "hashes": "#### {n}",
    "hashes with remark": "#### {n} (checked 2 times)",
    "answer is": "The answer is {n}.",
    "answer in bold": "**Answer:** {n}",
    "box": r"So it is \boxed{{{n}}}.",
    "box with unit": r"\[ \boxed{{{n} \text{{ dollars}}}} \]",
    "box with name": r"\boxed{{x = {n}}} after 2 steps",
    "bold": "**{n}**",
    "bold in a sentence": "This makes **{n}** in all (see step 3).",
    "currency": "${n}",
    "unit": "{n} dollars",
    "decimals": "The total is {n}.00",
    "grouped": "The total is {n:,}.",
    "answer tag": "<answer>{n}</answer> (checked 2 times)",
    "equation": "x = {n}",
    "equation with words": "x = {n} after 2 steps",
    "after reasoning": "<think>\nIs it 1? The answer is 1.\n#### 1\n</think>\nThe answer is {n}.",
    "prompt began reasoning": "Is it \\boxed{{1}}?\n</think>\n\\boxed{{{n}}}",
    "trailing words": "So they have {n} dollars altogether, which was checked 2 times.",
    "next question": "#### {n}\n\nQuestion: How much is 1 + 1?\nAnswer:\n#### 2",
}


def main() -> None:
    """Write ``forms.json``: for each form how many references were read right, and how many near misses too."""
    data, out = Path(sys.argv[1]), Path(sys.argv[2])
    rows = [row for split in ("train", "test") for row in references(data / f"{split}.jsonl")]
    result = {name: measure(form, rows) for name, form in FORMS.items()}
    prose = Counter(verdicts([(steps, number) for steps, number in rows]))
    out.mkdir(parents=True, exist_ok=True)
    told = {"references": len(rows), "forms": result, "last sentence of the solution alone": dict(prose)}
    (out / "forms.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(told, indent=1))


def references(file: Path) -> Iterator[tuple[str, int]]:
    """The steps and the number of each official solution, read without the code under test; all are whole numbers."""
    for line in file.read_text(encoding="utf-8").splitlines():
        steps, _, number = json.loads(line)["answer"].rpartition("\n#### ")
        yield re.sub(r"<<.*?>>", "", steps), int(number.replace(",", ""))


def near_misses(number: int) -> list[int]:
    """The neighbours, the other sign, two digits exchanged, ten times as much; those that are other numbers."""
    digits = str(abs(number))
    swapped = int(digits[:-2] + digits[:-3:-1]) if len(digits) > 1 else number
    return sorted({number + 1, number - 1, -number, swapped, 10 * number} - {number})


def measure(form: str, rows: Sequence[tuple[str, int]]) -> dict[str, object]:
    """Verdicts of the right number in this form, and of its near misses."""
    right = Counter(verdicts([(f"{steps}\n{form.format(n=n)}", n) for steps, n in rows]))
    missed = [(f"{steps}\n{form.format(n=miss)}", n) for steps, n in rows for miss in near_misses(n)]
    return {"right number": dict(right), "near misses": dict(Counter(verdicts(missed)))}


def verdicts(responses: Sequence[tuple[str, int]]) -> list[str]:
    """Judged by the task's own verifier, flexible."""
    task = GSM8K(path=None, hub_id="", calculator_annotations=False, answer_format="flexible")
    return [feedback.verdict.value for feedback in task.verify([rollout(text, n) for text, n in responses])]


def rollout(response: str, number: int) -> Rollout:
    """A response to a problem with this answer."""
    example = Example(id="", level="", question="", reference="", answer=str(number))
    return Rollout(State(Problem(example, (), ())), (), (), (), True, response, 0)


if __name__ == "__main__":
    main()
