"""PPOCoder and RLTF as whole algorithms: what composes, what is refused, and steps of each on text."""

import math
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from rrl.config.check import load
from rrl.config.compose import compose
from rrl.errors import ConfigError
from rrl.processes.clock import Clock
from rrl.runs.assemble import make_trainer, prepare
from rrl.runs.checkpoint import Checkpoints
from rrl.training.trainer import Trainer

ALGORITHMS = ("ppocoder", "rltf", "rltf_original")
PROGRAMS = "task={_target_: fixtures.programs.FakePrograms}"
DOCS = Path(__file__).resolve().parents[2] / "docs"


def config(*overrides: str) -> dict[str, Any]:
    composed = compose("train", overrides)
    assert composed.faults == []
    return composed.config


def faults(*overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load("train", overrides)
    return list(caught.value.faults)


# --- what composes ----------------------------------------------------------------------------------------------------


HF = ["model=hf", "model.path=somewhere"]


TINY_RATES = (3e-4, 1e-3)


@pytest.mark.parametrize(("sampler", "choices"), [("problems", []), ("retrospective", ["sampler=retrospective", *HF])])
@pytest.mark.parametrize(
    ("algo", "rates"), [("ppocoder", (1e-6, 1e-6)), ("rltf", (1e-6, 5e-6)), ("rltf_original", (2e-6, 5e-6))]
)
def test_every_algorithm_composes_with_every_model_and_with_replay(
    algo: str, rates: tuple[float, float], choices: list[str], sampler: str
) -> None:
    config, parts = load("train", [PROGRAMS, f"algo={algo}", *choices])
    assert type(parts.sampler).__name__.lower() == sampler
    assert parts.objective.needs_critic == (algo != "rltf_original") == (parts.policy.critic is not None)
    policy = config["policy"]  # a rate of 1e-6 would never teach the tiny model anything
    assert (policy["actor_lr"], policy["critic_lr"]) == (rates if choices else TINY_RATES)


def test_ppocoder_has_its_papers_constants() -> None:
    assert config("algo=ppocoder")["objective"] == {
        "_target_": "rrl.parts.objectives.ppo.PPO",
        "gamma": 1.0, "gae_lambda": 0.95, "clip_ratio": 0.2, "cliprange_value": 0.2,
        "importance_cap": None, "vf_coef": 0.001, "entropy_coef": 0.0, "advantage_norm": "batch",
    }  # fmt: skip
    assert config("algo=ppocoder")["kl"] == {
        "_target_": "rrl.parts.objectives.kl.AdaptiveKL", "coef": 0.1, "target": 1.0, "horizon": 10000,
    }  # fmt: skip
    weights = {"signal_weight": 1.0, "syntax_weight": 1.0, "semantics_weight": 1.0, "signal": "tests"}
    assert config("algo=ppocoder")["reward"].items() >= weights.items()


PAY = {"passed": 1.0, "wrong_answer": -0.3, "runtime_error": -0.6, "compile_error": -1.0}


@pytest.mark.parametrize("algo", ALGORITHMS)
def test_outcomes_are_worth_what_the_papers_say(algo: str) -> None:
    assert config(f"algo={algo}")["reward"]["pay"] == {"_target_": "rrl.parts.rewards.outcomes.Pay", **PAY}


@pytest.mark.parametrize(
    ("algo", "paid_on", "penalty_on"), [("rltf", "last", "region"), ("rltf_original", "every", "token")]
)
def test_rltf_pays_as_its_objective_counts(algo: str, paid_on: str, penalty_on: str) -> None:
    reward = config(f"algo={algo}")["reward"]
    assert (reward["paid_on"], reward["penalty_on"], reward["penalty"]) == (paid_on, penalty_on, 0.3)
    assert reward["adaptive"] is reward["relative"] is True


def test_rltfs_own_loss_has_its_papers_constants_and_passes_once() -> None:
    whole = config("algo=rltf_original")
    assert whole["objective"] == {"_target_": "rrl.parts.objectives.rltf.RLTF", "capacity": 6400}
    trainer = whole["trainer"]
    assert (trainer["ppo_epochs"], trainer["critic_warmup"], trainer["loss_agg_mode"]) == (1, 0, "sequence")


def test_a_rate_on_the_command_line_wins_over_all() -> None:
    assert config("algo=ppocoder", "policy.actor_lr=0.5")["policy"]["actor_lr"] == 0.5


def test_another_objective_can_be_chosen() -> None:
    _, parts = load("train", [PROGRAMS, "algo=ppocoder", "objective=grpo", "critic=none", "trainer.n=8"])
    assert type(parts.objective).__name__ == "GRPO"


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("algo", "part"), [("ppocoder", "PPOCoder"), ("rltf", "RLTF"), ("rltf_original", "RLTF")])
def test_a_task_without_programs_is_refused_with_those_that_would_do(algo: str, part: str) -> None:
    (reported,) = faults(f"algo={algo}")
    begin = f"reward: {part} needs programs, which the task Trace does not give; expected task="
    assert reported.startswith(begin) and reported.endswith(", or another reward")
    assert not {"gsm8k", "trace"} & set(re.split(r"[|,]", reported.removeprefix(begin)))


