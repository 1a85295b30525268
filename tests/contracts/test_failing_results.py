"""Metrics, batches and states that a user's part gets wrong are reported with the part."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fixtures.training import EvenTokens, make_trainer, ppo, problems
from rrl.contracts import border
from rrl.errors import ContractError, PartError
from rrl.parts.objectives.ppo import PPO
from rrl.parts.samplers.problems import Problems
from rrl.parts.tasks.trace import Trace
from rrl.records.texts import as_json
from rrl.runs.checkpoint import Checkpoints
from rrl.types import State

MEND = "; fix this class (docs/adding-a-part.md)"
HERE = Path(__file__).resolve()


def line_of(text: str) -> int:
    """The number of the line of this file that ends with a text."""
    lines = HERE.read_text().splitlines()
    return 1 + next(number for number, line in enumerate(lines) if line.endswith(text))


class Tells(EvenTokens):
    """A reward with metrics of its own."""

    metrics: Any = None

    def observe(self, judged: Any) -> Any:
        return self.metrics


OURS = "names that the run does not use itself, and that do not begin with "
BEGIN = OURS + "training/, budget/, timing_s/, perf/, val/, val-core/, actor/, critic/"


@pytest.mark.parametrize(
    ("metrics", "reported"),
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
def test_metrics_of_ones_own_are_finite_under_names_of_their_own(metrics: Any, reported: str) -> None:
    reward = Tells()
    object.__setattr__(reward, "metrics", metrics)
    with pytest.raises(ContractError) as caught:
        make_trainer(reward=reward).step()
    assert caught.value.faults == (f"test_failing_results.Tells.observe: returned {reported}{MEND}",)


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
        actor, critic, reported = super().loss(batch, output)
        self._calls += 1
        return actor, critic, reported | {name: 4.0 for name in self.names[self._calls - 1 :][:1]}


def odd(*names: str) -> Odd:
    shown = {name: value for name, value in vars(ppo()).items() if not name.startswith("_")}
    return Odd(names=names, **shown)


def test_a_metric_that_a_loss_reports_now_and_then_counts_as_nothing_elsewhere() -> None:
    row = make_trainer(objective=odd("", "mine")).step()  # 2 mini-batches, one micro-batch each
    assert row["mine"] == 2.0


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("actor/lr", "names that the run does not use itself"),
        ("critic/score/mean", "names that the run does not use itself"),
        ("perf/x", OURS + "training/, budget/, timing_s/, perf/, val/, val-core/"),
    ],
)
def test_a_loss_reports_nothing_under_names_of_ours(name: str, expected: str) -> None:
    with pytest.raises(ContractError) as caught:
        make_trainer(objective=odd(name)).step()
    reported = f"test_failing_results.Odd.loss: returned a metric named '{name}' (str); expected {expected}{MEND}"
    assert caught.value.faults == (reported,)


class Returned:
    """An objective that returns what it is reported to."""

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

    def observe(self, judged: Any, batch: Any) -> Any:
        judged.clear(), batch.advantages.zero_(), batch.tokens.zero_()
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
    """A reward with a state that it is reported."""

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


KEPT = "test_failing_results.Kept.state_dict: returned "
PLAIN = "expected a dict of plain data, as in {'seen': 3}; {} if nothing changes"


@pytest.mark.parametrize(
    ("kept", "reported"),
    [
        (None, f"{KEPT}None (NoneType); {PLAIN}"),
        ([1], f"{KEPT}[1] (list); {PLAIN}"),
        ({"f": lambda: 0}, "reward: Kept.state_dict cannot be saved ("),
        ({"g": (x for x in ())}, "reward: Kept.state_dict cannot be saved (TypeError: cannot pickle 'generator' "),
        ({"u": Unreadable()}, "reward: Kept.state_dict cannot be saved (ValueError: not again); expected plain data, "),
    ],
)  # fmt: skip
def test_a_state_that_cannot_be_saved_is_reported_before_training(kept: Any, reported: str, tmp_path: Path) -> None:
    reward = Kept()
    object.__setattr__(reward, "kept", kept)
    with pytest.raises(ContractError) as caught:
        Checkpoints(tmp_path, 1, 0).rehearse(make_trainer(reward=reward))
    (fault,) = caught.value.faults
    assert fault.startswith(reported) and fault.endswith(MEND)


def test_a_state_that_can_no_longer_be_saved_or_read_is_reported_by_its_part(tmp_path: Path) -> None:
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
    reported = f"reward: test_failing_results.Kept.load_state_dict failed ({where}: KeyError: 'gone'){MEND}"
    assert caught.value.faults == (reported,)


def test_evidence_of_any_kind_can_be_written() -> None:
    evidence = {"a": {(1, 2): float("nan"), None: {3}}, "b": torch.ones(1)}
    assert json.loads(as_json(evidence)) == {"a": {"(1, 2)": None, "null": "{3}"}, "b": "tensor([1.])"}
