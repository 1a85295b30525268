"""Several processes: the same steps, numbers and memory as one, whatever ZeRO stage, and no rank left waiting."""

import math
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from fixtures.ranks import on_ranks
from fixtures.runs import CONTEXT, into
from fixtures.trainer import EVEN
from fixtures.training import (
    ROLLOUTS,
    TASK,
    adaptive_kl,
    evaluation,
    grpo,
    loss_kl,
    make_engine,
    make_trainer,
    ppo,
    problems,
    raw_batch,
    replay,
)
from rrl.errors import DataError, DivergenceError
from rrl.parts.samplers.reanalyse import Reanalyse
from rrl.parts.samplers.rows import StoredState
from rrl.parts.selections.verified import Verified
from rrl.parts.tasks.trace import Trace
from rrl.processes.distributed import (
    agree,
    anywhere,
    from_first,
    gathered,
    rank,
    reported,
    share,
    spread,
    summed,
    unshare,
)
from rrl.processes.launch import free_port
from rrl.training.old_logprobs import EngineLogProbs
from rrl.types import Verdict

pytestmark = pytest.mark.ranks

TIMES = ("timing_s/", "perf/")
TOLERANCE = {"rtol": 2e-4, "atol": 2e-5}
"""Float32 sums in another order; Adam turns a rounding of a gradient near zero into one of its step."""


def _alone(place: dict[str, str], file: Path) -> None:
    from rrl.processes import distributed

    into(file)
    os.environ |= place
    distributed.MEETING = timedelta(seconds=1)
    distributed.start_process_group()


def test_a_rank_does_not_wait_for_ever_for_the_others(tmp_path: Path) -> None:
    place = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    process = CONTEXT.Process(target=_alone, args=(place, tmp_path / "said"))
    process.start()
    process.join(60)
    assert process.exitcode == 1 and "1/2 clients joined" in (tmp_path / "said").read_text()


# --- what ranks do with one another -----------------------------------------------------------------------------------


def _conversation() -> dict[str, Any]:
    return {
        "shared_out": {count: _shared_out(count) for count in (5, 1, 0)},
        "reported": [gathered(rank()), summed({"a": 1.0 + rank(), "b": 0.5}), anywhere(rank() == 1), anywhere(False)],
        "first": from_first(lambda: f"made by {rank()}"),
        "from_threads": [reported("tens", lambda: 10 * rank()), _reporting_a_fault()],
        "failed": _failing_on_the_second(),
        "unpicklable": _failing_oddly(),
        "disagreed": _disagreeing(),
        "rows": {count: _rows(count) for count in (5, 1)},
    }


@pytest.fixture(scope="module")
def conversation() -> list[dict[str, Any]]:
    """What each of two ranks has to say."""
    return on_ranks(2, _conversation)


def _shared_out(count: int) -> dict[str, Any]:
    touched: list[int] = []

    def double(items: Sequence[int]) -> list[int]:
        touched.extend(items)
        return [2 * item for item in items]

    return {"doubled": spread(list(range(count)), double), "touched": touched}


@pytest.mark.parametrize(("count", "touched"), [(5, [[0, 2, 4], [1, 3]]), (1, [[0], []]), (0, [[], []])])
def test_work_is_shared_out_and_its_results_come_back_in_order(count, touched, conversation):
    ranks = [each["shared_out"][count] for each in conversation]
    assert [each["touched"] for each in ranks] == touched
    assert [each["doubled"] for each in ranks] == [[2 * i for i in range(count)]] * 2


def test_ranks_exchange_what_they_have(conversation):
    assert [each["reported"] for each in conversation] == [[[0, 1], {"a": 3.0, "b": 1.0}, True, False]] * 2
    assert [each["first"] for each in conversation] == ["made by 0"] * 2


def _reporting_a_fault() -> str:
    """In a thread, while the other one uses collectives; one rank fails."""

    def work() -> int:
        if rank() == 1:
            raise DivergenceError("the second rank")
        return 1

    def thread() -> None:
        try:
            outcome.append(str(reported("faults", work)))
        except DivergenceError as error:
            outcome.append(error.faults[0])

    outcome: list[str] = []
    beside = threading.Thread(target=thread)
    beside.start()
    assert all(gathered(number) == [number, number] for number in range(20))
    beside.join()
    return outcome[0]


def test_threads_report_to_the_first_rank_without_collectives(conversation):
    assert [each["from_threads"] for each in conversation] == [[[0, 10], "the second rank"], [[], "[]"]]


def _failing_on_the_second() -> str:
    def work(items: Sequence[int]) -> Sequence[int]:
        if rank() == 1:
            raise DivergenceError("the second rank")
        return items

    try:
        spread([1, 2, 3], work)
    except DivergenceError as error:
        return str(error.faults[0])
    return "nothing raised"


def test_what_fails_on_one_rank_fails_on_all_of_them(conversation):
    assert [each["failed"] for each in conversation] == ["the second rank"] * 2


class Odd(Exception):
    """An error that cannot be rebuilt from its arguments."""

    def __init__(self, number: int, *, why: str) -> None:
        super().__init__(f"{number}: {why}")