@pytest.mark.parametrize(("algo", "part"), [("ppocoder", "PPOCoder"), ("rltf", "RLTF"), ("rltf_original", "RLTF")])
def test_a_reward_by_all_tests_is_refused_where_a_failure_ends_them(algo: str, part: str) -> None:
    stop = "task.judge.stop_at_failure"
    assert faults(PROGRAMS, f"{stop}=true") == []
    assert faults(PROGRAMS, f"algo={algo}", f"{stop}=true") == [
        f"{stop}: true, but {part} reads the results of all tests; expected false, or reward=verdict"
    ]


PARTS = """
from dataclasses import dataclass
from rrl.interfaces import Task

@dataclass(frozen=True, kw_only=True)
class Referenced(Task):
    gives = frozenset({"references", "programs"})

@dataclass(frozen=True, kw_only=True)
class Bare(Task):
    gives = frozenset({"programs"})
"""


def test_tasks_of_a_users_own_are_among_those_that_would_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "task").mkdir()
    (tmp_path / "own_programs.py").write_text(PARTS)
    for name in ("Referenced", "Bare"):
        (tmp_path / "task" / f"my{name.lower()}.yaml").write_text(f"_target_: own_programs.{name}\n")
    monkeypatch.setenv("RRL_PARTS", str(tmp_path))
    monkeypatch.setattr(sys, "path", list(sys.path))
    needing_both, needing_one = (faults("task=gsm8k", f"algo={algo}")[0] for algo in ("ppocoder", "rltf"))
    assert "myreferenced" in needing_both and "mybare" not in needing_both
    assert "myreferenced" in needing_one and "mybare" in needing_one


# --- steps on text ----------------------------------------------------------------------------------------------------

SMALL = (
    PROGRAMS, "warmstart=none", "data.level_weights=null", "run.threads=1", "trainer.train_batch_size=12",
    "trainer.ppo_mini_batch_size=6", "trainer.ppo_epochs=1", "trainer.critic_warmup=0", "model.hidden_size=16",
    "model.num_hidden_layers=1", 'data.plain_template="{question}\\n"', "selection=random_cut",
)  # fmt: skip


REPLAY = ["sampler.schedule.share=0.5"]


def started(*overrides: str) -> Trainer:
    """A trainer on a byte-level model, whose responses are judged by chance."""
    _, parts = load("train", [*SMALL, *overrides])
    return make_trainer(parts, prepare({"sampler": {}}, parts, lambda share, metrics: None), Clock())


@pytest.mark.parametrize(
    ("algo", "sampler"),
    [
        *((algo, "retrospective") for algo in ALGORITHMS),
        *(pytest.param(algo, "problems", marks=pytest.mark.slow) for algo in ALGORITHMS),
    ],
)  # fmt: skip
def test_every_algorithm_takes_steps_and_its_metrics_are_explained(algo: str, sampler: str) -> None:
    trainer = started(f"algo={algo}", f"sampler={sampler}", *(REPLAY if sampler == "retrospective" else []))
    rows = [trainer.step() for _ in range(2)]
    assert all(math.isfinite(value) for row in rows for value in row.values())
    reported = "".join((DOCS / name).read_text(encoding="utf-8") for name in ("code-baselines.md", "ppo.md", "rrl.md"))
    own = {name for name in rows[-1] if name.startswith(("rltf/", "ppocoder/", "actor/"))}
    assert len(own) > 6 and not {name for name in own if f"`{name}`" not in reported}
    assert (rows[-1]["replay/ratio"] > 0) == (sampler == "retrospective")


@pytest.mark.parametrize("algo", ALGORITHMS)
def test_every_algorithm_goes_on_from_a_checkpoint_bit_for_bit(algo: str, tmp_path: Path) -> None:
    first, second = (started(f"algo={algo}", "sampler=retrospective", *REPLAY) for _ in range(2))
    checkpoints = Checkpoints(tmp_path, keep_last=1, keep_best=0)
    first.step()
    checkpoints.save(first, None)
    assert checkpoints.restore(second) == 1
    assert second.reward.state_dict() == first.reward.state_dict()
    assert first.step() == second.step()
    assert first.last_rollouts == second.last_rollouts
    assert second.objective.state_dict().get("samples") == first.objective.state_dict().get("samples")
    for one, other in zip(first.policy.actor.parameters(), second.policy.actor.parameters(), strict=True):
        assert torch.equal(one, other)
