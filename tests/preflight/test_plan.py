"""The plan of a run: it counts what a run does, and makes nothing."""

import json
import re
import resource
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Qwen2Config

from fixtures.ranks import on_ranks
from fixtures.training import LORA, make_policy, networks, settings, tiny, trainer_settings
from rrl.cli import shell, train
from rrl.config.check import Parts, load
from rrl.errors import ConfigError, DataError, UsageError
from rrl.preflight import capacity
from rrl.preflight.capacity import Disk, Phase, shortages
from rrl.preflight.plan import Plan, _passed, at_start, plan, plan_text
from rrl.processes.machine import MemoryInfo
from rrl.runs.assemble import prepare
from rrl.training.course import Between, Course
from rrl.training.evaluation import Evaluation
from rrl.training.loop import LoopSettings
from rrl.training.models import TinyLlama
from rrl.training.networks import on_meta
from rrl.training.trainer import TrainerSettings

pytestmark = pytest.mark.ranks

SMALL = ("task.train_per_level=20", "evaluation.limit=5")
TEN_STEPS = ("trainer.total_tokens=null", "trainer.total_training_steps=10")


def planned(folder: Path, *overrides: str) -> Plan:
    """The plan of a small run of the embedded task."""
    return plan(*configured(folder, *overrides))


def configured(folder: Path, *overrides: str) -> tuple[dict[str, Any], Parts]:
    return load("train", [*SMALL, f"run.dir={folder / 'run'}", *overrides])


# --- what a run does --------------------------------------------------------------------------------------------------


def test_sequences_become_optimiser_steps() -> None:
    sizes = trainer_settings(train_batch_size=6, n=4, ppo_mini_batch_size=12, ppo_epochs=3, total_training_steps=7)
    course = sizes.course(problems=9, longest=8, likely=None)
    assert course.of_a_step == ["6 starts x 4 = 24 sequences -> 2 mini-batches x 3 epochs = 6 optimiser steps"]
    assert (course.steps, course.optimised, course.tokens) == ((7, 7, 7), (42, 42, 42), 7 * 24 * 8)


@pytest.mark.parametrize(
    ("sizes", "reported"),
    [
        ((12, 2, 4), "12 sequences = 2 processes x 2 micro-batches of at most 4 rows"),
        ((4, 3, 8), "4 sequences = 3 processes x 1 micro-batch of at most 2 rows"),
        ((1, 1, 1), "1 sequence = 1 process x 1 micro-batch of at most 1 row"),
        ((1000, 1, 300), "1,000 sequences = 1 process x 4 micro-batches of at most 300 rows"),
    ],
)
def test_mini_batches_become_micro_batches_and_rows_that_do_not_divide_are_rounded_up(
    sizes: tuple[int, int, int], reported: str
) -> None:
    rows, processes, most = sizes
    assert _passed(rows, processes, settings(micro_batch_size=most)) == f"mini-batch: {reported}"


def test_a_budget_of_tokens_is_in_the_plan() -> None:
    by_tokens = settings(micro_batch_tokens=4096)
    expected = "mini-batch: 12 sequences = 2 processes x micro-batches of at most 4,096 tokens"
    assert _passed(12, 2, by_tokens) == expected
    assert by_tokens.rows_at_once(1000) == 5  # as many tokens as rows of any length may have


def ten_a_step(steps: int | None, tokens: int | None) -> TrainerSettings:
    sizes = {"train_batch_size": 10, "ppo_mini_batch_size": 10}
    return trainer_settings(**sizes, total_training_steps=steps, total_tokens=tokens)


def test_a_limit_in_tokens_bounds_the_steps() -> None:
    limited = ten_a_step(None, 1001)
    # 10 responses of 1 to 8 tokens a step: 1001 / 80, / 10, and / 25 where 2.5 is likely.
    assert limited.course(9, longest=8, likely=2.5).steps == Between(13, 41, 101)
    assert limited.course(9, longest=8, likely=None).steps == Between(13, None, 101)
    assert limited.course(9, longest=8, likely=99.0).steps.likely == 13


def test_the_lower_of_two_limits_counts() -> None:
    assert ten_a_step(50, 1001).course(9, longest=8, likely=2.5).steps == Between(13, 41, 50)
    assert ten_a_step(7, None).course(9, longest=8, likely=None).steps == Between(7, 7, 7)
    assert ten_a_step(13, 1001).course(9, longest=8, likely=None).steps == Between(13, 13, 13)


def test_what_a_sampler_has_written_counts_at_most() -> None:
    course = ten_a_step(None, 1001).course(9, longest=8, likely=2.5, expense=20)
    assert (course.steps, course.tokens) == (Between(11, 23, 101), 1100)  # 1001 / 100, / 45, / 10; 1000 + 100
    assert course.of_a_step[1:] == ["to choose or value states, at most 20 new tokens more"]
    assert ten_a_step(3, None).course(9, longest=8, likely=2.5, expense=20).tokens == 300


