"""Rollouts that are written while the step before them trains: ``engine.ahead``, with a stub in the place of vLLM."""

import io
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from fixtures.config import faults
from fixtures.server import GENERATE, Stub, served, serving
from fixtures.trainer import history, same
from fixtures.training import make_trainer, ppo, replay, tokenizer
from fixtures.vllm import qwen2
from rrl.config.check import load
from rrl.errors import ServiceError
from rrl.training.trainer import Trainer


@contextmanager
def training(stub: Stub | None = None, ahead: int = 1, **changes: Any) -> Iterator[Trainer]:
    """A trainer of two updates a step that replays half of its starts, with a server of its own."""
    with serving(stub or Stub(len(tokenizer()))) as address:
        engine = served(address, ahead=ahead, max_response_length=4)
        policy = {"model": qwen2(len(tokenizer())), "actor_lr": 1e-3}
        objective = ppo(importance_cap=2.0)
        settings = {"train_batch_size": 4, "ppo_mini_batch_size": 2, "on_mismatch": "ignore"} | changes
        yield make_trainer(engine=engine, sampler=replay(0.5), policy=policy, objective=objective, **settings)


def stepped(steps: int, **how: Any) -> tuple[list[Any], list[Any]]:
    """The metrics and the rollouts of so many steps."""
    with training(**how) as run:
        done = history(run, steps)[:-1]
    return [metrics for metrics, _ in done], [[each.rollout for each in judged] for _, judged in done]


def test_rollouts_are_older_by_one_step_and_nothing_is_written_for_a_step_that_will_not_come() -> None:
    stub = Stub(len(tokenizer()))
    metrics, rollouts = stepped(3, stub=stub)
    assert [{each.version for each in row} for row in rollouts] == [{0}, {0}, {2}]
    assert sum(bool(body.get("stream")) for path, body, _ in stub.asked if path == GENERATE) == 12
    assert metrics[0]["training/rollout_kl"] < 1e-9
    assert all(row["training/rollout_kl"] > 1e-7 for row in metrics[1:])


def test_the_first_step_and_the_starts_of_the_second_are_those_without_it() -> None:
    """States are chosen after the step before them has been observed, at the same share of training."""
    (ahead, _), first = stepped(2)
    (without, later), second = stepped(2, ahead=0)
    assert ahead == without
    assert later["training/rollout_kl"] < 1e-9
    assert first[0] == second[0]
    assert [each.state for each in first[1]] == [each.state for each in second[1]]
    assert any(each.state.replayed for each in first[1])


def test_rows_are_written_while_the_policy_is_updated(monkeypatch: pytest.MonkeyPatch) -> None:
    stub, seen = Stub(len(tokenizer())), []
    with training(stub) as run:
        step = run.policy.step

        def waiting() -> Any:
            end = time.monotonic() + 20
            while sum(bool(body.get("stream")) for path, body, _ in stub.asked if path == GENERATE) < 8:
                assert time.monotonic() < end
                time.sleep(0.001)
            seen.append(run.global_step)
            return step()

        monkeypatch.setattr(run.policy, "step", waiting)
        run.step()
    assert seen == [0, 0]


def test_a_resumed_run_has_the_rollouts_that_were_written_ahead(tmp_path: Path) -> None:
    with training() as run:
        whole = history(run, 3)
    with training() as again:
        first = history(again, 1)
        again.policy.save_state(tmp_path)
        parts = ("policy", "engine", "sampler", "objective")
        state, file = {name: getattr(again, name).state_dict() for name in parts}, io.BytesIO()
        torch.save(state | {"trainer": again.state_dict()}, file)
    file.seek(0)
    state = torch.load(file, weights_only=False)
    with training() as rest:
        rest.policy.load_state(tmp_path)
        for name in parts:
            getattr(rest, name).load_state_dict(state[name])
        rest.load_state_dict(state["trainer"])
        assert rest._next == again._next
        assert same([*first[:-1], *history(rest, 2)], whole)


def test_without_it_a_state_has_nothing_of_it() -> None:
    with training(ahead=0) as run:
        run.step()
        assert run.state_dict()["next"] == []


def test_a_server_that_fails_meanwhile_ends_the_run_and_a_failed_update_ends_the_writing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stub = Stub(len(tokenizer()))
    with training(stub) as run:
        stub.at(GENERATE, 6, lambda body: (500, {"error": {"message": "engine died"}}))
        with pytest.raises(ServiceError, match="engine died"):
            run.step()
    stub, threads = Stub(len(tokenizer())), threading.active_count()
    with training(stub) as run:
        usual, slow = stub.answers[GENERATE], threading.Event()
        stub.at(GENERATE, 6, lambda body: slow.wait(20) and usual(body))

        def failing() -> Any:
            raise MemoryError("update")

        monkeypatch.setattr(run.policy, "step", failing)
        begin = time.monotonic()
        with pytest.raises(MemoryError, match="update"):
            run.step()
        assert time.monotonic() - begin < 15
        slow.set()
    while threading.active_count() > threads + 1:
        assert time.monotonic() - begin < 60
        time.sleep(0.05)


REFUSED = {
    "engine.ahead=1": "engine.ahead: 1, but nothing corrects for rollouts that the weights before the last",
    "engine.ahead=1 algo=gsi": "engine.ahead: 1, but GSISettings writes when it needs rollouts; expected 0",
    "engine.ahead=2 objective.importance_cap=2": "engine.ahead: expected a number from 0 to 1, got 2",
}


@pytest.mark.parametrize("overrides", REFUSED)
def test_what_does_not_fit_it_is_refused(overrides: str) -> None:
    [fault] = faults("engine=vllm_server", *overrides.split())
    assert fault.startswith(REFUSED[overrides])


def test_with_a_correction_it_is_accepted() -> None:
    _, parts = load("train", ["engine=vllm_server", "engine.ahead=1", "objective.importance_cap=2"])
    assert parts.engine.ahead == 1
