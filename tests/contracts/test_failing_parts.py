"""Parts of a user's own that fail, or return what no run can go on with: told by class, method, file and line."""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from fixtures.runs import arguments
from fixtures.training import EvenTokens, limits, make_engine, make_trainer, ppo, problems
from rrl.cli import train
from rrl.cli.shell import guarded
from rrl.config.check import load
from rrl.config.compose import compose_saved
from rrl.contracts import border
from rrl.contracts.calling import calling
from rrl.errors import ConfigError, ContractError, DataError, DivergenceError, PartError
from rrl.parts.engines.hf import HFEngine
from rrl.parts.objectives.ppo import PPO
from rrl.parts.samplers.problems import Problems
from rrl.parts.tasks.trace import Trace
from rrl.processes.out_of_memory import out_of_memory_message
from rrl.records.texts import as_json, shortened
from rrl.runs.checkpoint import Checkpoints
from rrl.training.models import HuggingFace
from rrl.types import Example, Judgement, Preference, Problem, State

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

    examples = demonstrations = vocabulary = pairs = begin = verify = sample = observe = generate = _raise
    cuts = score = state = judge = assign_credit = experience = loss = state_dict = __call__ = _raise


CALLS: dict[str, Callable[[Any], Any]] = {
    "task examples('train')": lambda part: border.examples(part, "train"),
    "task demonstrations": lambda part: border.demonstrations(part, 1, 0),
    "task vocabulary": border.vocabulary,
    "task pairs": lambda part: border.pairs(part, "train"),
    "task begin": lambda part: border.begin(part)([]),
    "task verify": lambda part: border.feedback(part, []),
    "sampler sample": lambda part: border.starts(part, 1, 0.0, LIMITS),
    "engine generate": lambda part: border.rollouts(part, []),
    "reward __call__": lambda part: border.token_rewards(part, None, None),  # type: ignore[arg-type]
    "reward observe": lambda part: border.observed("reward", part, (), []),
    "sampler observe": lambda part: border.observed("sampler", part, (), []),
    "objective assign_credit": lambda part: border.credit(part, None),  # type: ignore[arg-type]
    "objective experience": lambda part: border.experience(part, [], None),  # type: ignore[arg-type]
    "objective loss": lambda part: border.losses(part, None, None),  # type: ignore[arg-type]
    "selection cuts": lambda part: border.cuts(part, None, [], None),  # type: ignore[arg-type]
    "selection score": lambda part: border.cut_score(part, None, 0),  # type: ignore[arg-type]
    "guidance state": lambda part: border.guided_state(part, FIRST, 0, LIMITS),
    "reward model score": lambda part: border.scores(part, []),
    "judge judge": lambda part: border.judgements(part, [], None),  # type: ignore[arg-type]
    "reward state_dict": lambda part: border.state("reward", part),
}


@pytest.mark.parametrize("name", CALLS)
def test_what_a_part_raises_is_told_by_kind_class_method_and_line_with_its_cause(name: str) -> None:
    part = Raises()
    with pytest.raises(PartError) as caught:
        CALLS[name](part)
    kind, _, method = name.rpartition(" ")
    where = f"{HERE}, line {line_of('raise self.error  # here')}"
    told = f"{kind}: test_failing_parts.Raises.{method} failed ({where}: KeyError: 'x'){MEND}"
    assert list(caught.value.faults) == [told]
    assert caught.value.__cause__ is part.error


class Rude(Exception):
    def __str__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(
    ("error", "told"),
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
def test_any_error_is_told_in_a_line(error: BaseException, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Raises, "error", error)
    with pytest.raises(PartError) as caught:
        border.feedback(Raises(), [])  # type: ignore[arg-type]
    assert caught.value.faults[0].endswith(f": {told}){MEND}")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), DataError("a.jsonl: empty"), DivergenceError("loss: nan")])
def test_a_fault_that_a_part_tells_itself_and_an_interruption_pass(
    error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Raises, "error", error)
    with pytest.raises(type(error)) as caught:
        border.feedback(Raises(), [])  # type: ignore[arg-type]
    assert caught.value is error


def test_an_error_of_a_part_of_ours_passes() -> None:
    with pytest.raises(KeyError), calling("sampler", Problems(level_weights=None), "sample"):
        raise KeyError("x")


