r"""The number that a response states: what is no quantity is passed over, and what is in doubt is no answer."""

import importlib.util
import random
import time
from pathlib import Path

import pytest

from rrl.verifiers.final_numbers import only_number, read_answer

STATED = [
    ("**18** (checked 2 times)", "18"),
    ("x = 18 after 2 steps", "18"),
    ("18 dollars, checked 2 times", "18"),
    ("She has 18 clips (see step 3).", "18"),
    ("She has 18 clips [1].", "18"),
    ("So 18. I solved it in 2 steps.", "18"),
    ("So 18. I verified this twice and tested it 3 times.", "18"),
    ("Step 3: 18", "18"),
    ("1. First 3 + 4 = 7\n2. So 18 in all", "18"),
    ("She has 18 apples on May 5, 2024.", "18"),
    ("She has 18 apples (2024-05-01).", "18"),
    ("She has 18 apples at 9:30 am.", "18"),
    ("She has **18** left after paying 2 friends.", "18"),
    ("She has 18 because 20 minus 2 equals 18.", "18"),
    ("18 is the answer. I used 3 steps.", "18"),
    ("18 apples. That took me 2 steps.", "18"),
    ("18.\n\nNote: I assumed 7 days in a week.", "18"),
    ("She has 18.\nCheck: 18 / 2 = 9", "18"),
    ("The answer is 18 — 9 eggs times 2.", "18"),
    ("2 + 2 = 4, 4 + 14 = 18", "18"),
    ("- 18 apples", "18"),
    ("18 of them", "18"),
    ("36 is twice as much as before: 18", "18"),
    (r"\boxed{9 x 2 = 18}", "18"),
    (r"\boxed{9g + 9g = 18}", "18"),
    (r"\boxed{x_1 = 18}", "18"),
    (r"\boxed{\text{Total} = 18}", "18"),
    ("So 18 <b>dollars</b>", "18"),
    ("18 kg of CO2", "18"),
    ("18 m2", "18"),
    ("18 m^2", "18"),
    ("18 m²", "18"),
    ("1\u202f234 dollars", "1234"),
    ("She has 18, not 20.", "18"),
    ("It is not 20 but 18.", "18"),
    ("The answer is x = 18", "18"),
    ("**Answer**: 18 after 2 hours", "18"),
    ("The answer to the question is 18, after 3 hours", "18"),
    ("The answer is therefore 18 after 3 hours", "18"),
    ("The answer is 18 dollars in 2 steps", "18"),
    ("The answer is negative 18", "-18"),
    ("It falls to minus 18 degrees", "-18"),
    ("The answer is 18/2.", "9"),
    ("The answer is 18!", "18"),
    ("2 points/answer = 48 points. She has 18", "18"),
    ("The answer is 18.\n**18**", "18"),
    (r"\boxed{x = 18} after 2 steps", "18"),
    ("The answer is 18. Wait, let me check: 9 * 2 = 18.", "18"),
    ("The answer is 18. No problem!", "18"),
    ("Answer: 20? No, 18.", "18"),
    ("What is 20 - 2? 18.", "18"),
    ("x ≠ 20, so x = 18", "18"),
    ("It does not equal 20 but 18.", "18"),
    ("2x = 36\nx = 18", "18"),
    ("9 m + 9 m = 18 m", "18"),
    ("Twice as many wins would be 2x = 18 games", "18"),
    (r"\boxed{18^\circ}", "18"),
    (r"\boxed{\frac{1}{2} \text{ cup}}", "1/2"),
    ("So <b>18</b>", "18"),
    ("答案是18。", "18"),
    ("9 + 9 => 18", "18"),
    ("She had 18 on 5 January.", "18"),
    ("She had 18 in 2024.", "18"),
    ("<answer>18<answer>", "18"),
    ("18 pies", "18"),
    ("18 inches", "18"),
    (r"\boxed{x = 9 \cdot 2 = 18}", "18"),
    (r"\boxed{\text{Total: } 18} of 3", "18"),
    (r"\boxed{18\text{ (checked 2 times)}}", "18"),
    (r"\boxed{18\text{ kg of CO2}} in 3 h", "18"),
    (r"\boxed{18 \text{ m}^2} in 3 h", "18"),
    (r"\fbox{18} of 3", "18"),
    (r"The answer is \boxed{18}. I used the \boxed notation 2 times.", "18"),
    ("<answer>18 in 2 steps</answer> of 3", "18"),
    ("<answer>x = 18 after 2 steps</answer>", "18"),
    ("<answer>\\boxed{18}</answer> of 3", "18"),
    ("<answer>She has 18 clips.</answer> Really, 3", "18"),
]
IN_DOUBT = [
    "The answer is 20. Wait, that's wrong. It is 18.",
    "The answer is 20. No, it is 18.",
    "The answer is 20 — sorry, 18.",
    "The answer is 18, right?",
    "#### 18?",
    "Is it 18?",
    "**18**?",
    "The answer cannot be 18.",
    "x != 18",
    r"x \ne 18",
    "It is not equal to 18",
    "The answer is the square root of 18.",
    "a third of 18",
    "five times 18",
    "36 divided by 2",
    "√18",
    "sqrt(18)",
    "f(18)",
    "18²",
    "18π",
    "2√18",
    "18i",
    "18 n",
    "18 k",
    "18+",
    "18 or more",
    "36 // 2",
    "18h20",
    "18 hours, 20 minutes",
    "2x = 36",
    "So x + 2 = 18.",
    "18, 20",
    "#### 18, 20",
    "#### 18 (or 20)",
    "18 (or 20)",
    r"\boxed{\frac{1}{2}18}",
    r"\boxed{18 k}",
    "<answer>18<answer>, checked 2 times",
    "#### 18 to 20",
    "#### 18 dollars and 50 cents",
    "#### 1_234",
    "The answer is 18 or 20.",
    "The answer is 18 thousand.",
    "The answer is 1.8 million",
    "The answer is not 18",
    "It is not 18.",
    "The answer is 18^2",
    "The answer is 5x",
    "The answer is 1 234",
    "The answer is 18.\n**20**",
    "The answer is 18.\nx = 20",
    "between 18 and 20",
    "18-20 clips",
    "20 - 18",
    "20 minus 18",
    "2 * 18",
    r"2 \times 18",
    "18 1/2",
    "18 and a half",
    "18½",
    "18,5",
    "18k",
    "18 dozen",
    "18 hours 30 minutes",
    "It can't be 18.",
    "x > 18",
    "18 ± 2",
    "x = 20, y = 18",
    "It falls to - 18",
    "3 apples and 18 pears",
    r"\boxed{18 \text{ or } 20}",
    r"\boxed{x = 20, y = 18}",
    r"\boxed{x > 18}",
    r"\boxed{3 + 15} = 18",
    r"\boxed{2^{10}}",
    r"\boxed{10!}",
    r"\boxed{18\pi}",
    r"\boxed{2\sqrt{18}}",
    r"\boxed{18_{8}}",
    r"\boxed{- 18}",
    r"\boxed{\text{not } 18}",
    r"\boxed{} so 18",
    r"\boxed{1",
    "<answer>18 and 20</answer>",
    "<answer></answer> 18",
    "<think>18",
    "CO2",
    "v1.5",
    "The answer is less than 18.",
    "18 is 2 more than 16.",
    "The answer is 10% of 50.",
    "The answer is 1/2 of 18.",
    "The answer is twice 18.",
    "The answer is half of the 18 eggs.",
    "He has 18 of the 20 apples.",
    "That is 90% of 20 apples.",
    "He has 18 apples out of 20.",
    "The answer is 18 squared.",
    "It is 18 below zero.",
    "It is 18 degrees below zero.",
    "The answer is 5'3\".",
    "18 < x",
    r"\boxed{18\text{ thousand}}",
    r"\boxed{18\ \text{million}}",
    r"\boxed{18n}",
    r"\boxed{2x = 18}",
    r"\boxed{x + 2 = 18}",
    r"\boxed{x^2 = 18}",
]


