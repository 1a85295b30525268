"""Checkpoints: everything that changes is in them, damage is noticed, and there is always a good one."""

import errno
import json
import logging
import random
import re
import shutil
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from types import FunctionType, MethodType, ModuleType
from typing import Any

import numpy
import pytest
import torch

from fixtures.config import options
from fixtures.gsi import make_gsi
from fixtures.programs import rltf_trainer
from fixtures.samplers import started
from fixtures.training import LORA, adaptive_kl, grpo, make_engine, make_trainer, ppo, replay
from rrl.config.check import load
from rrl.errors import ConfigError, DataError, StorageError
from rrl.parts.samplers.retrospective import Retrospective
from rrl.runs import checkpoint
from rrl.runs.checkpoint import Checkpoints, state_of
from rrl.runs.full_disk import guard_disk
from rrl.training.loop import Loop
from rrl.training.trainer import Trainer

DOCS = Path(__file__).resolve().parents[2] / "docs"


def trainer(**policy: Any) -> Trainer:
    """One with replay, an adaptive KL coefficient, a critic of its own: everything that changes during training."""
    adaptive = ppo(kl=adaptive_kl(0.05, 0.01, 100), advantage_norm="batch")
    sampler = replay(0.5, sources="both")
    return make_trainer(sampler=sampler, objective=adaptive, policy={"lr_warmup_steps": 9, **policy})