def _failing_oddly() -> str:
    def work(items: Sequence[int]) -> Sequence[int]:
        raise Odd(3, why="because")

    try:
        spread([1, 2, 3], work)
    except RuntimeError as error:
        return str(error)
    return "nothing raised"


def test_an_error_that_cannot_travel_is_reported_by_its_text(conversation):
    assert [each["unpicklable"] for each in conversation] == ["Odd: 3: because"] * 2


def _disagreeing() -> str:
    agree("what is the same", [1, 2])
    try:
        agree("start states", [1, rank()])
    except DataError as error:
        return str(error.faults[0])
    return "nothing raised"


def test_ranks_that_disagree_do_not_go_on(conversation):
    assert all(each["disagreed"].startswith("start states: ranks have different ones (") for each in conversation)


def _rows(count: int) -> tuple[int, float, bool]:
    """Rows of this rank, their weight, and whether all rows' numbers come back in place."""
    batch = raw_batch(ROLLOUTS[:count])
    numbers = torch.arange(float(batch.mask.numel())).view_as(batch.mask)
    mine = share(batch.with_(weight=batch.mask.float(), old_logprobs=numbers))
    wide = torch.zeros(1, len(mine), batch.mask.shape[1])
    wide[0, :, : mine.mask.shape[1]] = mine.old_logprobs
    restored = unshare(wide, count)[0]
    return len(mine), float(mine.weight.sum()), torch.equal(restored[batch.attention], numbers[batch.attention])


@pytest.mark.parametrize(("count", "rows", "weights"), [(5, 3, [4 + 1 + 4, 2 + 3]), (1, 1, [4, 0])])
def test_rows_are_shared_out_evenly_and_what_makes_up_the_number_has_no_weight(count, rows, weights, conversation):
    assert [each["rows"][count] for each in conversation] == [(rows, weight, True) for weight in weights]


# --- one process = two processes --------------------------------------------------------------------------------------


def _train(name: str, stage: int) -> dict[str, Any]:
    """Two steps of a trainer with everything that reduces over a batch; its metrics, weights and memory."""
    trainer = make_trainer(**_setting(name), policy={"zero_stage": stage, **_policy(name)})
    steps = [trainer.step() | trainer._counters() for _ in range(2)]
    with trainer.policy.generation_model() as model:
        weights = {key: value.detach().clone() for key, value in model.named_parameters()}
    measured = evaluation().measure(list(problems("test")), TASK, trainer.engine)
    return {
        "metrics": steps, "weights": weights, "evaluation": measured,
        "states": list(getattr(trainer.sampler, "buffer", [])),
        "trainer": trainer.state_dict(), "objective": trainer.objective.state_dict(),
        "rollouts": [
            (r.state.problem.id, r.state.prefix, r.actions) for each in trainer.last_rollouts for r in [each.rollout]
        ],
    }  # fmt: skip


def _setting(name: str) -> dict[str, Any]:
    adaptive = ppo(kl=adaptive_kl(0.05, 0.01, 100), entropy_coef=0.01, advantage_norm="batch")
    incomplete = {"task": Unjudged(**_fields(TASK)), "sampler": replay(0.5), "engine": make_engine(batch_size=2)}
    return {
        "replay": {
            "sampler": replay(0.5, sources="both"),
            "objective": adaptive,
            "train_batch_size": 24,
            "ppo_mini_batch_size": 8,
        },
        "reanalyse": {"sampler": replay(0.75, kind=Reanalyse), "train_batch_size": 24},
        "level": {"objective": ppo(kl=loss_kl(0.05, "k3"), advantage_norm="level"), **incomplete},
        "grpo": {
            "objective": grpo(kl=loss_kl(0.05, "k3")),
            "n": 2,
            "ppo_mini_batch_size": 8,
            "loss_agg_mode": "sequence",
            "old_log_prob": EngineLogProbs(rows=3, tolerance=1e-5),
        },
        "incomplete": incomplete,
        "verified": {
            "sampler": replay(0.5, selection=Verified(candidates=2, continuations=3, failures=5)),
            "task": EVEN,
            "train_batch_size": 16,
        },
        "clipped": {"train_batch_size": 12, "ppo_mini_batch_size": 12, "ppo_epochs": 2},
        "odd": {"train_batch_size": 3, "ppo_mini_batch_size": 1, "critic_warmup": 1},
    }[name]


@dataclass(frozen=True, kw_only=True)
class Unjudged(Trace):
    """A verifier that fails on a third of the responses, whoever judges them."""

    def verify(self, rollouts):
        lost = [sum(rollout.actions) % 3 == 0 for rollout in rollouts]
        judged = super().verify(rollouts)
        return [replace(f, verdict=Verdict.ERROR) if gone else f for f, gone in zip(judged, lost, strict=True)]


def _fields(part: Any) -> dict[str, Any]:
    return {field.name: getattr(part, field.name) for field in fields(part)}


