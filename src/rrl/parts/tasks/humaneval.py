"""HumanEval: functions to complete from their signature and description.

Chen et al. 2021, "Evaluating Large Language Models Trained on Code" (arXiv:2107.03374), GitHub ``openai/human-eval``,
``HumanEval.jsonl.gz``. HumanEval+ (Liu et al. 2023, arXiv:2305.01210) has the same fields.
"""

from dataclasses import dataclass

from rrl.parts.tasks.asserted import Asserted
from rrl.parts.tasks.coding import rendered
from rrl.parts.tasks.rows import Row
from rrl.types import Example
from rrl.verifiers.assertions import Trial


@dataclass(frozen=True, kw_only=True)
class HumanEval(Asserted):
    """The 164 problems, all of them ``test``; for the fields see ``Asserted``."""

    FILES = ("HumanEval.jsonl", "HumanEval.jsonl.gz", "test.jsonl", "test.jsonl.gz")
    FIELDS = ("task_id", "prompt", "canonical_solution", "test", "entry_point")
    SPLITS = ("test",)

    def belongs(self, row: Row, split: str) -> bool:
        return True

    def example(self, row: Row) -> Example:
        name, prompt = row["entry_point"], row["prompt"]
        if f"def {name}(" not in prompt:
            raise ValueError(f"field 'entry_point': {name!r}, expected a function that the prompt begins")
        solution = prompt + row["canonical_solution"]
        test = f"{row['test']}\n\ncheck({name})\n"
        trial = Trial(opening=prompt, reference=solution, functions=(name,), tests=(test,))
        return Example(
            id=f"humaneval/{row['task_id']}",
            level="all",
            question=self.asked(f"```python\n{prompt.rstrip()}\n```" if self.instruction else prompt),
            reference=rendered(solution),
            answer=trial.as_text(),
        )
