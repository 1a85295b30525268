"""Out of memory: which errors stand for it, and what is said of phase, peak and keys."""

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from rrl.config.check import load
from rrl.errors import ConfigError, DataError
from rrl.processes.machine import in_words
from rrl.processes.out_of_memory import OutOfMemory, lower, out_of_memory_message, report_out_of_memory

CUDA = (
    "CUDA out of memory. Tried to allocate 37.25 GiB. GPU 0 has a total capacity of 79.20 GiB of which 2.1 GiB is free."
)


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    """The embedded default."""
    return load("train", [])[0]


def real_error() -> RuntimeError:
    """What torch's allocator says on the CPU."""
    with pytest.raises(RuntimeError) as error:
        torch.empty(2**50, dtype=torch.uint8)
    return error.value


# --- which errors -----------------------------------------------------------------------------------------------------


def test_the_real_error_of_the_allocator_is_explained(config: dict[str, Any]) -> None:
    reported = str(out_of_memory_message(real_error(), "update_actor", config, 1))
    assert reported.startswith(f"update_actor: {in_words(2**50)} could not be allocated")
    assert "policy.micro_batch_size: 320; try policy.micro_batch_size=160" in reported


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError(CUDA),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: not enough memory"),
        RuntimeError("unable to mmap 1024 bytes from file <model.safetensors>: Cannot allocate memory (12)"),
        RuntimeError("std::bad_alloc"),
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
    ],
    ids=lambda error: f"{type(error).__name__} {error}"[:40],
)  # fmt: skip
def test_every_library_has_its_own_words_for_it(error: Exception, config: dict[str, Any]) -> None:
    assert out_of_memory_message(error, "gen", config, 1) is not None


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        OSError(errno.ENOSPC, "No space left on device"),
        ValueError("out of memory of what was said"),
        KeyboardInterrupt(),
        ConfigError("trainer.n: expected at least 1, got 0"),
    ],
)
def test_other_errors_are_left_alone(error: BaseException, config: dict[str, Any]) -> None:
    assert out_of_memory_message(error, "gen", config, 1) is None


def test_an_error_that_was_wrapped_is_found(config: dict[str, Any]) -> None:
    wrapped = DataError("model.path: 'x' cannot be read")
    wrapped.__cause__ = torch.OutOfMemoryError(CUDA)
    assert "37.2 GiB could not be allocated" in str(out_of_memory_message(wrapped, None, config, 1))


# --- what is said -----------------------------------------------------------------------------------------------------


def test_without_a_phase_it_happened_before_the_first_step(config: dict[str, Any]) -> None:
    for phase in (None, ""):
        reported = str(out_of_memory_message(MemoryError(), phase, config, 1))
        assert reported.startswith("before the first step: memory could not be allocated")
        assert "policy.micro_batch_size=160" in reported


def test_the_peak_is_that_of_this_process(config: dict[str, Any]) -> None:
    held = torch.ones(2**26, dtype=torch.float32)  # 256 MiB
    [line, *_] = str(out_of_memory_message(MemoryError(), "gen", config, 1)).splitlines()
    size, unit = line.rpartition("peak was ")[2].split()[:2]
    assert float(size) * {"MiB": 2**20, "GiB": 2**30}[unit] > held.nbytes
    assert line.endswith("of main memory")


@pytest.mark.parametrize(
    ("phase", "keys"),
    [
        ("gen", ["engine.batch_size", "data.max_response_length", "data.max_prompt_length", "policy.dtype"]),
        ("testing", ["engine.batch_size", "data.max_response_length", "data.max_prompt_length", "policy.dtype"]),
        ("old_log_prob", ["policy.micro_batch_size", "data.max_response_length", "policy.dtype"]),
        (
            "update_actor",
            ["policy.micro_batch_size", "policy.gradient_checkpointing", "data.max_response_length", "policy.dtype"],
        ),
        ("loading", ["policy.dtype"]),
        ("warm start", ["policy.micro_batch_size", "data.max_prompt_length"]),
    ],
)
def test_each_phase_has_its_keys(phase: str, keys: list[str], config: dict[str, Any]) -> None:
    assert list(lower(phase, config, 1)) == keys