@pytest.mark.parametrize(("response", "number"), STATED)
def test_remarks_units_and_names_do_not_hide_the_number_that_is_stated(response: str, number: str) -> None:
    assert str(read_answer(response, "flexible")) == number


@pytest.mark.parametrize("response", IN_DOUBT)
def test_what_may_be_another_number_is_no_answer(response: str) -> None:
    assert read_answer(response, "flexible") is None


def test_a_text_of_one_number_may_have_a_name_and_a_unit() -> None:
    texts = ["18", "$18", "18 dollars", "x = 18", "about 18", "18, 20", "18 20", "eighteen", "at least 18", ""]
    read = [only_number(text) for text in texts]
    assert [None if value is None else int(value) for value in read] == [18] * 5 + [None] * 5


@pytest.mark.parametrize(
    "text", ["answer is ", "= ", "18 ", "**1** ", "step 1 ", "a" * 9, "(a", "not 1 ", "1 and ", "- "]
)
def test_huge_responses_are_read_in_one_pass(text: str) -> None:
    begin = time.perf_counter()
    for whole in (text * (100_000 // len(text)), "\\boxed{" + text * 10_000 + "}", f"<answer>{text * 10_000}"):
        read_answer(whole, "flexible")
    assert time.perf_counter() - begin < 5


def test_a_sample_of_the_study_of_forms_has_no_wrong_verdict() -> None:
    path = Path(__file__).resolve().parents[2] / "experiments" / "gsm8k" / "forms.py"
    spec = importlib.util.spec_from_file_location("forms", path)
    assert spec is not None and spec.loader is not None
    forms = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(forms)
    numbers = random.Random(0).sample(range(1, 20_000), 20)
    rows = [(f"First {n - 1} + 1 = {n}.", n) for n in numbers]
    for form in forms.FORMS.values():
        found = forms.measure(form, rows)
        assert set(found["right number"]) == {"right"}
        assert set(found["near misses"]) == {"wrong"}
