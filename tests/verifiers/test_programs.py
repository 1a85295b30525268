"""Programs in responses: which block counts, and exactly where it begins."""

import time

import pytest
from hypothesis import given, settings
from hypothesis.strategies import sampled_from, text

from rrl.verifiers import programs
from rrl.verifiers.programs import Outcome, ProgramEvidence, find_program

FOUND = [
    # response, source
    ("print(1)", "print(1)"),
    ("  print(1)\n", "  print(1)\n"),
    ("```python\nx = 1\n```", "x = 1\n"),
    ("Here it is:\n```python\nx = 1\n```\nIt sets x.", "x = 1\n"),
    ("```\nx = 1\n```", "x = 1\n"),
    ("```py\nx = 1\n```", "x = 1\n"),
    ("```Python3\nx = 1\n```", "x = 1\n"),
    ("``` python \nx = 1\n```", "x = 1\n"),
    ("```{.python}\nx = 1\n```", "x = 1\n"),
    ("```python title=a\nx = 1\n```", "x = 1\n"),
    ("````python\nx = '''\n```\n'''\n````", "x = '''\n```\n'''\n"),
    ("~~~python\nx = 1\n~~~", "x = 1\n"),
    ("```python\r\nx = 1\r\n```\r\nDone.", "x = 1\r\n"),
    # several blocks: the last marked one, else the last unmarked one
    ("```python\nx = 1\n```\nBetter:\n```python\ny = 2\n```", "y = 2\n"),
    ("```python\nx = 1\n```\nIt prints\n```\n3\n```", "x = 1\n"),
    ("```\nx = 1\n```\n```\ny = 2\n```", "y = 2\n"),
    ("```json\n{}\n```\n```\ny = 2\n```", "y = 2\n"),
    ("```python\nx = 1\n```\n```bash\npython a.py\n```", "x = 1\n"),
    ("```python\nx = 1\n```\n```python\n \n```", "x = 1\n"),
    # unclosed
    ("```python\nx = 1\ny = ", "x = 1\ny = "),
    ("```python\nx = 1\n```\nBetter:\n```python\ny =", "y ="),
    ("```python\nx = 1\n```python\ny = 2\n```", "y = 2\n"),
    ("x = 1\n```\n", "x = 1\n"),  # the prompt has opened the block
    # behind other text a fence has to name Python, or nothing
    (" Answer: ```python\nx = 1\n```", "x = 1\n"),
    ("Answer:```py\nif x:\n    y = 1\n```", "if x:\n    y = 1\n"),
    ("The program: ```\nx = 1\n```", "x = 1\n"),
    ("**Answer** ```python\nx = 1", "x = 1"),
    ("```python\nx = 1```", "x = 1"),
    ("```python\nx = 1\n``` and so on", "x = 1\n"),
    ("x = 1```", "x = 1"),
    ("Answer: ```python print(1)```", "print(1)"),
    ("```python\nx = '''use ```python'''\n```", "x = '''use ```python'''\n"),
    # names of the language
    ("```python:a.py\nx = 1\n```", "x = 1\n"),
    ("```python,linenos\nx = 1\n```", "x = 1\n"),
    ("```python{1,3-4}\nx = 1\n```", "x = 1\n"),
    ("```{python}\nx = 1\n```", "x = 1\n"),
    ("```{code-block} python\nx = 1\n```", "x = 1\n"),
    ("```{.python .numberLines}\nx = 1\n```", "x = 1\n"),
    ("```lang=python\nx = 1\n```", "x = 1\n"),
    ("```language-python\nx = 1\n```", "x = 1\n"),
    ("```PYTHON 3.11\nx = 1\n```", "x = 1\n"),
    ("```pypy3\nx = 1\n```", "x = 1\n"),
    ("```ipython\nx = 1\n```", "x = 1\n"),
    ("```src/a.py\nx = 1\n```", "x = 1\n"),
    ("```\tpython\t\nx = 1\n```\t", "x = 1\n"),
    ("\u200b```python\u200b\nx = 1\n\ufeff```", "x = 1\n"),
    ("\u00a0```\u00a0python\nx = 1\n```\u00a0", "x = 1\n"),
    ("```python\n\ufeffx = 1\n```", "x = 1\n"),
    ("```\r\nx = 1\r\n```\r\n", "x = 1\r\n"),
    ("```python\rx = 1\r```\r", "x = 1\r"),
    ("~~~{.python}\nx = 1\n~~~~", "x = 1\n"),
    # in lists and quotes
    ("  ```python\n  x = 1\n  ```", "x = 1\n"),
    ("1. So:\n\n   ```python\n   if x:\n       y = 1\n\n   ```", "if x:\n    y = 1\n\n"),
    ("- ```python\n  x = 1\n  ```", "x = 1\n"),
    ("2) ```\n   x = 1\n   ```\n3) Done.", "x = 1\n"),
    ("*\t```python\n\tif x:\n\t\ty = 1\n\t```", "if x:\n\ty = 1\n"),
    ("   ```python\nif x:\n  y = 1\n   ```", "if x:\n  y = 1\n"),
    ("  ```python\n  x = 1\n# why\n  y = 2\n  ```", "x = 1\n# why\ny = 2\n"),
    ("  ```python\n    x = 1\n    y = 2\n  ```", "x = 1\ny = 2\n"),
    ("  ```python\n  x = '''\na'''\n  ```", "  x = '''\na'''\n"),  # no indentation that all lines share
    ("> ```python\n> x = 1\n> ```\n> Done.", "x = 1\n"),
    ("> > ```python\n> > if x:\n> >     y = 1\n> > ```", "if x:\n    y = 1\n"),
    ("> ```python\n> x = 1\nOutside.", "x = 1\n"),
    (">```python\n>x = 1\n>```", "x = 1\n"),
    ("````markdown\n```python\nx = 1\n```\n````", "x = 1\n"),
    ("````python\nx = '''\n```text\n'''\n````", "x = '''\n```text\n'''\n"),
    # sessions
    ("```python\n>>> x = 1\n>>> if x:\n...     print(x)\n...\n1\n>>> x\n```", "x = 1\nif x:\n    print(x)\n\nx\n"),
    (">>> print(1)\n1\n", "print(1)\n"),
    ("```pycon\n\n>>>x = 1\n```", "x = 1\n"),
    # what a model says to itself does not go before its answer
    ("<think>\n```python\nx = 1\n```\n</think>\n```\ny = 2\n```", "y = 2\n"),
    ("```python\nx = 1\n```\n</think>\n\ny = 2\n", "\n\ny = 2\n"),
    ("<think>```python\nx = 1\n```</think>\nAs I said.", "x = 1\n"),
    ("<think>```python\nx = (\n</think>\n```python\ny = 2\n```", "y = 2\n"),
    ("```python\nprint('</think>')\n```", "print('</think>')\n"),
    ("<reasoning>\n```python\nx = 1\n```\n</reasoning>\n```\ny = 2\n```", "y = 2\n"),
    ("[THINK]\n```python\nx = 1\n```[/THINK]\n```\ny = 2\n```", "y = 2\n"),
    ("<|begin_of_thought|>\n```python\nx = 1\n```\n<|end_of_thought|>\n\ny = 2\n", "\n\ny = 2\n"),
    ("◁think▷```python\nx = 1\n```\n◁/think▷```\ny = 2\n```", "y = 2\n"),
    ("```python\nprint('</analysis>')\n```", "print('</analysis>')\n"),
    # no fences
    ("x = '```'\n", "x = '```'\n"),
    ("```print(1)```", "```print(1)```"),
]