def after(steps: int, **policy: Any) -> Trainer:
    """The trainer after some steps."""
    trained = trainer(**policy)
    for _ in range(steps):
        trained.step()
    return trained


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with whole checkpoints of steps 1, 2 and 3."""
    folder = tmp_path_factory.mktemp("run")
    checkpoints, trained = Checkpoints(folder, keep_last=9, keep_best=0), trainer()
    for _ in range(3):
        trained.step()
        checkpoints.save(trained, None)
    return folder


@pytest.fixture
def saved(three: Path, tmp_path: Path) -> Checkpoints:
    """A copy of it."""
    shutil.copytree(three, tmp_path, dirs_exist_ok=True)
    return Checkpoints(tmp_path, keep_last=9, keep_best=0)


@pytest.fixture(scope="module")
def any_trainer() -> Trainer:
    """One to restore into, again and again."""
    return trainer()


def steps(checkpoints: Checkpoints) -> list[int]:
    return [int(path.name.removeprefix("step-")) for path in sorted(checkpoints.folder.glob("step-*"))]


# --- everything is in them --------------------------------------------------------------------------------------------

NOT_RESTORED = {
    "trainer.last_rollouts": "for the dump of the step just done",
    "trainer.last_batch": "for the dump of the step just done",
    "trainer.sampler.buffer.journal": "for the records of the step just done",
    "trainer.sampler._finds": "counts of the step just done",
    "trainer._passed": "for the metrics of the step just done",
    "trainer.clock": "wall time",
    "trainer.policy._engines": "networks and optimisers, compared through their tensors",
    "trainer.policy._bare": "lent the actor's weights while writing",
    "trainer.engine._source": "the policy, seen from the engine",
    "trainer.engine._copy": "a copy of the actor's weights, refreshed when their version moves",
    "trainer.engine._copied_version": "of that copy",
    "trainer.sampler._inspect": "a method of the policy",
    "trainer.sampler.buffer._rows.trees": "made anew from the columns",
    "trainer.sampler.buffer._scores": "one of these trees",
    "trainer.sampler.buffer._weights": "one of these trees",
    "trainer.start": "what the run begins with",
    "trainer.settings": "of the configuration",
}
"""Attributes that differ after a resume, and why that does not matter."""


def facts(thing: Any, path: str, seen: set[int]) -> dict[str, Any]:
    """Every number, text and tensor that can be reached from an object, by the path of attributes to it."""
    if path in NOT_RESTORED or isinstance(thing, FunctionType | MethodType | ModuleType | type):
        return {}
    if thing is None or isinstance(thing, bool | int | float | str | bytes):
        return {path: thing}
    if isinstance(thing, torch.Tensor | torch.Generator | numpy.ndarray):
        return {path: (thing.get_state() if isinstance(thing, torch.Generator) else thing).tolist()}
    if isinstance(thing, random.Random):
        return {path: thing.getstate()}
    if id(thing) in seen:
        return {}
    seen.add(id(thing))
    return {key: value for name, item in parts_of(thing, path) for key, value in facts(item, name, seen).items()}


def parts_of(thing: Any, path: str) -> list[tuple[str, Any]]:
    """What an object is made of: items, fields and attributes, each with its path."""
    if isinstance(thing, dict):
        return [(f"{path}[{key!r}]", item) for key, item in thing.items()]
    if isinstance(thing, list | tuple | set | frozenset):
        items = sorted(thing, key=str) if isinstance(thing, set | frozenset) else thing
        return [(f"{path}[{i}]", item) for i, item in enumerate(items)]
    names = {*getattr(thing, "__dataclass_fields__", {}), *getattr(thing, "__dict__", {})}
    return [(f"{path}.{name}", getattr(thing, name)) for name in sorted(names)]


def networks(trained: Loop) -> dict[str, Any]:
    """Weights, optimiser states and schedules."""
    found: dict[str, Any] = {}
    for name, engine in trained.policy._engines.items():
        found |= facts(engine.module.state_dict(), f"{name}.weights", set())
        found |= facts(engine.optimizer.state_dict(), f"{name}.optimiser", set())
        found |= {f"{name}.schedule": engine.lr_scheduler.last_epoch, f"{name}.steps": engine.global_steps}
    return found


@pytest.mark.parametrize("policy", [{}, {"critic": "shared"}, {"zero_stage": 2}, {"lora": LORA}], ids=str)
def test_nothing_that_changes_is_left_out(policy: dict[str, Any], tmp_path: Path) -> None:
    trained, fresh = after(2, **policy), trainer(**policy)
    checkpoints = Checkpoints(tmp_path, keep_last=1, keep_best=0)
    before, now = (facts(each, "trainer", set()) for each in (fresh, trained))
    assert sum(before.get(name) != value for name, value in now.items()) > 50, "it sees what changes"
    checkpoints.save(trained, None)
    assert checkpoints.restore(fresh) == 2
    assert facts(fresh, "trainer", set()) == facts(trained, "trainer", set())
    assert networks(fresh) == networks(trained)


def test_a_state_of_another_version_is_refused_by_what_it_lacks(
    saved: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Retrospective.load_state_dict
    monkeypatch.setattr(Retrospective, "load_state_dict", lambda part, state: whole(part, {**state, "buffer": {}}))
    with pytest.raises(DataError, match=r"step-000003: state.pt has no 'evictions' of the sampler; .* or begin a new"):
        saved.restore(trainer())


def test_what_a_reward_remembers_is_restored(tmp_path: Path) -> None:
    trained, checkpoints = rltf_trainer(), Checkpoints(tmp_path, keep_last=1, keep_best=0)
    trained.reward.load_state_dict({"baselines": {"a": 0.5}})
    checkpoints.save(trained, None)
    trained.reward.load_state_dict({"baselines": {}})
    assert checkpoints.restore(trained) == 0
    assert trained.reward.state_dict() == {"baselines": {"a": 0.5}}


@pytest.mark.parametrize("steps", [2, 5, 7, 8])
def test_nothing_of_guided_self_improvement_is_left_out(steps: int, tmp_path: Path) -> None:
    trained, fresh = make_gsi(), make_gsi()
    for _ in range(steps):
        trained.step()
    Checkpoints(tmp_path, keep_last=1, keep_best=0).save(trained, None)
    assert Checkpoints(tmp_path, keep_last=1, keep_best=0).restore(fresh) == steps
    assert facts(fresh, "trainer", set()) == facts(trained, "trainer", set())
    assert networks(fresh) == networks(trained)


COVERING = [(0, "float32"), (1, "bfloat16"), (2, "bfloat16"), (3, "float32")]
"""Every stage of ZeRO and both types; the other half is slow."""
REST = [(1, "float32"), (2, "float32"), (0, "bfloat16"), (3, "bfloat16")]


@pytest.mark.parametrize(
    ("stage", "dtype"), [*COVERING, *(pytest.param(*case, marks=pytest.mark.slow) for case in REST)]
)
def test_training_goes_on_bit_for_bit(stage: int, dtype: str, tmp_path: Path) -> None:
    policy = {"zero_stage": stage, "dtype": dtype}
    trained, fresh = after(1, **policy), trainer(**policy)
    Checkpoints(tmp_path, 1, 0).save(trained, None)
    Checkpoints(tmp_path, 1, 0).restore(fresh)
    assert trained.step() == fresh.step()
    assert networks(fresh) == networks(trained)


def test_training_goes_on_bit_for_bit_while_the_critic_warms_up(tmp_path: Path) -> None:
    changes = {"critic_warmup": 3, "policy": {"critic": "shared"}}  # values are read through the trunk's gradient scale
    trained, fresh = make_trainer(**changes), make_trainer(**changes)
    trained.step()
    Checkpoints(tmp_path, 1, 0).save(trained, None)
    Checkpoints(tmp_path, 1, 0).restore(fresh)
    assert trained.step() == fresh.step()


def test_random_numbers_of_other_peoples_code_go_on(any_trainer: Trainer, tmp_path: Path) -> None:
    def drawn() -> tuple[float, ...]:
        return float(torch.rand(())), random.random(), float(numpy.random.rand())

    checkpoints = Checkpoints(tmp_path, 1, 0)
    checkpoints.save(after(1), None)
    expected = drawn()
    checkpoints.restore(any_trainer)
    assert drawn() == expected


def leaves(state: Any, path: str) -> list[str]:
    """Names of everything in a state: those of the parts, and of what each part's state_dict holds."""
    if not isinstance(state, dict) or path.count(".") == 1:
        return [path]
    return [leaf for name, item in state.items() for leaf in leaves(item, f"{path}.{name}" if path else name)]


