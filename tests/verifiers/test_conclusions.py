r"""Where a response states its answer: reasoning, new questions, tags and boxes."""

import time
from pathlib import Path

import pytest
import yaml

from rrl.config.compose import compose
from rrl.config.resolvers import next_question
from rrl.verifiers.conclusions import conclusion, last_box, tagged
from rrl.verifiers.final_answers import final_answer

CONF = Path(__file__).parents[2] / "conf"

BLOCKS = [
    ("<think>So the answer is 20? No.</think>\n**18**", "\n**18**"),
    ("no block at all", "no block at all"),
    ("<think>a</think>b<think>c</think>d", "d"),
    ("b<think>c</think>", ""),
    ("<thinking>a</thinking>b", "b"),
    ("<reasoning>a</reasoning>b", "b"),
    ("<scratchpad>a</scratchpad>b", "b"),
    ("<THINK>a</Think>b", "b"),
    ('<think type="long">a</think >b', "b"),
    ("[THINK]a[/THINK]b", "b"),
    ("◁think▷a◁/think▷b", "b"),
    ("<|begin_of_thought|>a<|end_of_thought|>b", "b"),
    ("<seed:think>a</seed:think>b", "b"),
    ("a</think>b", "b"),  # the prompt has begun the block
    ("a</think>b</think>c", "c"),
    ("<think>a</think>b</think>c", "c"),
    ("<think>a<think>b</think>c</think>d", "d"),
    ("<think>a<scratchpad>b</think>c", "c"),
    ("<think>a<scratchpad>b</scratchpad>c</think>d", "d"),
    ("<think>a", ""),
    ("a<think>b", ""),
    ("<think>a<think>b</think>c", ""),
    ("<think>a</think>b<think>c", ""),
    ("<think>a</scratchpad>b", ""),
    ("<answer>1</answer>", "<answer>1</answer>"),
    ("a <b>c</b> [d] 1 < thinking", "a <b>c</b> [d] 1 < thinking"),
    ("</think>", ""),
    ("", ""),
]


@pytest.mark.parametrize(("response", "said"), BLOCKS)
def test_what_follows_the_last_block_of_reasoning_is_the_conclusion(response: str, said: str) -> None:
    assert conclusion(response) == said


QUESTIONS = [
    ("#### 18\nQuestion: How many?\nAnswer:\n#### 25", "#### 18"),
    ("#### 18\n\n**Question 2:** How many?\n#### 25", "#### 18\n"),
    ("Question 1: no\nQuestion 2: yes, so 2", "Question 1: no\nQuestion 2: yes, so 2"),
    ("So:\nQuestion 1: no\nQuestion 2: yes, so 2", "So:\nQuestion 1: no\nQuestion 2: yes, so 2"),
    ("\\boxed{2}\n\nProblem 3: add", "\\boxed{2}\n"),
    ("#### 18\n\nQ: How many?\nA: 25", "#### 18\n"),
    ("#### 18\n## Problem\n#### 25", "#### 18"),
    ("#### 18\nHuman: and now?", "#### 18"),
    ("#### 18\nUSER: and now?", "#### 18"),
    ("#### 18\n### Instruction:\nadd", "#### 18"),
    ("#### 18\nNext question: how many?", "#### 18"),
    ("#### 18<|im_end|>\n<|im_start|>user\n25", "#### 18"),
    ("#### 18<|endoftext|>Solve: 25", "#### 18"),
    ("#### 18 [INST] more [/INST] 25", "#### 18 "),
    ("I do not know.\n\nQuestion: 3+4?\n#### 7", "I do not know.\n"),
    ("Question: How many?\nAnswer: 18", "Question: How many?\nAnswer: 18"),
    ("\n\nQuestion: How many?\n#### 18\nQuestion: x\n#### 2", "\n\nQuestion: How many?\n#### 18"),
    ("the question: how many", "the question: how many"),
    ("a\nquestions: two", "a\nquestions: two"),
    ("<think>\nQuestion: how many\n</think>\n#### 18", "\n#### 18"),
]


@pytest.mark.parametrize(("response", "said"), QUESTIONS)
def test_a_conclusion_ends_where_the_response_asks_something_new(response: str, said: str) -> None:
    assert conclusion(response) == said


TAGS = [
    ("<answer>18</answer> (checked 2 times)", "18"),
    ("<answer>17</answer>, no: <answer>18</answer>", "18"),
    ("<ANSWER> 18 </ANSWER>", " 18 "),
    ("<final_answer>18</final_answer>", "18"),
    ("<answer>18", "18"),
    ("18</answer> and 3 more", "18"),
    ("<answer>18<answer>", "18"),
    ("<answer>17, no: <answer>18", ""),
    ("<answer>18</answer> or <answer>1", "18"),
    ("<answer><answer>18</answer></answer>", "18"),
    ("<answer></answer>", ""),
    ("the answer is 18", None),
    ("an <answered>18</answered>", None),
]


@pytest.mark.parametrize(("text", "content"), TAGS)
def test_the_last_complete_answer_tag_counts(text: str, content: str | None) -> None:
    assert tagged(text) == content