def _policy(name: str) -> dict[str, Any]:
    settings = {"level": {"critic": "shared", "value_trunk_grad_scale": 0.5}}
    by_tokens = {"grpo": {"micro_batch_tokens": 40}, "odd": {"micro_batch_tokens": 20}}
    return {**settings, **by_tokens, "clipped": {"micro_batch_size": 2, "grad_clip": 0.05}}.get(name, {})


Cases = tuple[tuple[str, int], ...]
COVERING: Cases = (
    ("replay", 3),
    ("reanalyse", 3),
    ("verified", 2),
    ("level", 2),
    ("grpo", 1),
    ("odd", 1),
    ("clipped", 0),
)
"""Every setting (the incomplete one within another) and stage of ZeRO, and replay under the one that differs most."""
REST: Cases = (
    ("reanalyse", 0),
    ("replay", 0),
    ("replay", 1),
    ("replay", 2),
    ("verified", 3),
    ("grpo", 3),
    ("incomplete", 0),
    ("incomplete", 2),
    ("incomplete", 3),
    ("odd", 3),
    ("clipped", 2),
)


def _train_all(cases: Cases) -> dict[tuple[str, int], dict[str, Any]]:
    return {(name, stage): _train(name, stage) for name, stage in cases}


@cache
def _alone_and_together(cases: Cases) -> tuple[dict[tuple[str, int], Any], list[dict[tuple[str, int], Any]]]:
    """Cases in this one process, and the same in two processes."""
    return _train_all(cases), on_ranks(2, _train_all, cases)


def _done(case: tuple[str, int]) -> tuple[Any, list[Any]]:
    """A case in one process, and on each of two."""
    alone, together = _alone_and_together(COVERING if case in COVERING else REST)
    return alone[case], [ranks[case] for ranks in together]


def _settings(names: Sequence[str]) -> Any:
    cases = [pytest.param(case, marks=[] if case in COVERING else pytest.mark.slow) for case in (*COVERING, *REST)]
    return pytest.mark.parametrize(
        "case", [each for each in cases if each.values[0][0] in names], ids=lambda case: f"{case[0]}-zero{case[1]}"
    )


@_settings(["replay", "reanalyse", "verified", "level", "grpo", "incomplete", "odd", "clipped"])
def test_two_processes_do_what_one_does(case):
    one, (first, second) = _done(case)
    assert first["rollouts"] == second["rollouts"] == one["rollouts"]
    _same_metrics(first["metrics"], second["metrics"], exactly=True)
    _same_metrics(one["metrics"], first["metrics"], exactly=False)
    assert_close(first["weights"], one["weights"], **TOLERANCE)
    assert_close(first["objective"], one["objective"], **TOLERANCE)
    assert first["evaluation"] == second["evaluation"]
    assert first["evaluation"]["mean@2"]["accuracy"] == one["evaluation"]["mean@2"]["accuracy"]


def _same_metrics(left: list[dict[str, float]], right: list[dict[str, float]], *, exactly: bool) -> None:
    for before, after in zip(left, right, strict=True):
        assert before.keys() == after.keys()
        for name, value in before.items():
            close = value == after[name] if exactly else math.isclose(value, after[name], rel_tol=5e-3, abs_tol=2e-5)
            assert close, f"{name}: {value} and {after[name]}"


@_settings(["verified"])
def test_two_processes_examine_the_same_responses_and_count_the_same_tokens(case):
    one, (first, second) = _done(case)
    for name in ("budget/tokens_generated", "replay/examine_tokens", "replay/candidate_success/mean"):
        numbers = [[step[name] for step in each["metrics"]] for each in (one, first, second)]
        assert numbers[0] == numbers[1] == numbers[2] and min(numbers[0]) > 0


@_settings(["replay"])
def test_the_memory_of_states_does_not_depend_on_the_number_of_processes(case):
    alone, together = _done(case)
    expected = alone["states"]
    assert len(expected) > 10
    for kept in (each["states"] for each in together):
        assert [_facts(state) for state in kept] == [_facts(state) for state in expected]
        for name in ROUNDED:
            assert_close([getattr(s, name) for s in kept], [getattr(s, name) for s in expected], **TOLERANCE)


def _facts(state: StoredState) -> StoredState:
    """All but the numbers of networks, which round differently."""
    return state._replace(**dict.fromkeys(ROUNDED, 0.0))


ROUNDED = ("score_at_insert", "score_now", "doubt", "value")


@pytest.mark.parametrize(("count", "weights"), [(1, [4, 0, 0, 0]), (2, [4, 2, 0, 0]), (5, [8, 2, 1, 3])])
def test_fewer_rows_than_ranks_are_shared_out_too(count, weights, monkeypatch):
    batch = raw_batch(ROLLOUTS[:count])
    batch = batch.with_(weight=batch.mask.float())
    monkeypatch.setattr("rrl.processes.distributed.world_size", lambda: 4)
    shares = []
    for number in range(4):
        monkeypatch.setattr("rrl.processes.distributed.rank", lambda number=number: number)
        shares.append(share(batch))
    assert [int(mine.weight.sum()) for mine in shares] == weights
    assert len({len(mine) for mine in shares}) == 1