def test_a_method_of_another_signature_is_told_where_it_begins() -> None:
    class Narrow:
        def verify(self) -> Any: ...

    with pytest.raises(PartError) as caught:
        border.feedback(Narrow(), [])  # type: ignore[arg-type]
    where = f"{HERE}, line {line_of('def verify(self) -> Any: ...')}"
    assert f"Narrow.verify failed ({where}: TypeError: " in caught.value.faults[0]
    assert "takes 1 positional argument but 2 were given" in caught.value.faults[0]


@pytest.mark.parametrize(
    ("deep", "told"),
    [
        (lambda: json.loads("{"), "JSONDecodeError"),
        (lambda: yaml.safe_load("{"), "ParserError"),
        (lambda: shortened(None, 4), "TypeError"),  # type: ignore[arg-type]
        (lambda: State(*range(9)), "TypeError"),  # type: ignore[arg-type]
    ],
    ids=["the library", "a package", "ours", "a call of ours"],
)
def test_the_line_is_the_users_where_a_library_a_package_or_we_raise(deep: Callable[[], Any], told: str) -> None:
    class Deep(Problems):
        def sample(self, count: int, progress: float) -> Any:
            return deep()

    with pytest.raises(PartError) as caught:
        border.starts(Deep(level_weights=None), 1, 0.0, LIMITS)
    assert f"({HERE}, line {deep.__code__.co_firstlineno}: {told}: " in caught.value.faults[0]


def test_memory_that_a_part_has_run_out_of_is_told_with_the_part() -> None:
    error = PartError("sampler: own.Mine.sample failed (MemoryError)")
    error.__cause__ = MemoryError()
    told = out_of_memory_message(error, "gen", {"policy": {"zero_stage": 0}}, 1)
    assert told is not None and told.startswith("sampler: own.Mine.sample failed (MemoryError)\ngen: memory could not")


# --- starts -----------------------------------------------------------------------------------------------------------


class Gives(Problems):
    """A sampler that gives the one state that it is told to."""

    def __init__(self, state: State) -> None:
        self.state = state

    def sample(self, count: int, progress: float) -> list[State]:
        return [self.state] * count


CHANGED = replace(FIRST, prompt=(*FIRST.prompt, 4))
NEW = Problem(Example("mine", "L", "q", "", "a"), FIRST.prompt, ())


@pytest.mark.parametrize(
    ("state", "told"),
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
def test_a_start_is_of_a_problem_that_was_given_and_leaves_room_to_write(state: State, told: str) -> None:
    with pytest.raises(ContractError) as caught:
        border.starts(Gives(state), 1, 0.0, LIMITS)
    expected = (
        "a Problem that start gave, token ids below 76, fewer than 6, as prefix, and a name or None as replayed_from"
    )
    assert caught.value.faults == (f"test_failing_parts.Gives.sample: returned {told}; expected {expected}{MEND}",)


@pytest.mark.parametrize("state", [State(FIRST, (75,) * 5, "x"), State(replace(FIRST)), State(FIRST, (), "x")])
def test_a_start_within_the_limits_passes(state: State) -> None:
    assert border.starts(Gives(state), 2, 0.0, LIMITS) == [state, state]


def test_help_may_change_the_prompt_but_keeps_to_the_limits() -> None:
    class Help:
        def state(self, problem: Problem, attempt: int) -> State:
            return State(replace(problem, prompt=(attempt,)), (), help="mine")

    assert border.guided_state(Help(), FIRST, 75, LIMITS) is not None  # type: ignore[arg-type]
    with pytest.raises(ContractError, match=r"Help\.state: returned token 76 in the prompt"):
        border.guided_state(Help(), FIRST, 76, LIMITS)  # type: ignore[arg-type]


class Wild(HFEngine):
    """An engine that writes what it likes."""

    change: Any = None

    def generate(self, *given: Any, **named: Any) -> Any:
        return [replace(rollout, **self.change(rollout)) for rollout in super().generate(*given, **named)]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda r: {"actions": (76,) * len(r.actions)}, "rollout 0: token 76 in the actions (the model embeds 76)"),
        (lambda r: {n: (4,) * 7 if n == "actions" else (-1.0,) * 7 for n in ("actions", "logprobs", "kept")},
         "rollout 0: 7 actions behind 0 tokens (at most 6 together)"),
        (lambda r: {"finished": None}, "rollout 0: finished None (NoneType)"),
        (lambda r: {"version": "1"}, "rollout 0: version '1' (str)"),
        (lambda r: {"logprobs": None}, "rollout 0: logprobs None (NoneType) of "),
    ],
)  # fmt: skip
def test_an_engine_writes_what_the_model_can_read(change: Any, told: str) -> None:
    engine = Wild(temperature=1.0, max_response_length=6, stop=(), batch_size=8)
    engine.change = change
    with pytest.raises(ContractError) as caught:
        make_trainer(engine=engine).step()
    assert caught.value.faults[0].startswith(f"test_failing_parts.Wild.generate: returned {told}")