@pytest.mark.parametrize(("response", "source"), FOUND)
def test_the_program_of_a_response_and_where_its_lines_stand(response: str, source: str) -> None:
    program = find_program(response)
    assert program is not None
    assert program.source == source
    assert "".join(line for line, _ in program.lines()) == source
    for line, start in program.lines():
        assert response[start : start + len(line)] == line


@pytest.mark.parametrize(
    ("response", "starts"),
    [
        ("1. So:\n   ```python\n   if x:\n\n       y\n   ```", (23, 29, 33)),
        ("> ```python\n> if x:\n>     y\n> ```", (14, 22)),
        ("```\r\n>>> x\r\n1\r\n>>> y\r\n```", (9, 19)),
    ],
)
def test_places_of_lines_that_lost_their_margins_counted_by_hand(response: str, starts: tuple[int, ...]) -> None:
    program = find_program(response)
    assert program is not None
    assert program.starts == starts


@pytest.mark.parametrize(
    "response", ["", " \n\t", "```python\n```", "```python\n \n```", "```", "```java\nint x;\n```", "```json\n{}"]
)
def test_no_python_is_no_program(response: str) -> None:
    assert find_program(response) is None


LONG = {
    "a fence and blanks": "```" + " " * 2 * 10**5 + "`",
    "tildes": "~" * 2 * 10**5 + "`",
    "backticks": "`" * 2 * 10**5,
    "fences": "```\n" * 10**4,
    "fences of tildes in a line": "~~~ " * 10**5 + "`",
    "fences in a line": "``` " * 10**4 + "a",
    "quotes": "> " * 10**5 + "```python",
    "programs of one line": "```python a " * 10**4,
    "list items": "1. " * 10**4 + "```\n" * 9,
    "blanks": " " * 2 * 10**5 + "```python\n" + " " * 2 * 10**5 + "x",
    "indented lines": "```python\n" + "    x\n" * 10**4,
    "quoted lines": "> ```python\n" + "> x\n" * 10**4,
    "prompts": ">>> x\n" * 10**4,
    "ends of reasoning": "</think>\n" * 10**4,
    "ends of reasoning in a line": " </think>" * 10**4,
    "fences behind text": "a ```\n" * 10**4,
}


