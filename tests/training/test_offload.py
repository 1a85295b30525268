"""States in main memory: the same training as on the device, and refused where DeepSpeed has nothing to move."""

from pathlib import Path
from typing import Any

import pytest
import torch

from fixtures.ranks import on_ranks
from fixtures.training import improve, make_policy, ppo, raw_batch, reward_kl, rollout, settings
from rrl.config.check import load
from rrl.errors import ConfigError
from rrl.training.loop import weigh
from rrl.training.policy import DeepSpeedPolicy
from rrl.training.policy_settings import Offload

pytestmark = pytest.mark.ranks

BOTH = Offload(optimizer=True, reference=True)
OPTIMISER = Offload(optimizer=True, reference=False)
CASES: tuple[tuple[int, str, Offload], ...] = ((1, "bfloat16", OPTIMISER), (3, "bfloat16", BOTH))


def _policy(stage: int, dtype: Any, offload: Offload | None) -> DeepSpeedPolicy:
    return make_policy(reference=True, zero_stage=stage, dtype=dtype, grad_clip=0.5, offload=offload)


def _step(policy: DeepSpeedPolicy) -> list[torch.Tensor]:
    """What all networks read after a clipped step."""
    batch = policy.annotate(weigh(raw_batch([rollout([5, 7], (), [6, 8, 2]), rollout([5], (), [9, 3])]), "token"))
    ones = batch.mask.float()
    improve(policy, ppo(kl=reward_kl(0.1)), batch.with_(advantages=ones, returns=ones), 2)
    after = policy.annotate(batch)
    return [after.old_logprobs, after.ref_logprobs, after.values]


def _trained(folder: str) -> list[tuple[list[torch.Tensor], ...]]:
    """Two steps on the device, two with states in main memory, and one and one from the checkpoint between."""
    results = []
    for number, (stage, dtype, offload) in enumerate(CASES):
        usual, first, second = (_policy(stage, dtype, each) for each in (None, offload, offload))
        _step(usual)
        _step(first)
        first.save_state(Path(folder) / str(number))
        second.load_state(Path(folder) / str(number))
        results.append((_step(usual), _step(first), _step(second)))
    return results


def test_training_is_that_on_the_device_and_resumes_bit_for_bit(tmp_path: Path) -> None:
    for ranks in on_ranks(2, _trained, str(tmp_path)):
        for usual, away, resumed in ranks:
            torch.testing.assert_close(away, usual, rtol=0, atol=1e-6)
            torch.testing.assert_close(resumed, away, rtol=0, atol=0)
            assert all(float(column.abs().sum()) > 0 for column in away)


@pytest.mark.parametrize(
    ("stage", "offload", "expected"),
    [
        (0, OPTIMISER, "zero_stage: expected 1, 2 or 3 with offload.optimizer=true, got 0"),
        (2, BOTH, "zero_stage: expected 3 with offload.reference=true, got 2"),
    ],
)
def test_a_stage_that_divides_nothing_moves_nothing(stage: Any, offload: Offload, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        settings(zero_stage=stage, offload=offload)


@pytest.mark.parametrize(
    ("choice", "parts"), [("optimizer", (True, False)), ("reference", (False, True)), ("all", (True, True))]
)
def test_every_choice_says_what_moves(choice: str, parts: tuple[bool, bool]) -> None:
    offload = load("train", [f"offload={choice}", "policy.zero_stage=3"])[1].policy.offload
    assert (offload.optimizer, offload.reference) == parts


@pytest.mark.parametrize("name", ["optimizer_offload", "param_offload", "adam_offload"])
def test_names_of_other_libraries_are_understood(name: str) -> None:
    with pytest.raises(ConfigError, match=r"did you mean offload=optimizer\|reference\|all\?"):
        load("train", [f"policy.{name}=true"])