# --- metrics, mutation, state -----------------------------------------------------------------------------------------


class Tells(EvenTokens):
    """A reward with metrics of its own."""

    metrics: Any = None

    def observe(self, rollouts: Any, feedback: Any) -> Any:
        return self.metrics


OURS = "names that the run does not use itself, and that do not begin with "
BEGIN = OURS + "training/, budget/, timing_s/, perf/, val/, val-core/, actor/, critic/"


@pytest.mark.parametrize(
    ("metrics", "told"),
    [
        ({"critic/score/mean": 1.0}, f"a metric named 'critic/score/mean' (str); expected {BEGIN}"),
        ({"replay/ratio": 1.0}, f"a metric named 'replay/ratio' (str); expected {BEGIN}"),
        ({"verdict/right": 1.0}, f"a metric named 'verdict/right' (str); expected {BEGIN}"),
        ({"training/global_step": 9}, f"a metric named 'training/global_step' (str); expected {BEGIN}"),
        ({"perf/mine": 9, "a": 1}, f"a metric named 'perf/mine' (str); expected {BEGIN}"),
        ({"a": float("nan")}, "'a' (str): nan (float); expected a mapping of names to finite numbers"),
        ({"a": float("-inf")}, "'a' (str): -inf (float); expected a mapping of names to finite numbers"),
        ({"a": torch.ones(1)}, "'a' (str): tensor([1.]) (Tensor); expected a mapping of names to finite numbers"),
        ({"a": "1"}, "'a' (str): '1' (str); expected a mapping of names to finite numbers"),
        ({"a\ud83d": 1}, r"'a\ud83d' (str): 1 (int); expected a mapping of names to finite numbers"),
        (None, "None (NoneType); expected a mapping of names to finite numbers"),
    ],
)
def test_metrics_of_ones_own_are_finite_under_names_of_their_own(metrics: Any, told: str) -> None:
    reward = Tells()
    object.__setattr__(reward, "metrics", metrics)
    with pytest.raises(ContractError) as caught:
        make_trainer(reward=reward).step()
    assert caught.value.faults == (f"test_failing_parts.Tells.observe: returned {told}{MEND}",)


def test_metrics_of_ones_own_stand_in_the_row_as_floats() -> None:
    reward = Tells()
    object.__setattr__(reward, "metrics", {"mine/count": True, "mine/share": 2})
    row = make_trainer(reward=reward).step()
    assert [(type(row[name]), row[name]) for name in ("mine/count", "mine/share")] == [(float, 1.0), (float, 2.0)]


@dataclass(kw_only=True)
class Odd(PPO):
    """An objective whose metrics depend on what it is shown."""

    names: tuple[str, ...]
    scale: float = 1.0
    _calls: int = 0

    def loss(self, batch: Any, output: Any) -> Any:
        actor, critic, told = super().loss(batch, output)
        self._calls += 1
        return actor, critic, told | {name: 4.0 for name in self.names[self._calls - 1 :][:1]}


def odd(*names: str) -> Odd:
    shown = {name: value for name, value in vars(ppo()).items() if not name.startswith("_")}
    return Odd(names=names, **shown)


def test_a_metric_that_a_loss_tells_now_and_then_counts_as_nothing_elsewhere() -> None:
    row = make_trainer(objective=odd("", "mine")).step()  # 2 epochs of 2 mini-batches, one micro-batch each
    assert row["mine"] == 1.0


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("actor/lr", "names that the run does not use itself"),
        ("critic/score/mean", "names that the run does not use itself"),
        ("perf/x", OURS + "training/, budget/, timing_s/, perf/, val/, val-core/"),
    ],
)
def test_a_loss_tells_nothing_under_names_of_ours(name: str, expected: str) -> None:
    with pytest.raises(ContractError) as caught:
        make_trainer(objective=odd(name)).step()
    told = f"test_failing_parts.Odd.loss: returned a metric named '{name}' (str); expected {expected}{MEND}"
    assert caught.value.faults == (told,)