@pytest.mark.parametrize("name", LONG)
def test_long_responses_take_no_long_time(name: str) -> None:
    begin = time.perf_counter()
    find_program(LONG[name])
    assert time.perf_counter() - begin < 3


def test_evidence_survives_as_plain_data() -> None:
    test = programs.TestResult(Outcome.RUNTIME_ERROR, "KeyError", 3, "'x'")
    evidence = ProgramEvidence(Outcome.RUNTIME_ERROR, "x", 4, 0, 1, "KeyError", 3, "'x'", (test,))
    plain = evidence.as_mapping()
    assert plain["outcome"] == "runtime_error"
    assert plain["tests"] == [{"outcome": "runtime_error", "error": "KeyError", "line": 3, "message": "'x'"}]
    assert ProgramEvidence.of(plain) == evidence


@pytest.mark.parametrize("response", ["\ufeff", "\ufeff\n\ufeff", "\u200b \n\u2060", "```python\n\ufeff\n```"])
def test_what_no_one_sees_is_no_program(response: str) -> None:
    assert find_program(response) is None


def test_a_carriage_return_and_a_line_that_is_empty_in_its_quote_are_two_lines() -> None:
    found = find_program("> ```python\n> x = 1\r>\n> y = 2\n> ```")
    assert found is not None
    assert found.lines() == [("x = 1\n", 14), ("\n", 21), ("y = 2\n", 24)]


@settings(max_examples=300, derandomize=True, deadline=None)
@given(text(alphabet="`~> \r\n\ufeffx#-1.\t", max_size=40), sampled_from(["", "```python\n", "> ```py\n", "- ```\n"]))
def test_every_line_of_a_program_has_its_place_whatever_the_response_is(response: str, opening: str) -> None:
    found = find_program(opening + response)
    for line, start in [] if found is None else found.lines():
        body = line.rstrip("\r\n")
        assert (opening + response)[start : start + len(body)] == body