def test_what_is_lowest_already_is_not_named(config: dict[str, Any]) -> None:
    lowest = {"micro_batch_size": 1, "gradient_checkpointing": True, "dtype": "bfloat16"}
    small = {
        **config,
        "critic": None,
        "policy": {**config["policy"], **lowest},
        "data": {**config["data"], "max_response_length": 1},
    }
    assert lower("update_actor", small, 1) == {}


def test_a_stage_shares_out_among_several_processes_only(config: dict[str, Any]) -> None:
    assert "policy.zero_stage" not in lower("update_actor", config, 1)
    assert lower("update_actor", config, 4)["policy.zero_stage"] == "policy.zero_stage=1"
    critic = {"_target_": "rrl.training.policy_settings.OwnCritic"}
    own = {**config, "critic": critic, "policy": {**config["policy"], "zero_stage": 3}}
    assert "policy.zero_stage" not in lower("update_actor", own, 4)
    assert lower("update_actor", own, 4)["critic"] == "critic=shared"


def test_more_processes_are_named_when_there_are_accelerators_for_them(
    config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    shared_out = {**config, "policy": {**config["policy"], "zero_stage": 2}}
    assert "launcher.num_processes" not in lower("gen", shared_out, 1)
    monkeypatch.setattr("rrl.processes.out_of_memory.accelerator_count", lambda: 2)
    assert lower("gen", shared_out, 1)["launcher.num_processes"] == "launcher.num_processes=2"
    assert "launcher.num_processes" not in lower("gen", config, 1)


def test_an_engine_without_a_batch_size_is_given_none(config: dict[str, Any]) -> None:
    own = {**config, "engine": {"_target_": "mine.Engine"}}
    assert [key for key in lower("gen", own, 1) if key.startswith("engine")] == []


# --- around a run -----------------------------------------------------------------------------------------------------


def test_a_run_that_lacks_memory_ends_with_the_explanation(config: dict[str, Any]) -> None:
    phase = ["gen"]
    with pytest.raises(OutOfMemory, match="old_log_prob: ") as error, report_out_of_memory(config, lambda: phase[0], 1):
        phase[0] = "old_log_prob"
        raise real_error()
    assert isinstance(error.value.__cause__, RuntimeError)
    assert len(error.value.faults) > 2


def test_a_run_that_fails_otherwise_fails_as_it_does(config: dict[str, Any]) -> None:
    with pytest.raises(ZeroDivisionError), report_out_of_memory(config, lambda: "gen", 1):
        raise ZeroDivisionError


PROGRAM = """
import resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import torch
from fixtures.training import make_engine, make_trainer, tiny
from rrl.config.check import load
from rrl.processes.out_of_memory import OutOfMemory, report_out_of_memory

config = load("train", [sys.argv[2]])[0]
group, name, value = *sys.argv[2].partition("=")[0].split("."), int(sys.argv[2].partition("=")[2])
if group == "engine":
    trainer = make_trainer(engine=make_engine(batch_size=value), train_batch_size=4096)
else:
    trainer = make_trainer(policy={name: value}, train_batch_size=2048, ppo_mini_batch_size=2048)
pages = int(Path("/proc/self/statm").read_text().split()[0])
limit = pages * resource.getpagesize() + int(sys.argv[3]) * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
try:
    with report_out_of_memory(config, lambda: trainer.clock.current()[0], 1):
        trainer.step()
except OutOfMemory as error:
    print(error)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("setting", "spare", "phase"),
    [("engine.batch_size=4096", 48, "gen"), ("policy.micro_batch_size=2048", 160, "update_actor")],
)
def test_a_real_lack_of_memory_names_phase_and_key(setting: str, spare: int, phase: str, tmp_path: Path) -> None:
    tests, quiet = Path(__file__).resolve().parents[1], {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-c", PROGRAM, str(tests), setting, str(spare)]
    done = subprocess.run(command, cwd=tmp_path, env={**os.environ, **quiet}, capture_output=True, text=True)
    key, _, value = setting.partition("=")
    assert f"{phase}: " in done.stdout, done.stderr[-2000:]
    assert f"{key}: {value}; try {key}={int(value) // 2}" in done.stdout


def test_an_error_that_comes_from_itself_has_an_end() -> None:
    one, other = OSError(28, "No space left on device"), ValueError("x")
    one.__cause__, other.__cause__ = other, one
    assert out_of_memory_message(other, "gen", {}, 1) is None