class Returned:
    """An objective that returns what it is told to."""

    def __init__(self, value: Any) -> None:
        self.assign_credit = self.loss = self.experience = lambda *given: value


def test_credit_has_a_cell_for_each_token_and_a_loss_has_a_gradient() -> None:
    seen: list[Any] = []
    trainer = make_trainer()
    trainer.objective.assign_credit = lambda batch: seen.append(batch) or batch  # type: ignore[method-assign,func-returns-value]
    trainer.step()
    (batch,) = seen
    rows, columns = batch.tokens.shape
    for wrong, shape in ((batch.advantages[:, :1], [rows, 1]), (batch.advantages[:, 0], [rows]), (None, [])):
        with pytest.raises(ContractError) as caught:
            border.credit(Returned(batch.with_(advantages=wrong)), batch)  # type: ignore[arg-type]
        assert f"returned advantages of shape {shape}, not [{rows}, {columns}]; expected" in caught.value.faults[0]
    losses = Returned((torch.zeros(()), torch.zeros(()), {}))
    with pytest.raises(ContractError, match="as actor loss, without a gradient; expected two tensors"):
        border.losses(losses, batch, trainer.policy(batch))  # type: ignore[arg-type]


class Vandal(Problems):
    """A sampler that spoils what it is shown."""

    def observe(self, rollouts: Any, feedback: Any, batch: Any) -> Any:
        rollouts.clear(), feedback.reverse(), batch.advantages.zero_(), batch.tokens.zero_()
        return {}


def test_what_a_part_does_to_what_it_is_shown_changes_nothing() -> None:
    def row(sampler: Any) -> dict[str, float]:
        return {name: value for name, value in make_trainer(sampler=sampler).step().items() if "/" in name}

    assert row(Vandal(level_weights=None)) == row(Problems(level_weights=None))


@dataclass(frozen=True, kw_only=True)
class Shuffler(Trace):
    """A verifier that turns the rollouts around before it judges, and gives true and false as scores."""

    def verify(self, rollouts: Any) -> Any:
        right = [replace(judged, score=judged.score > 0) for judged in super().verify(rollouts)]
        rollouts.reverse()
        return right


def test_a_verifier_keeps_our_order_and_its_scores_are_numbers() -> None:
    trainer = make_trainer()
    rollouts = trainer.engine.generate([State(problem) for problem in problems()[:4]])
    before = list(rollouts)
    judged = border.feedback(Shuffler(**vars(trainer.task)), rollouts)
    assert rollouts == before and {type(each.score) for each in judged} == {float}


class Kept(EvenTokens):
    """A reward with a state that it is told."""

    kept: Any = None

    def state_dict(self) -> Any:
        return self.kept

    def load_state_dict(self, state: Any) -> None:
        state["gone"]  # load


class Unreadable:
    def __setstate__(self, state: Any) -> None:
        raise ValueError("not again")

    def __getstate__(self) -> Any:
        return {"a": 1}


KEPT = "test_failing_parts.Kept.state_dict: returned "
PLAIN = "expected a dict of plain data, as in {'seen': 3}; {} if nothing changes"


@pytest.mark.parametrize(
    ("kept", "told"),
    [
        (None, f"{KEPT}None (NoneType); {PLAIN}"),
        ([1], f"{KEPT}[1] (list); {PLAIN}"),
        ({"f": lambda: 0}, "reward: Kept.state_dict cannot be saved ("),
        ({"g": (x for x in ())}, "reward: Kept.state_dict cannot be saved (TypeError: cannot pickle 'generator' "),
        ({"u": Unreadable()}, "reward: Kept.state_dict cannot be saved (ValueError: not again); expected plain data, "),
    ],
)  # fmt: skip
def test_a_state_that_cannot_be_saved_is_told_before_training(kept: Any, told: str, tmp_path: Path) -> None:
    reward = Kept()
    object.__setattr__(reward, "kept", kept)
    with pytest.raises(ContractError) as caught:
        Checkpoints(tmp_path, 1, 0).rehearse(make_trainer(reward=reward))
    (fault,) = caught.value.faults
    assert fault.startswith(told) and fault.endswith(MEND)