BOXES = [
    (r"The answer is \boxed{5}. I used the \boxed notation.", "5"),
    (r"\boxed{5}; \boxed, as asked", "5"),
    (r"\boxed{5}. I used \boxed 2 times.", "5"),
    (r"I put \boxed around it: \boxed{5}", "5"),
    (r"$\boxed 9$.", "9"),
    (r"so \boxed 9.", "9"),
    (r"so \boxed 1,234" + "\n", "1,234"),
    (r"\(\boxed x\)", "x"),
    (r"\[\boxed \]", None),
    (r"\boxed 18 dollars", None),
    (r"\\boxed{5}", "5"),
    (r"\boxed" + "\n{5}", "5"),
    (r"\fbox {5}", "5"),
    (r"\boxed{\fbox{5}}", "5"),
    (r"\boxed{3}\boxed{", "3"),
    (r"\boxed{\frac{1}{2}", None),
    (r"\boxed{}", ""),
    (r"the \boxed notation", None),
]


@pytest.mark.parametrize(("text", "content"), BOXES)
def test_the_box_that_begins_last_counts_and_its_bare_name_is_none(text: str, content: str | None) -> None:
    assert last_box(text) == content


MATH = [
    # response, read when boxed, read when flexible
    (r"<think>\boxed{20}? No.</think>\boxed{18}", "18", "18"),
    (r"<think>\boxed{20}? No.</think>The answer is $x^2$.", None, "x^2"),
    (r"<think>\boxed{20}", None, None),
    (r"\boxed{20}? No.</think>\boxed{18}", "18", "18"),
    (r"<answer>\frac{1}{2}</answer> (checked 2 times)", None, r"\frac{1}{2}"),
    (r"<answer>$x^2$</answer>", None, "x^2"),
    (r"\boxed{3}, no <answer>\boxed{4}</answer>", "4", "4"),
    (r"\boxed{3}, no <answer>4</answer>", "3", "4"),
    (r"The answer is 18. \boxed{1", None, "18"),
    (r"\boxed{1", None, None),
    ("\\boxed{18}\n\nProblem: What is 2+2?\nSolution: \\boxed{4}", "18", "18"),
]


@pytest.mark.parametrize(("response", "boxed", "flexible"), MATH)
def test_mathematical_answers_are_read_from_the_conclusion(
    response: str, boxed: str | None, flexible: str | None
) -> None:
    assert (final_answer(response, "boxed"), final_answer(response, "flexible")) == (boxed, flexible)


TEMPLATES = [
    ("Question: {question}\nAnswer:\n", ["\nQuestion:"]),
    ("Solve it.\n\nQuestion:\n{question}\n\nAnswer:\n", ["\nQuestion:"]),
    ("### Instruction:\n{question}\n\n### Response:\n", ["\n### Instruction:"]),
    ("[INST] {question} [/INST]", ["\n[INST]"]),
    ("Q. {question}", ["\nQ."]),
    ("Solve {question}", []),  # a response may well begin a line with "Solve"
    ("- {question}", []),
    ("{question}\nAnswer:", []),
    ("\n {question} :", []),
]


@pytest.mark.parametrize(("template", "texts"), TEMPLATES)
def test_the_line_before_the_question_begins_the_next_one(template: str, texts: list[str]) -> None:
    assert next_question(template) == texts


STOPS = {
    "task=gsm8k": ["\nQuestion:"], "task=math": ["\nProblem:"], "task=apps": ["\nQUESTION:"],
    "task=apps_plus": ["\nQUESTION:"], "task=trace": [], "task=minicode": [], "task=minichat": [],
    "task=hh": ["\n\nHuman:", "\n\nAssistant:"],
}  # fmt: skip


def test_the_templates_of_the_tasks_begin_the_next_question_so() -> None:
    for task, texts in STOPS.items():
        stated = yaml.safe_load((CONF / f"{task.replace('=', '/')}.yaml").read_text())
        own = stated.get("engine", {}).get("stop")  # where a task states its texts itself
        assert (next_question(stated["data"]["plain_template"]) if own is None else own) == texts


@pytest.mark.parametrize(
    "task", [pytest.param(each, marks=[] if each in ("task=gsm8k", "task=hh") else pytest.mark.slow) for each in STOPS]
)
def test_a_response_ends_where_the_template_of_its_task_would_ask_again(task: str) -> None:
    assert compose("train", [task]).config["engine"]["stop"] == STOPS[task]


def test_the_stop_follows_the_template_that_is_chosen() -> None:
    chosen = [
        ["data.plain_template='Q: {question}'"],
        ["data.plain_template='Q: {question}'"],
        ["template=chat"],
        ["engine.stop=[x]"],
    ]
    stops = [compose("train", ["task=gsm8k", *keys]).config["engine"]["stop"] for keys in chosen]
    assert stops == [["\nQ:"], ["\nQ:"], [], ["x"]]


@pytest.mark.parametrize(
    "text",
    [
        "<think>",
        "</think>",
        "<answer>",
        "\n#",
        "\n ",
        "\nQ1:",
        "<",
        "[think ",
        "\\boxed ",
        "\\boxed9",
        "<think " + "x" * 99,
    ],
)
def test_huge_texts_are_read_in_one_pass(text: str) -> None:
    begin = time.perf_counter()
    final_answer(text * (100_000 // len(text)), "flexible")
    assert time.perf_counter() - begin < 5