def test_the_documentation_lists_everything_that_is_restored() -> None:
    reported = set(re.findall(r"^\| `([\w.]+)` \|", (DOCS / "resuming.md").read_text(encoding="utf-8"), re.MULTILINE))
    loops = [after(1), make_trainer(objective=grpo(), n=2, engine=make_engine()), make_gsi()]
    states = [state_of(loop) for loop in loops]
    states.append(state_of(rltf_trainer()))
    states.append({"objective": load("train", ["objective=vineppo"])[1].objective.state_dict()})
    states += [{"sampler": started(choice).state_dict()} for choice in options("sampler")]
    named = {leaf for state in states for leaf in leaves(state, "") if "." in leaf}
    assert named - reported == set(), "list these in docs/resuming.md"
    assert reported - named == {"networks", "rank"}, "docs/resuming.md lists what is not there"


# --- damage -----------------------------------------------------------------------------------------------------------


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def _empty(path: Path) -> None:
    path.write_bytes(b"")


FILES = ["state.pt", "rank-00000.pt", "checkpoint.json", "actor/model.safetensors"]
FILES += ["networks/actor/state/mp_rank_00_model_states.pt", "networks/critic/state/mp_rank_00_model_states.pt"]


@pytest.mark.parametrize("harm", [_cut, _flip, _empty, Path.unlink])
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_checkpoint_is_said_and_the_one_before_it_used(
    name: str, harm: Callable[[Path], None], saved: Checkpoints, any_trainer: Trainer, caplog: pytest.LogCaptureFixture
) -> None:
    harm(saved.folder / "step-000003" / name)
    with caplog.at_level(logging.WARNING):
        assert saved.restore(any_trainer) == 2
    assert re.search(rf"step-000003 is damaged \({name} .*\); going back to step-000002", caplog.text)
    assert steps(saved) == [1, 2]
    assert (saved.folder / "damaged-step-000003").is_dir()


def test_several_damaged_ones_are_passed_over(saved: Checkpoints, any_trainer: Trainer) -> None:
    _flip(saved.folder / "step-000003" / "state.pt")
    shutil.rmtree(saved.folder / "step-000002" / "networks")
    assert saved.restore(any_trainer) == 1


def test_where_every_checkpoint_is_damaged_nothing_is_thrown_away(saved: Checkpoints, any_trainer: Trainer) -> None:
    for step in (1, 2, 3):
        _cut(saved.folder / f"step-{step:06d}" / "state.pt")
    with pytest.raises(DataError, match=r"every checkpoint is damaged: step-000003 \(state.pt has .* bytes of"):
        saved.restore(any_trainer)
    assert steps(saved) == [1, 2, 3]


def test_a_changed_score_is_damage_too(saved: Checkpoints, any_trainer: Trainer) -> None:
    path = saved.folder / "step-000003" / "checkpoint.json"
    path.write_text(path.read_text().replace('"step": 3', '"step": 4'))
    assert saved.restore(any_trainer) == 2


