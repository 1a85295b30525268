"""Whatever is written, nothing ends a run, nothing is right without the answer, and nothing is left behind.

Responses go the whole way: verdict, reward, metrics, dump, tracker, log, and judged again from the dump.
"""

import logging
import os
import signal
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fixtures.apps import SETTINGS
from fixtures.fuzz import FENCED, LONG, WRITTEN
from fixtures.math_task import LIMITS, make_task
from fixtures.sandbox import family, other
from rrl.contracts import border
from rrl.interfaces import Task
from rrl.parts.rewards.outcomes import Pay
from rrl.parts.rewards.ppocoder import PPOCoder
from rrl.parts.rewards.rltf import RLTF
from rrl.parts.rewards.verdict import OutcomeReward as Paid
from rrl.parts.tasks.apps import APPS
from rrl.parts.tasks.coding import CodingTask
from rrl.parts.tasks.gsm8k import GSM8K
from rrl.parts.tasks.minichat import MiniChat
from rrl.parts.tasks.trace import Trace
from rrl.processes.logs import open_log
from rrl.records.run_directory import dump_rollouts, rollout_rows
from rrl.records.texts import visible
from rrl.records.tracking import TensorBoard, Tracker
from rrl.sandbox.sandbox import Sandbox
from rrl.study.rescore import as_table, rescore
from rrl.training.metrics import rollout_metrics
from rrl.types import Example, Judged, Problem, Rollout, State, Verdict
from rrl.verifiers.math_verifier import MathVerifier
from rrl.verifiers.program_verifier import ProgramVerifier, Suite

SECRET = "kept-98765"
"""Of its digits none occurs in what is drawn."""
PAY = Pay(passed=1.0, wrong_answer=-0.3, runtime_error=-0.6, compile_error=-1.0)
FEW, MANY = {"batches": 5, "size": 6}, {"batches": 250, "size": 10}


@dataclass
class Way:
    """A task with a problem whose answer is not drawn, an honest response to it, and what pays for responses."""

    task: Task
    example: Example
    honest: str
    rewards: Sequence[Any]


class Pieces:
    """A tokenizer: a token is a piece of a text that it has seen."""

    def __init__(self) -> None:
        self._pieces: list[str] = []

    def encode(self, text: str) -> tuple[int, ...]:
        size = max(1, len(text) // 30)
        pieces = [text[start : start + size] for start in range(0, len(text), size)] or [""]
        self._pieces += pieces
        return tuple(range(len(self._pieces) - len(pieces), len(self._pieces)))

    def decode(self, tokens: Sequence[int]) -> str:
        return "".join(self._pieces[token] for token in tokens)


def example(answer: str, reference: str = "", level: str = "l") -> Example:
    return Example(id="p", level=level, question="?", reference=reference, answer=answer, strata={})


def ways(sandbox: Sandbox) -> dict[str, Way]:
    """Every kind of verdict that needs no model."""
    judge, pieces = ProgramVerifier(sandbox=sandbox, tolerance=1e-6, stop_at_failure=False), Pieces()
    rltf = RLTF(pay=PAY, adaptive=True, relative=False, paid_on="last", penalty=0.3, penalty_on="token")
    rltf.start(pieces, lambda states: [])
    code = (rltf, PPOCoder(signal="tests", pay=PAY, signal_weight=1.0, syntax_weight=1.0, semantics_weight=1.0))
    gsm8k = GSM8K(path=None, hub_id="", calculator_annotations=False, answer_format="flexible")
    math = make_task(MathVerifier(**LIMITS))
    coding = APPS(**SETTINGS, path=None, hub_id="", judge=judge)
    minichat = MiniChat(train_per_level=20, start_seed=0, demonstration_quality=0.6)
    script = Suite(function=None, entry=None, inputs=("3\n",), outputs=(SECRET,)).as_text()
    call = Suite(function="f", entry=None, inputs=([3],), outputs=(SECRET,)).as_text()
    chat = minichat.examples("train")[0]
    trace = Trace(train_per_level=20, start_seed=0, demonstration_lengths=(1, 3), demonstration_weak=0.04)
    paid = (Paid(truncation_penalty=0.1),)
    return {
        "gsm8k": Way(gsm8k, example("98765"), "#### 98765", paid),
        "math": Way(math, example("98765"), "\\boxed{98765}", paid),
        "trace": Way(trace, example("8 7 9", "8 7 9", "L3"), "8 7 9", paid),
        "minichat": Way(minichat, chat, chat.reference, paid),
        "script": Way(coding, example(script, "```python\nx = 1\n```"), f"```python\nprint('{SECRET}')\n```", code),
        "call": Way(coding, example(call, "x = 1"), f"def f(x): return '{SECRET}'", code),
    }


@pytest.fixture(scope="module")
def all_ways(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Way]]:
    """What is left behind is looked for when all is over."""
    folder = tmp_path_factory.mktemp("sandboxes")
    before, tempfile.tempdir = set(family(os.getpid())), str(folder)
    sandbox = Sandbox(limits=other(cpu_seconds=0.3, wall_seconds=5.0), workers=2, isolation="auto")
    made = ways(sandbox)
    yield made
    sandbox.close()
    made["math"].task.judge.close()
    tempfile.tempdir = None
    assert not list(folder.iterdir())
    assert set(family(os.getpid())) <= before