def test_a_state_that_can_no_longer_be_saved_or_read_is_told_by_its_part(tmp_path: Path) -> None:
    reward, checkpoints = Kept(), Checkpoints(tmp_path, 1, 0)
    object.__setattr__(reward, "kept", {"g": (x for x in ())})
    trainer = make_trainer(reward=reward)
    with pytest.raises(ContractError, match=r"reward: Kept\.state_dict cannot be saved"):
        checkpoints.save(trainer, None)
    object.__setattr__(reward, "kept", {"seen": 3})
    checkpoints.save(trainer, None)
    with pytest.raises(PartError) as caught:
        checkpoints.restore(trainer)
    where = f"{HERE}, line {line_of('# load')}"
    told = f"reward: test_failing_parts.Kept.load_state_dict failed ({where}: KeyError: 'gone'){MEND}"
    assert caught.value.faults == (told,)


def test_evidence_of_any_kind_can_be_written() -> None:
    evidence = {"a": {(1, 2): float("nan"), None: {3}}, "b": torch.ones(1)}
    assert json.loads(as_json(evidence)) == {"a": {"(1, 2)": None, "null": "{3}"}, "b": "tensor([1.])"}


# --- tasks and what parts say of themselves ---------------------------------------------------------------------------


def returns(**values: Any) -> Any:
    """A task whose methods return these."""
    return type("Own", (), {name: (lambda *_, value=value: value) for name, value in values.items()})()


def test_a_task_without_examples_is_told_with_its_split() -> None:
    with pytest.raises(DataError) as caught:
        border.examples(returns(examples=[]), "train")
    assert caught.value.faults == (
        "data: no problem in the split 'train' (test_failing_parts.Own.examples('train')); expected at least "
        "one; give another data set or split",
    )


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("abc", "'abc' (str)"),
        ((), "() (tuple)"),
        (("a", "a"), "('a', 'a') (tuple)"),
        (("a", ""), "'' (str)"),
        (("a", 3), "3 (int)"),
        ({"a"}, "{'a'} (set)"),
    ],
)
def test_a_vocabulary_is_words_each_once(words: Any, told: str) -> None:
    with pytest.raises(ContractError) as caught:
        border.vocabulary(returns(vocabulary=words))
    expected = f"vocabulary: returned {told}; expected a tuple of words, each once, or None"
    assert caught.value.faults == (f"test_failing_parts.Own.{expected}{MEND}",)


@pytest.mark.parametrize("words", [None, ("a", "b"), ["a"]])
def test_a_vocabulary_may_be_a_list_or_none(words: Any) -> None:
    assert border.vocabulary(returns(vocabulary=words)) == (None if words is None else tuple(words))


@pytest.mark.parametrize(
    "turns", ["hello", [1], [{"role": "user"}], [{"role": "robot", "content": "x"}], [{"role": "user", "content": 3}]]
)
def test_turns_are_messages(turns: Any) -> None:
    example = Example("a", "L", "q", "", "x", {}, turns)
    with pytest.raises(ContractError, match=r"examples\('train'\): returned turns = "):
        border.examples(returns(examples=[example]), "train")
    sound = replace(example, turns=({"role": "user", "content": "x"},))
    assert border.examples(returns(examples=[sound]), "train") == [sound]


@pytest.mark.parametrize("said", [Judgement("first", ""), Judgement(Preference.TIE, None), Judgement(None, "")])  # type: ignore[arg-type]
def test_a_judgement_is_a_preference_with_a_reason(said: Any) -> None:
    with pytest.raises(ContractError, match="expected a Preference and a text as reason"):
        border.judgements(returns(judge=[said]), [None], None)  # type: ignore[list-item,arg-type]


OWN = """
from rrl.parts.rewards.verdict import *
from rrl.interfaces import Reward
from rrl.types import *

class Mine(Reward):
    needs = {needs}
    def __init__(self) -> None: ...
    @property
    def needs_more(self): {more}
    def start(self, tokenizer, decode): {start}
    def __call__(self, rollout, feedback):
        return [1 / feedback.score] * len(rollout.actions)
    def state_dict(self): return dict()
"""