def test_the_last_step_may_go_over_the_limit_in_tokens() -> None:
    assert ten_a_step(None, 1001).course(9, longest=8, likely=2.5).tokens == 1080
    assert ten_a_step(3, None).course(9, longest=8, likely=2.5).tokens == 240


def lasting(steps: int, milestones: int = 0) -> Course:
    return Course(Between(steps, steps, steps), Between(steps, steps, steps), 0, milestones, [])


@pytest.mark.parametrize(("steps", "every", "count"), [(10, 5, 3), (11, 5, 4), (3, 5, 2), (10, None, 2)])
def test_evaluations_come_before_in_between_and_at_the_end(steps: int, every: int | None, count: int) -> None:
    assert lasting(steps).evaluations(every) == (count, count, count)


@pytest.mark.parametrize(
    ("steps", "every", "milestones", "count"), [(10, 5, 0, 2), (11, 5, 0, 3), (3, None, 0, 1), (10, 5, 4, 5)]
)
def test_a_checkpoint_is_written_at_milestones_and_at_the_end_too(
    steps: int, every: int | None, milestones: int, count: int
) -> None:
    assert lasting(steps, milestones).checkpoints(every) == (count, count, count)


def test_an_evaluation_writes_one_greedy_response_and_n_sampled_ones() -> None:
    shape = {"split": "test", "limit": None, "temperature": 1.0, "seed": 0}
    assert Evaluation(n=4, **shape).responses(6) == 30
    assert Evaluation(n=0, **shape).responses(6) == 6


@dataclass(frozen=True)
class NoLoop(LoopSettings):
    """A loop of a user's own that says nothing of its course."""

    n: int = 2
    sequences: int = 6
    mini_batch: int = 3
    needs = frozenset()
    annotates = knows_length = False
    optimiser_steps = None


class OwnLoop(NoLoop):
    """One that does."""

    def course(self, problems: int, longest: int, likely: float | None) -> Course:
        once = Between(problems, None, 2 * problems)
        return Course(once, once.over(lambda steps: 3 * steps), problems * longest, 5, [f"{likely} tokens are likely"])


def test_a_loop_of_ones_own_forecasts_itself(tmp_path: Path) -> None:
    config, parts = configured(tmp_path, "run.save_freq=null", "run.test_freq=40")
    text = plan_text(plan(config, replace(parts, trainer=OwnLoop())))
    assert "a step       7.5 tokens are likely\n             mini-batch: 3 sequences = 1 process x 1 " in text
    assert "training     40 to 80 steps -> 120 to 240 optimiser steps\n             640 new tokens at most; " in text
    assert "6 to 7 evaluations" in text
    assert "5 checkpoints of" in text
    assert "old_log_prob" not in text


def test_a_loop_without_a_forecast_is_not_planned(tmp_path: Path) -> None:
    config, parts = configured(tmp_path)
    with pytest.raises(ConfigError, match="there is no forecast for NoLoop; leave dry_run out"):
        plan(config, replace(parts, trainer=NoLoop()))


@pytest.mark.parametrize(
    ("course", "reported"),
    [
        (lambda *given: None, r"OwnLoop\.course: returned None \(NoneType\); expected a Course"),
        (lambda *given: 1 / 0, r"trainer: .*OwnLoop\.course failed \(.*ZeroDivisionError"),
    ],
)
def test_a_course_that_is_none_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, course: Any, reported: str
) -> None:
    monkeypatch.setattr(OwnLoop, "course", course)
    config, parts = configured(tmp_path)
    with pytest.raises(UsageError, match=reported):
        plan(config, replace(parts, trainer=OwnLoop()))


# --- the data and the parameters of a configuration -------------------------------------------------------------------


def test_problems_are_counted_by_level(tmp_path: Path) -> None:
    text = plan_text(planned(tmp_path))
    # Prompts: a digit, ten instructions, "=" and the begin token; references: 3 or 10 digits and the end token.
    assert "train: 40 (L3 20, L10 20); tokens: prompts 13 to 13, references 7.5 on average\n" in text
    assert "test: 6 (L3 2, L6 2, L10 2); tokens: prompts 13 to 13, references 7.3 on average\n" in text


@pytest.mark.parametrize("critic", ["own", "shared", "none"])
@pytest.mark.parametrize("lora", [None, LORA])
def test_parameters_are_those_of_the_policy(critic: Any, lora: Any) -> None:
    chosen = settings(critic=critic, lora=lora, head_size=3)
    real = networks(make_policy(**{"critic": critic, "lora": lora, "head_size": 3}))
    expected = [[sum(p.numel() for p in m.parameters() if p.requires_grad is on) for on in (True, False)] for m in real]
    assert [[one.trained, one.frozen] for one in capacity.networks(tiny(), chosen)] == expected


