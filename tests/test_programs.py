"""Programs in responses: which block counts, and exactly where it begins."""

import time

import pytest

from rrl import programs
from rrl.programs import Outcome, ProgramEvidence, find_program

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
    ("  ```python\n  x = 1\n  ```", "  x = 1\n"),
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
    # a fence has a line of its own
    ("x = '```'\n", "x = '```'\n"),
    ("```print(1)```", "```print(1)```"),
]


@pytest.mark.parametrize(("response", "source"), FOUND)
def test_the_program_of_a_response_and_where_it_begins(response: str, source: str) -> None:
    program = find_program(response)
    assert program is not None
    assert program.source == source
    assert response[program.start : program.start + len(source)] == source
    assert response[: program.start].endswith("\n") or program.start == 0


@pytest.mark.parametrize(
    "response", ["", " \n\t", "```python\n```", "```python\n \n```", "```", "```java\nint x;\n```", "```json\n{}"]
)
def test_no_python_is_no_program(response: str) -> None:
    assert find_program(response) is None


@pytest.mark.parametrize("response", ["```" + " " * 10**6 + "`", "~" * 10**6 + "`", "`" * 10**6, "```\n" * 10**5])
def test_long_responses_take_no_long_time(response: str) -> None:
    begin = time.perf_counter()
    find_program(response)
    assert time.perf_counter() - begin < 5


def test_evidence_survives_as_plain_data() -> None:
    test = programs.TestResult(Outcome.RUNTIME_ERROR, "KeyError", 3, "'x'")
    evidence = ProgramEvidence(Outcome.RUNTIME_ERROR, "x", 4, 0, 1, "KeyError", 3, "'x'", (test,))
    plain = evidence.as_mapping()
    assert plain["outcome"] == "runtime_error"
    assert plain["tests"] == [{"outcome": "runtime_error", "error": "KeyError", "line": 3, "message": "'x'"}]
    assert ProgramEvidence.of(plain) == evidence