def test_what_was_never_finished_is_no_checkpoint(saved: Checkpoints) -> None:
    (saved.folder / "step-000003").rename(saved.folder / ".step-000003.tmp")
    trained = trainer()
    assert saved.restore(trained) == 2
    trained.step()
    saved.save(trained, None)
    assert sorted(path.name for path in saved.folder.iterdir()) == ["step-000001", "step-000002", "step-000003"]


def test_without_any_there_is_nothing_to_restore(tmp_path: Path) -> None:
    trained = trainer()
    assert Checkpoints(tmp_path, 1, 0).restore(trained) is None
    assert trained.global_step == 0


def test_the_state_of_several_processes_is_refused_by_one(
    saved: Checkpoints, any_trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "world_size", lambda: 2)
    with pytest.raises(ConfigError, match="trained by 1 processes, now there are 2"):
        saved.restore(any_trainer)


# --- what is kept -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("last", "best", "kept"),
    [(1, 0, [6]), (2, 0, [5, 6]), (1, 1, [2, 6]), (2, 2, [2, 4, 5, 6]), (1, 9, [1, 2, 4, 6])],
)
def test_the_last_and_the_best_are_kept(last: int, best: int, kept: list[int], tmp_path: Path) -> None:
    checkpoints, trained = Checkpoints(tmp_path, last, best), trainer()
    for score in (0.1, 0.5, None, 0.4, None, 0.3):
        trained.global_step += 1
        checkpoints.save(trained, score)
    assert steps(checkpoints) == kept


def test_of_equal_scores_the_later_is_the_best(tmp_path: Path) -> None:
    checkpoints, trained = Checkpoints(tmp_path, 1, 1), trainer()
    for score in (0.5, 0.5, 0.1):
        trained.global_step += 1
        checkpoints.save(trained, score)
    assert steps(checkpoints) == [2, 3]


def test_the_actor_of_a_checkpoint_is_a_model_of_transformers(saved: Checkpoints) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = saved.folder / "step-000003" / "actor"
    trained = trainer()
    saved.restore(trained)
    loaded = dict(AutoModelForCausalLM.from_pretrained(folder).named_parameters())
    assert all(torch.equal(p, loaded[name]) for name, p in trained.policy.actor.model.named_parameters())
    assert AutoTokenizer.from_pretrained(folder).eos_token_id == 2


# --- no room ----------------------------------------------------------------------------------------------------------

Usage = namedtuple("Usage", "total used free")


def fourth(trained: Trainer) -> Trainer:
    """At the step after the saved ones."""
    trained.global_step = 4
    return trained


def test_too_little_room_is_said_before_anything_is_written(
    saved: Checkpoints, any_trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**9, 10**9 - 50_000, 50_000))
    with pytest.raises(StorageError, match=r"0.1 MB are free .* expected 0.[1-9] MB .*rrl-train resume="):
        saved.save(fourth(any_trainer), None)
    assert saved.restore(any_trainer) == 3


def test_a_disk_that_is_full_in_the_middle_leaves_the_last_good_one(
    saved: Checkpoints, any_trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(any_trainer.policy, "save", full)
    with pytest.raises(StorageError, match=r"the disk of .* is full"):
        saved.save(fourth(any_trainer), None)
    assert sorted(path.name for path in saved.folder.iterdir()) == ["step-000001", "step-000002", "step-000003"]
    assert saved.restore(any_trainer) == 3


def test_a_run_that_is_moved_meanwhile_is_named_with_the_way_to_go_on(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with (
        pytest.raises(StorageError, match=r"run.dir: '.*run' is gone, moved or deleted .* rrl-train resume="),
        guard_disk(run),
    ):
        (run / "states.jsonl").open("ab")


def test_other_faults_of_writing_are_not_taken_for_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="something else"), guard_disk(tmp_path):
        raise RuntimeError("something else")


def test_the_checkpoint_lists_every_file_with_its_sum(saved: Checkpoints) -> None:
    folder = saved.folder / "step-000003"
    about = json.loads((folder / "checkpoint.json").read_text())
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert set(about["files"]) == there - {"checkpoint.json"}
    assert (about["step"], about["processes"], about["score"]) == (3, 1, None)