def test_adapters_are_planned_on_the_model_itself(tmp_path: Path) -> None:
    actor = planned(tmp_path, "lora=default", "lora.rank=2").need.networks[0]
    # Of three layers: four of 64 x 64, three of 64 x 172; a shared head of 64 x 64 + 64 + 64 + 1.
    assert (actor.trained, actor.frozen) == (3 * 2 * (4 * 128 + 3 * 236) + 4225, 158_400)


def test_a_model_of_seven_billion_parameters_is_planned_without_allocating_it(tmp_path: Path) -> None:
    [(parameters, networks_, peak)] = on_ranks(1, _plan_of_a_large_model, str(tmp_path))
    assert parameters == 7_615_616_512  # Qwen2.5-7B, as its authors count
    assert networks_ == [("actor", 7_615_616_512), ("critic", 7_615_616_512 - 152_064 * 3584 + 3585)]
    assert peak < 2 * 2**30


def _plan_of_a_large_model(folder: str) -> tuple[int, list[tuple[str, int]], int]:
    path = Path(folder)
    _write_large_model(path / "large")
    rows = [{"question": "Two and two?", "answer": "Four.\n#### 4"}] * 9
    for split in ("train", "test"):
        (path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    keys = ["task=gsm8k", f"data.path={path}", "model=hf", f"model.path={path / 'large'}", f"run.dir={path / 'run'}"]
    made = plan(*load("train", [*keys, "run.save_freq=null"]))
    assert any("large" in warning and "weights" in warning for warning in made.warnings)
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return made.need.whole, [(one.name, one.trained) for one in made.need.networks], peak


def _write_large_model(folder: Path) -> None:
    sizes = {"hidden_size": 16, "num_hidden_layers": 1}
    small = TinyLlama(**sizes, max_prompt_length=32, max_response_length=32, start_seed=0)
    small.load(None).tokenizer.save_pretrained(folder)
    Qwen2Config(
        vocab_size=152_064, hidden_size=3584, intermediate_size=18_944, num_hidden_layers=28, num_attention_heads=28,
        num_key_value_heads=4, max_position_embeddings=32_768, tie_word_embeddings=False,
    ).save_pretrained(folder)  # fmt: skip


# --- warnings ---------------------------------------------------------------------------------------------------------


EMPTY = Disk(size=0, kept=0, total=0, free=0)


def test_a_phase_that_does_not_fit_names_the_keys_to_lower(tmp_path: Path) -> None:
    config, _ = configured(tmp_path)
    room = MemoryInfo("main memory", 100 * 2**30, 3 * 2**30)
    parts = {"logits": 3 * 2**30, "activations": 2**30}
    [reported] = shortages([Phase("update_actor", parts, room), Phase("gen", {"logits": 1}, room)], EMPTY, config, 1)
    assert "update_actor needs about 4 GiB" in reported
    assert "3 GiB of main memory" in reported
    assert "policy.micro_batch_size=160" in reported


def test_a_disk_without_room_for_the_checkpoints_is_reported() -> None:
    [reported] = shortages([], Disk(size=10, kept=2, total=40, free=39), {}, 1)
    assert reported.startswith("run.dir: checkpoints take about 40 B, and 39 B of the disk are free; ")
    assert "run.keep_last" in reported
    assert shortages([], Disk(size=10, kept=2, total=40, free=40), {}, 1) == []


def test_a_checkpoint_is_as_large_as_estimated(tmp_path: Path) -> None:
    keys = ["warmstart=none", "trainer.total_tokens=null", "trainer.total_training_steps=1", "run.threads=1"]
    sizes = ["trainer.train_batch_size=8", "trainer.ppo_mini_batch_size=8", "model.hidden_size=128"]
    estimate = planned(tmp_path, *keys, *sizes).disk.size
    train._train([*SMALL, f"run.dir={tmp_path / 'run'}", *keys, *sizes])
    written = sum(path.stat().st_size for path in (tmp_path / "run" / "checkpoints").rglob("*") if path.is_file())
    assert estimate == pytest.approx(written, rel=0.05)


# --- the command ------------------------------------------------------------------------------------------------------


def test_a_dry_run_prints_the_plan_and_makes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RRL_CACHE", str(tmp_path / "cache"))
    assert shell.guarded(lambda: train._train(["dry_run=true", *SMALL, *TEN_STEPS])) == 0
    reported = capsys.readouterr().out
    assert "256 starts x 1 = 256 sequences -> 2 mini-batches x 2 epochs = 4 optimiser steps" in reported
    assert "10 steps -> 40 optimiser steps" in reported
    assert list(tmp_path.rglob("*")) == []


@pytest.mark.parametrize(
    ("arguments", "reported"),
    [
        (["dry_run=yes"], ["dry_run: expected true or false, got 'yes'"]),
        (["dry_run=true", "objective.clp=1", "trainer.n=0"], ["objective.clp", "trainer.n"]),
        (["dry_run=true", "resume=runs/one"], ["dry_run", "resume=runs/one"]),
    ],
)
def test_a_dry_run_reports_the_faults_of_a_start(arguments: Sequence[str], reported: Sequence[str]) -> None:
    with pytest.raises(ConfigError) as error:
        train._train(arguments)
    assert all(word in str(error.value) for word in reported)


def test_a_dry_run_reads_the_data(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"train\.jsonl"):
        plan(*load("train", ["task=gsm8k", f"data.path={tmp_path / 'nowhere'}", f"run.dir={tmp_path / 'run'}"]))


def test_a_dry_run_refuses_the_directory_of_a_run(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").touch()
    with pytest.raises(ConfigError, match=r"run\.dir"):
        planned(tmp_path)


def test_the_text_names_every_phase_and_every_stage(tmp_path: Path) -> None:
    text = plan_text(planned(tmp_path, "policy.zero_stage=1"))
    for phase in ("loading", "warm start", "gen", "old_log_prob", "update_actor"):
        assert f"\n             {phase}" in text
    assert [line.split()[0] for line in text.splitlines()[-4:]] == ["0", "1", "2", "3"]
    assert text.splitlines()[-3].endswith("chosen")


HERE = capacity.Here(MemoryInfo("main memory", 2**34, 2**33), [], 2**28)


def started(folder: Path, *overrides: str, here: capacity.Here = HERE, **changes: Any) -> list[str]:
    """The lines of a start, on a machine with 8 GiB free whose program takes 256 MiB."""
    config, parts = configured(folder, "warmstart=none", *overrides)
    prepared = prepare(config, parts, lambda share, metrics: None)
    return at_start(config, parts, folder / "run", replace(prepared, **changes), here)


def test_a_start_reports_its_plan_in_a_few_lines(tmp_path: Path) -> None:
    lines = started(tmp_path, "trainer.total_tokens=null", "trainer.total_training_steps=10")
    assert lines[:3] == [
        "plan: 256 starts x 1 = 256 sequences -> 2 mini-batches x 2 epochs = 4 optimiser steps",
        "plan: mini-batch: 128 sequences = 1 process x 1 micro-batch of at most 128 rows",
        "plan: 10 steps, 40 optimiser steps, 40,960 new tokens at most, 2 evaluations of 30 responses, 1 checkpoint",
    ]  # 10 x 256 x 16 tokens; 15 problems, each one greedy response and 4 samples
    # The same estimates as the whole plan's: the program's 256 MiB and what the tiny model takes.
    assert re.fullmatch(
        r"plan: memory of each process, estimated, of the free memory: loading 2\d\d MiB of 8 GiB, "
        r"save_checkpoint 1.86 MiB of 8 GiB, gen 2\d\d MiB of 8 GiB, old_log_prob 2\d\d MiB of 8 GiB, "
        r"update_actor 3\d\d MiB of 8 GiB",
        lines[3],
    )
    assert len(lines) == 4


def test_a_start_is_warned_of_what_will_not_fit(tmp_path: Path) -> None:
    lines = started(tmp_path, here=HERE._replace(memory=MemoryInfo("main memory", 2**34, 2**28)))
    assert any(line.startswith("warning: update_actor needs about 3") and "256 MiB of main" in line for line in lines)


def test_the_plan_of_a_start_leaves_the_model_as_it_is_and_copies_no_weight() -> None:
    model = tiny()
    bare = on_meta(model)
    assert {p.device.type for p in bare.parameters()} == {"meta"}
    assert [p.shape for p in bare.parameters()] == [p.shape for p in model.parameters()]
    LORA.wrap(bare)
    assert not any("lora" in name for name, _ in model.named_modules())
    assert {p.device.type for p in model.parameters()} == {"cpu"}


def test_what_cannot_be_planned_is_trained_all_the_same(tmp_path: Path) -> None:
    lines = started(tmp_path, model=torch.nn.Linear(2, 2))
    assert lines == ["plan: none could be made (AttributeError: 'Linear' object has no attribute 'config')"]


def test_bounds_are_reported_with_what_is_likely(tmp_path: Path) -> None:
    limited = planned(tmp_path, "trainer.total_tokens=300000", "trainer.total_training_steps=null")
    assert "74 to 1,172 (157) steps -> 296 to 4,688 (628) optimiser steps" in plan_text(limited)
