"""The engine's log-probabilities as the old ones: the same run to rounding with fewer passes, and what is refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from fixtures.trainer import gone_on, history, same
from fixtures.training import (
    acted,
    apart,
    grpo,
    make_engine,
    make_trainer,
    ppo,
    raw_batch,
    replay,
    reward_kl,
    shaken,
    weights,
)
from rrl.config.check import load
from rrl.errors import ConfigError, DivergenceError
from rrl.parts.engines.hf import HFEngine
from rrl.parts.engines.static import StaticHF
from rrl.training.networks import Actor
from rrl.training.old_logprobs import EngineLogProbs
from rrl.training.trainer import Trainer

EXACT = EngineLogProbs(rows=2, tolerance=1e-5)


def trainer(taken: EngineLogProbs | None, **changes: Any) -> Trainer:
    """Eight rollouts a step, half of them replayed, of uneven lengths."""
    return make_trainer(**{"sampler": replay(0.5), "old_log_prob": taken} | changes)


def tempered() -> dict[str, Any]:
    objective = ppo(kl=reward_kl(0.05), entropy_coef=0.01, advantage_norm="batch")
    engine = StaticHF(temperature=0.7, max_response_length=6, stop=(), batch_size=3)
    return {"objective": objective, "engine": engine, "ppo_epochs": 2}


@pytest.mark.parametrize("changes", [tempered, lambda: {"objective": grpo(), "n": 2}], ids=["ppo", "grpo"])
def test_a_run_is_the_same_to_rounding(changes: Any) -> None:
    runs = [history(trainer(taken, **changes()), 2) for taken in (None, EXACT)]
    for (metrics, plain), (others, quick) in zip(*(run[:-1] for run in runs), strict=True):
        assert [each.rollout.actions for each in plain] == [each.rollout.actions for each in quick]
        assert others["training/rollout_logprobs_diff_mean"] <= others["training/rollout_logprobs_diff_max"] < 1e-5
        close = [name for name in metrics if name.startswith(("actor/", "critic/", "replay/"))]
        assert {name: others[name] for name in close} == pytest.approx(
            {name: metrics[name] for name in close}, rel=1e-3, abs=1e-5
        )
    assert any(each.rollout.state.prefix for each in runs[1][1][1])
    assert_close(runs[1][-1], runs[0][-1], rtol=1e-3, atol=1e-5)


def test_the_actor_reads_one_row_in_so_many_and_values_and_reference_are_of_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    policy = shaken(trainer(None).policy)
    whole, read = policy.annotate(raw_batch()), list[int]()
    forward = Actor.forward

    def counting(self: Actor, tokens: torch.Tensor, *rest: torch.Tensor) -> Any:
        if self is policy.actor:
            read.append(len(tokens))
        return forward(self, tokens, *rest)

    monkeypatch.setattr(Actor, "forward", counting)
    part = policy.annotate(raw_batch(), every=4)
    assert read == [2]
    assert not part.old_logprobs[[1, 2, 3, 5]].any() and not part.entropies[[1, 2, 3, 5]].any()
    part = part.with_(
        old_logprobs=torch.where(torch.arange(6).unsqueeze(1) % 4 == 0, part.old_logprobs, whole.old_logprobs)
    )
    for name in ("old_logprobs", "values", "ref_logprobs"):
        assert_close(acted(whole, getattr(part, name)), acted(whole, getattr(whole, name)))


def test_rows_from_the_whole_step_are_compared_so_that_replayed_ones_are_among_them() -> None:
    policy, batch, reported = trainer(None).policy, raw_batch(), []
    policy.annotate = lambda batch, every: reported.append(every) or batch  # type: ignore[method-assign]
    wrong = batch.engine_logprobs.clone()
    wrong[2] += 0.5  # its one token is one of nine that are compared
    with pytest.raises(DivergenceError) as caught:
        EngineLogProbs(rows=3, tolerance=1e-5).annotated(policy, batch.with_(engine_logprobs=wrong))
    assert reported == [2]
    assert caught.value.faults[0].startswith(
        "log-probabilities of the engine and of the policy differ by 0.0556 on average and 0.5 at most; expected 1e-05 "
        "on average at most (old_log_prob.tolerance)"
    )
    wrong[2] = 0.0
    wrong[3] = 0.5  # a row that is not compared
    taken, metrics = EngineLogProbs(rows=3, tolerance=1e-5).annotated(policy, batch.with_(engine_logprobs=wrong))
    assert torch.equal(taken.old_logprobs, wrong)
    assert metrics["training/rollout_logprobs_diff_max"] == metrics["training/rollout_probs_diff_max"] == 0.0


class Stale(HFEngine):
    """Claims log-probabilities that are a little higher than those it drew with."""

    def generate(self, *given: Any, **named: Any) -> Any:
        made = super().generate(*given, **named)
        return [replace(rollout, logprobs=tuple(p + 0.01 for p in rollout.logprobs)) for rollout in made]


def test_an_engine_whose_numbers_are_not_the_policys_stops_the_run_before_the_update() -> None:
    engine = Stale(temperature=1.0, max_response_length=6, stop=(), batch_size=7)
    wrong = trainer(EngineLogProbs(rows=8, tolerance=1e-4), engine=engine)
    before = weights(wrong.policy)
    with pytest.raises(DivergenceError, match=r"differ by 0.01 on average .*use old_log_prob=recomputed, or raise"):
        wrong.step()
    assert wrong.policy.version == 0 and not apart(before, weights(wrong.policy))


def test_a_run_goes_on_bit_for_bit(tmp_path: Path) -> None:
    assert same(history(trainer(EXACT), 2)[1:], gone_on(lambda: trainer(EXACT), tmp_path))


@pytest.mark.parametrize(
    ("overrides", "fault"),
    [
        (["engine=truncated", "critic=own"], "TruncatedHF draws from another distribution"),
        (["engine=copied", "critic=own"], "CopiedHF draws from another distribution"),
        (["critic=shared"], "critic=shared needs the same pass"),
        (["critic=own", "objective.importance_cap=2"], "objective.importance_cap corrects a difference"),
        (["critic=own", "selection=entropy"], "sampler.selection reads entropies"),
        (["critic=own", "old_log_prob.rows=0"], "rows: expected at least 1, got 0"),
        (["critic=own", "old_log_prob.tolerance=0"], "tolerance: expected a number > 0, got 0"),
    ],
)  # fmt: skip
def test_what_cannot_be_exact_or_saves_nothing_is_refused(overrides: list[str], fault: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load("train", ["old_log_prob=engine", *overrides])
    assert fault in caught.value.faults[0] and caught.value.faults[0].startswith("old_log_prob")


def test_engines_that_write_with_the_policy_itself_are_exact() -> None:
    for engine in ([], ["engine=hf"], ["engine=static"]):
        _, parts = load("train", ["old_log_prob=engine", "critic=own", *engine])
        assert parts.engine.is_exact and parts.trainer.old_log_prob == EngineLogProbs(rows=8, tolerance=1e-4)
    assert make_engine().is_exact and not make_engine(top_k=3).is_exact and not make_engine(dtype="float32").is_exact
