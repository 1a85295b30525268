"""Parts of a user's own that fail, or give a start that no run can use: reported by class, method, file and line."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from fixtures.training import limits, make_engine, make_trainer, problems
from rrl.contracts import border, examining, judging
from rrl.contracts.calling import calling
from rrl.contracts.guiding import guided_state
from rrl.errors import ContractError, DataError, DivergenceError, PartError
from rrl.parts.engines.hf import HFEngine
from rrl.parts.samplers.problems import Problems
from rrl.processes.out_of_memory import out_of_memory_message
from rrl.records.texts import shortened
from rrl.types import Example, Problem, State

LIMITS = limits()
FIRST = problems()[0]
MEND = "; fix this class (docs/adding-a-part.md)"
HERE = Path(__file__).resolve()


def line_of(text: str) -> int:
    """The number of the line of this file that ends with a text."""
    lines = HERE.read_text().splitlines()
    return 1 + next(number for number, line in enumerate(lines) if line.endswith(text))


class Raises:
    """A part of any kind that raises when it is called."""

    error: BaseException = KeyError("x")
    sampling = make_engine().sampling

    def _raise(self, *given: Any, **named: Any) -> Any:
        raise self.error  # here

    examples = demonstrations = vocabulary = pairs = begin = verify = sample = events = observe = generate = _raise
    cuts = score = examine = expense = state = judge = assign_credit = experience = loss = state_dict = __call__ = (
        _raise
    )


CALLS: dict[str, Callable[[Any], Any]] = {
    "task examples('train')": lambda part: border.examples(part, "train"),
    "task demonstrations": lambda part: border.demonstrations(part, 1, 0),
    "task vocabulary": border.vocabulary,
    "task pairs": lambda part: border.pairs(part, "train"),
    "task begin": lambda part: border.begin(part)([]),
    "task verify": lambda part: border.feedback(part, []),
    "sampler sample": lambda part: border.starts(part, 1, 0.0, LIMITS),
    "sampler events": border.events,
    "engine generate": lambda part: border.rollouts(part, []),
    "reward __call__": lambda part: border.token_rewards(part, None),  # type: ignore[arg-type]
    "reward observe": lambda part: border.observed("reward", part, (), []),
    "sampler observe": lambda part: border.observed("sampler", part, (), []),
    "objective assign_credit": lambda part: border.credit(part, None),  # type: ignore[arg-type]
    "objective experience": lambda part: border.experience(part, part, [], None),  # type: ignore[arg-type]
    "objective loss": lambda part: border.losses(part, None, None),  # type: ignore[arg-type]
    "selection cuts": lambda part: border.cuts(part, None, [], None),  # type: ignore[arg-type]
    "selection score": lambda part: border.cut_score(part, None, 0),  # type: ignore[arg-type]
    "selection examine": lambda part: examining.examined(part, [], [], None),  # type: ignore[arg-type]
    "selection expense": lambda part: examining.expense("selection", part, 1),
    "guidance state": lambda part: guided_state(part, FIRST, 0, LIMITS),
    "reward model score": lambda part: judging.scores(part, []),
    "judge judge": lambda part: judging.judgements(part, [], None),  # type: ignore[arg-type]
    "reward state_dict": lambda part: border.state("reward", part),
}


@pytest.mark.parametrize("name", CALLS)
def test_what_a_part_raises_is_reported_by_kind_class_method_and_line_with_its_cause(name: str) -> None:
    part = Raises()
    with pytest.raises(PartError) as caught:
        CALLS[name](part)
    kind, _, method = name.rpartition(" ")
    where = f"{HERE}, line {line_of('raise self.error  # here')}"
    reported = f"{kind}: test_failing_parts.Raises.{method} failed ({where}: KeyError: 'x'){MEND}"
    assert list(caught.value.faults) == [reported]
    assert caught.value.__cause__ is part.error


class Rude(Exception):
    def __str__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(
    ("error", "reported"),
    [
        (ValueError("one\ntwo"), "ValueError: one"),
        (AssertionError(), "AssertionError"),
        (StopIteration(), "StopIteration"),
        (SystemExit(3), "SystemExit: 3"),
        (NotImplementedError(), "NotImplementedError"),
        (Rude(), "Rude: <RuntimeError in its str>"),
        (OSError(28, "No space left on device"), "OSError: [Errno 28] No space left on device"),
        (ValueError("y" * 500), "ValueError: " + "y" * 288),
    ],
)
def test_any_error_is_reported_in_a_line(error: BaseException, reported: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Raises, "error", error)
    with pytest.raises(PartError) as caught:
        border.feedback(Raises(), [])  # type: ignore[arg-type]
    assert caught.value.faults[0].endswith(f": {reported}){MEND}")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), DataError("a.jsonl: empty"), DivergenceError("loss: nan")])
def test_a_fault_that_a_part_reports_itself_and_an_interruption_pass(
    error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Raises, "error", error)
    with pytest.raises(type(error)) as caught:
        border.feedback(Raises(), [])  # type: ignore[arg-type]
    assert caught.value is error


def test_an_error_of_a_part_of_ours_passes() -> None:
    with pytest.raises(KeyError), calling("sampler", Problems(level_weights=None), "sample"):
        raise KeyError("x")


def test_a_method_of_another_signature_is_reported_where_it_begins() -> None:
    class Narrow:
        def verify(self) -> Any: ...

    with pytest.raises(PartError) as caught:
        border.feedback(Narrow(), [])  # type: ignore[arg-type]
    where = f"{HERE}, line {line_of('def verify(self) -> Any: ...')}"
    assert f"Narrow.verify failed ({where}: TypeError: " in caught.value.faults[0]
    assert "takes 1 positional argument but 2 were given" in caught.value.faults[0]


@pytest.mark.parametrize(
    ("deep", "reported"),
    [
        (lambda: json.loads("{"), "JSONDecodeError"),
        (lambda: yaml.safe_load("{"), "ParserError"),
        (lambda: shortened(None, 4), "TypeError"),  # type: ignore[arg-type]
        (lambda: State(*range(9)), "TypeError"),  # type: ignore[arg-type]
    ],
    ids=["the library", "a package", "ours", "a call of ours"],
)
def test_the_line_is_the_users_where_a_library_a_package_or_we_raise(deep: Callable[[], Any], reported: str) -> None:
    class Deep(Problems):
        def sample(self, count: int, progress: float) -> Any:
            return deep()

    with pytest.raises(PartError) as caught:
        border.starts(Deep(level_weights=None), 1, 0.0, LIMITS)
    assert f"({HERE}, line {deep.__code__.co_firstlineno}: {reported}: " in caught.value.faults[0]


def test_memory_that_a_part_has_run_out_of_is_reported_with_the_part() -> None:
    error = PartError("sampler: own.Mine.sample failed (MemoryError)")
    error.__cause__ = MemoryError()
    reported = out_of_memory_message(error, "gen", {"policy": {"zero_stage": 0}}, 1)
    assert reported is not None and reported.startswith(
        "sampler: own.Mine.sample failed (MemoryError)\ngen: memory could not"
    )


class Gives(Problems):
    """A sampler that gives the one state that it is reported to."""

    def __init__(self, state: State) -> None:
        self.state = state

    def sample(self, count: int, progress: float) -> list[State]:
        return [self.state] * count


CHANGED = replace(FIRST, prompt=(*FIRST.prompt, 4))
NEW = Problem(Example("mine", "L", "q", "", "a"), FIRST.prompt, ())


@pytest.mark.parametrize(
    ("state", "reported"),
    [
        (State(FIRST, (4, 76)), "token 76 in the prefix (the model embeds 76) of item 0"),
        (State(FIRST, (10**9,)), "token 1000000000 in the prefix (the model embeds 76) of item 0"),
        (State(FIRST, (4,) * 6), "a prefix of 6 tokens (a whole response has at most 6) of item 0"),
        (State(FIRST, (4,) * 7), "a prefix of 7 tokens (a whole response has at most 6) of item 0"),
        (State(replace(FIRST, prompt=(76,))), "token 76 in the prompt (the model embeds 76) of item 0"),
        (State(replace(FIRST, prompt=())), "prompt () (tuple) of item 0"),
        (State(replace(FIRST, prompt=[4])), "prompt [4] (list) of item 0"),  # type: ignore[arg-type]
        (State(replace(FIRST, prompt=(4,) * 59)), "a prompt of 59 tokens (at most 58) of item 0"),
        (State(CHANGED), f"problem {FIRST.id!r} of item 0, changed since start gave it"),
        (State(NEW), "problem 'mine' of item 0, which start did not give"),
    ],
)
def test_a_start_is_of_a_problem_that_was_given_and_leaves_room_to_write(state: State, reported: str) -> None:
    with pytest.raises(ContractError) as caught:
        border.starts(Gives(state), 1, 0.0, LIMITS)
    expected = (
        "a Problem that start gave, token ids below 76, fewer than 6, as prefix, and a name or None as replayed_from"
    )
    assert caught.value.faults == (f"test_failing_parts.Gives.sample: returned {reported}; expected {expected}{MEND}",)


@pytest.mark.parametrize("state", [State(FIRST, (75,) * 5, "x"), State(replace(FIRST)), State(FIRST, (), "x")])
def test_a_start_within_the_limits_passes(state: State) -> None:
    assert border.starts(Gives(state), 2, 0.0, LIMITS) == [state, state]


def test_help_may_change_the_prompt_but_keeps_to_the_limits() -> None:
    class Help:
        def state(self, problem: Problem, attempt: int) -> State:
            return State(replace(problem, prompt=(attempt,)), (), help="mine")

    assert guided_state(Help(), FIRST, 75, LIMITS) is not None  # type: ignore[arg-type]
    with pytest.raises(ContractError, match=r"Help\.state: returned token 76 in the prompt"):
        guided_state(Help(), FIRST, 76, LIMITS)  # type: ignore[arg-type]


class Wild(HFEngine):
    """An engine that writes what it likes."""

    change: Any = None

    def generate(self, *given: Any, **named: Any) -> Any:
        return [replace(rollout, **self.change(rollout)) for rollout in super().generate(*given, **named)]


@pytest.mark.parametrize(
    ("change", "reported"),
    [
        (lambda r: {"actions": (76,) * len(r.actions)}, "rollout 0: token 76 in the actions (the model embeds 76)"),
        (lambda r: {n: (4,) * 7 if n == "actions" else (-1.0,) * 7 for n in ("actions", "logprobs", "kept")},
         "rollout 0: 7 actions behind 0 tokens (at most 6 together)"),
        (lambda r: {"finished": None}, "rollout 0: finished None (NoneType)"),
        (lambda r: {"version": "1"}, "rollout 0: version '1' (str)"),
        (lambda r: {"logprobs": None}, "rollout 0: logprobs None (NoneType) of "),
    ],
)  # fmt: skip
def test_an_engine_writes_what_the_model_can_read(change: Any, reported: str) -> None:
    engine = Wild(temperature=1.0, max_response_length=6, stop=(), batch_size=8)
    engine.change = change
    with pytest.raises(ContractError) as caught:
        make_trainer(engine=engine).step()
    assert caught.value.faults[0].startswith(f"test_failing_parts.Wild.generate: returned {reported}")