def own(folder: Path, monkeypatch: pytest.MonkeyPatch, **lines: str) -> Path:
    """A folder with the reward ``mine``."""
    (folder / "reward").mkdir(parents=True)
    (folder / "reward" / "mine.yaml").write_text("_target_: own_failing.Mine\n")
    given = {"needs": "frozenset()", "more": "return True", "start": "pass"} | lines
    (folder / "own_failing.py").write_text(OWN.format(**given))
    monkeypatch.setenv("RRL_PARTS", str(folder))
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.delitem(sys.modules, "own_failing", raising=False)
    return folder


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ({"needs": "['programs']"}, "needs is ['programs'] (list); expected a set of names; fix this class"),
        ({"needs": "'programs'"}, "needs is 'programs' (str); expected a set of names; fix this class"),
        ({"needs": "{1}"}, "needs is {1} (set); expected a set of names; fix this class"),
        ({"more": "return 'yes'"}, "needs_more is 'yes' (str); expected true or false; fix this class"),
        ({"more": "return {}['a']"}, "needs_more failed ({0}/own_failing.py, line 10: KeyError: 'a')" + MEND),
    ],
)
def test_what_a_part_says_of_itself_can_be_read(
    lines: dict[str, str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = own(tmp_path / "own", monkeypatch, **lines)
    with pytest.raises(ConfigError) as caught:
        load("train", ["reward=mine"])
    assert list(caught.value.faults) == ["reward: own_failing.Mine." + told.replace("{0}", str(folder))]


# --- whole runs -------------------------------------------------------------------------------------------------------


def test_a_run_ends_with_a_line_and_code_2_and_its_log_has_the_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    folder, run = own(tmp_path / "own", monkeypatch), tmp_path / "run"
    words = [*arguments(run, algo="ppo", evaluation__n=0), "reward=mine"]
    words = [text for text in words if not text.startswith(("sampler.", "selection"))]
    assert guarded(lambda: train._train(words)) == 2
    told = f"reward: own_failing.Mine.__call__ failed ({folder}/own_failing.py, line 13: ZeroDivisionError: "
    printed = capfd.readouterr().err
    assert f"PartError: a part of your own failed:\n  {told}" in printed and "Traceback" not in printed
    log = (run / "logs" / "rank-0.log").read_text()
    assert "ZeroDivisionError: " in log and "return [1 / feedback.score] * len(rollout.actions)" in log
    assert json.loads((run / "status.json").read_text())["reason"].startswith(told)


def test_a_part_that_cannot_start_leaves_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    own(tmp_path / "own", monkeypatch, start="raise OSError('no table')")
    words = [*arguments(tmp_path / "run", algo="ppo", evaluation__n=0), "reward=mine"]
    words = [text for text in words if not text.startswith(("sampler.", "selection"))]
    assert guarded(lambda: train._train(words)) == 2
    assert "reward: own_failing.Mine.start failed (" in capfd.readouterr().err
    assert not (tmp_path / "run").exists()


# --- folders of runs --------------------------------------------------------------------------------------------------


def test_a_runs_folder_as_model_is_told_with_the_model_in_it(tmp_path: Path) -> None:
    def told(folder: Path) -> str:
        with pytest.raises(DataError) as caught:
            HuggingFace(path=str(folder), revision=None, attention="sdpa", trust_remote_code=False).load(None)
        return str(caught.value.faults[0]).partition("this machine can reach")[2]

    run = tmp_path / "run"
    for name in ("checkpoints/step-000002", "checkpoints/step-000010"):
        (run / name).mkdir(parents=True)
    (run / "config.yaml").write_text("seed: 0\n")
    assert told(run) == "; it holds a run that has saved no model yet"
    for name in ("checkpoints/step-000002", "checkpoints/step-000010"):
        (run / name / "actor").mkdir()
        (run / name / "actor" / "config.json").write_text("{}")
    last = run / "checkpoints" / "step-000010"
    for folder in (run, run / "checkpoints", last):
        assert told(folder) == f"; it holds a run's model: give model.path={last}/actor"
    (run / "actor").mkdir()
    (run / "actor" / "config.json").write_text("{}")
    assert told(run) == f"; it holds a run's model: give model.path={run}/actor"
    assert told(tmp_path) == ""


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "cut off or changed (it has no run, prompts, template, policy, "),
        ("seed: 0\nrun: {dir: x}\nprompts: {}\ntemp", "cannot be read ("),
        ("se", "cut off or changed (it has no run, "),
        ("run: {dir: 'x", "cannot be read ("),
        ("\0\0\0\0", "cannot be read ("),
    ],
)
def test_a_torn_configuration_of_a_run_is_told_as_that(text: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "status.json").write_text("{}")
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        compose_saved(tmp_path / "config.yaml", [])
    (fault,) = caught.value.faults
    assert fault.startswith(f"{tmp_path}/config.yaml: {told}")
    assert fault.endswith("bring it back from a copy, or begin a new run")