def travel(way: Way, responses: Sequence[str], folder: Path) -> list[Verdict]:
    """From responses to verdicts, over everything that is reported them."""
    pieces = next((reward._tokenizer for reward in way.rewards if isinstance(reward, RLTF)), Pieces())
    state = State(Problem(way.example, (), ()))
    tokens = [pieces.encode(response) for response in responses]
    rollouts = [
        Rollout(state, actions, (-1.0,) * len(actions), (0.5,) * len(actions), True, response, 0)
        for actions, response in zip(tokens, responses, strict=True)
    ]
    way.task.begin(rollouts)
    judged = list(map(Judged, rollouts, border.feedback(way.task, rollouts)))
    for reward in way.rewards:
        reward.observe(judged)
        for each in judged:
            assert len(reward(each)) == len(each.rollout.actions)
    metrics = rollout_metrics(judged)
    rows = rollout_rows(0, judged, pieces)
    dump_rollouts(folder / "step-000000.jsonl", rows)
    tracker = Tracker(folder, TensorBoard(), {}, None)
    tracker.log(0, metrics)
    tracker.samples(0, rows)
    tracker.finish()
    with open_log(folder, 0):
        logging.getLogger("rrl.fuzz").info("%s %s", responses[0], judged[0])
    again = rescore(way.task, [folder / "step-000000.jsonl"])
    assert not again.unreadable
    visible(as_table(again, 20)).encode()
    assert [each.verdict for each in again.feedback] == [each.feedback.verdict for each in judged]
    return [each.feedback.verdict for each in judged]


def strike(way: Way) -> None:
    """A server of the sandbox dies."""
    workers = way.task.judge.sandbox._pool.workers if isinstance(way.task, CodingTask) else []
    for worker in workers[:1]:
        if worker.child is not None:
            os.killpg(worker.child._process.pid, signal.SIGKILL)


def fuzz(name: str, all_ways: dict[str, Way], batches: int, size: int) -> int:
    """So many batches, each with an honest response somewhere in it; how many there were."""
    judged = 0
    one = st.one_of(FENCED, FENCED, FENCED, WRITTEN) if name in ("script", "call") else st.one_of(WRITTEN, FENCED)
    drawn = st.lists(st.one_of(*[one] * 9, LONG), min_size=size - 1, max_size=size - 1)

    @settings(max_examples=batches, deadline=None, database=None, derandomize=True, suppress_health_check=HealthCheck)
    @given(responses=drawn, place=st.integers(0, size - 1), dies=st.integers(0, 9))
    def check(responses: list[str], place: int, dies: int) -> None:
        nonlocal judged
        way = all_ways[name]
        if dies == 3:
            strike(way)
        batch = [*responses[:place], way.honest, *responses[place:]]
        with tempfile.TemporaryDirectory() as folder:
            verdicts = travel(way, batch, Path(folder))
        assert [number for number, verdict in enumerate(verdicts) if verdict is Verdict.RIGHT] == [place]
        judged += 1

    check()
    return judged


NAMES = ("gsm8k", "math", "trace", "minichat", "script", "call")


@pytest.mark.parametrize("name", NAMES)
def test_some_responses_end_nothing_and_are_right_only_with_the_answer(name: str, all_ways: dict[str, Way]) -> None:
    assert fuzz(name, all_ways, **FEW) >= FEW["batches"]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_ten_thousand_responses_end_nothing_and_are_right_only_with_the_answer(
    name: str, all_ways: dict[str, Way]
) -> None:
    assert fuzz(name, all_ways, **MANY) >= MANY["batches"]
