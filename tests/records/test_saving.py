"""Nothing is lost at the end: what a save needs is tried first, and weights are left somewhere whatever fails."""

import errno
import json
import logging
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM, PreTrainedTokenizerFast

from rrl.cli import evaluate, sft, train
from rrl.errors import ContractError, DataError, StorageError
from rrl.processes.logs import open_log
from rrl.records import saving
from rrl.records.saving import rehearse, rescued, write_model
from rrl.training.models import TinyLlama

SIZES: dict[str, Any] = {
    "hidden_size": 16, "num_hidden_layers": 1,
    "max_prompt_length": 64, "max_response_length": 64, "start_seed": 0,
}  # fmt: skip
DATED = "{{ strftime_now('%d %b %Y') }}|{% for m in messages %}{{ m.content }}{% endfor %}|"
RUN = {
    "task": "trace", "algo": "ppo", "model": "hf", "warmstart": "none", "run.threads": 1, "run.test_freq": "null",
    "task.train_per_level": 8, "data.level_weights": "null", "data.max_response_length": 8,
    "trainer.train_batch_size": 4, "trainer.ppo_mini_batch_size": 4, "trainer.ppo_epochs": 1,
    "trainer.critic_warmup": 0, "trainer.total_tokens": "null", "trainer.total_training_steps": 1,
    "evaluation.n": 0, "evaluation.limit": 1, "critic": "shared", "policy.head_size": 8,
    "data.max_prompt_length": 100,
}  # fmt: skip

LORA = {"lora": "default", "lora__rank": 2, "lora__target_modules": "[q_proj]"}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model's folder whose generation config is one that transformers reads but does not write."""
    folder = tmp_path_factory.mktemp("saving") / "base"
    model, tokenizer = TinyLlama(**SIZES).load(None)
    tokenizer.chat_template = DATED
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    values = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps(values | {"temperature": 0.6, "eos_token_id": [2, 5]}))
    return folder


def words(base: Path, run: Path, **changes: object) -> list[str]:
    keys = RUN | {"model.path": base, "run.dir": run}
    keys |= {name.replace("__", "."): value for name, value in changes.items()}
    return [f"{key}={value}" for key, value in keys.items()]


def start(base: Path, run: Path, **changes: object) -> None:
    train._train(words(base, run, **changes))


def raising(error: Exception) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


def only_weights(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let models fail to save wherever weights are to be written, as nothing cheap can find out before."""
    whole = LlamaForCausalLM.save_pretrained

    def save(self: Any, folder: Any, *, state_dict: Any = None, **named: Any) -> None:
        if state_dict is None:
            raise error
        whole(self, folder, state_dict=state_dict, **named)

    monkeypatch.setattr(LlamaForCausalLM, "save_pretrained", save)


# --- before training --------------------------------------------------------------------------------------------------


def test_a_run_saves_in_spite_of_an_invalid_generation_config_and_keeps_its_end_tokens(
    base: Path, tmp_path: Path
) -> None:
    start(base, tmp_path / "run", run__save_freq=1)
    for folder in (tmp_path / "run" / "actor", tmp_path / "run" / "checkpoints" / "step-000001" / "actor"):
        values = json.loads((folder / "generation_config.json").read_text())
        assert (values["temperature"], values["do_sample"], values["eos_token_id"]) == (0.6, True, [2, 5])
        assert AutoModelForCausalLM.from_pretrained(folder).generation_config.eos_token_id == [2, 5]
    assert not list((tmp_path / "run").rglob("*rehearsal*"))


def test_supervised_training_saves_likewise(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = {"warmstart.steps": 1, "warmstart.batch_size": 2}
    sft._sft([word for word in words(base, tmp_path / "sft", **small) if not word.startswith("warmstart=")])
    folder = Path(capsys.readouterr().out.split("\n")[-2])
    assert folder == tmp_path / "sft"
    assert json.loads((folder / "generation_config.json").read_text())["eos_token_id"] == [2, 5]


def test_a_copy_that_fails_is_reported_with_where_the_model_is(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "copytree", raising(shutil.Error("no space")))
    small = {"warmstart.steps": 1, "warmstart.batch_size": 2}
    with pytest.raises(StorageError, match=r"cannot be written \(no space\); the model is in '.*/sft-"):
        sft._sft([word for word in words(base, tmp_path / "sft", **small) if not word.startswith("warmstart=")])


@pytest.mark.parametrize(
    ("part", "what"), [(LlamaForCausalLM, "the model"), (PreTrainedTokenizerFast, "the tokenizer")]
)
def test_what_cannot_be_saved_is_reported_before_training(
    part: Any, what: str, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(part, "save_pretrained", raising(ValueError("not\nthis one")))
    with pytest.raises(DataError) as caught:
        start(base, tmp_path / "run")
    assert list(caught.value.faults) == [
        f"{what} cannot be saved as transformers does (ValueError: not this one); every save of the run would fail; "
        "fix its files"
    ]
    assert not (tmp_path / "run").exists()


def test_a_warm_start_that_could_not_be_saved_is_not_begun(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PreTrainedTokenizerFast, "save_pretrained", raising(TypeError("no")))
    monkeypatch.setattr("rrl.training.warm_start.WarmStart.train", raising(AssertionError("it trained")))
    with pytest.raises(DataError, match=r"the tokenizer cannot be saved .*\(TypeError: no\)"):
        sft._sft([word for word in words(base, tmp_path / "sft") if not word.startswith("warmstart=")])


def test_adapters_are_merged_for_the_rehearsal_without_their_weights(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peft.tuners.lora import Linear

    monkeypatch.setattr(Linear, "merge", raising(RuntimeError("no such merge")))
    with pytest.raises(DataError, match=r"the model cannot be saved .*\(RuntimeError: no such merge\)"):
        start(base, tmp_path / "run", critic="own", **LORA)


def test_no_weight_is_copied_for_the_rehearsal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from peft import LoraConfig, get_peft_model

    model, tokenizer = TinyLlama(**SIZES).load(None)
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"]))
    places: list[set[str]] = []

    def save(self: Any, folder: Any, **_: Any) -> None:
        places.append({weight.device.type for weight in self.parameters()})

    monkeypatch.setattr(LlamaForCausalLM, "save_pretrained", save)
    rehearse(adapted, tokenizer, tmp_path)
    assert places == [{"meta"}]
    assert {weight.device.type for weight in adapted.parameters()} == {"cpu"}


def test_too_small_a_disk_is_reported_before_training(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10_000))
    with pytest.raises(StorageError, match=r"0.0 MB are free .* MB for a checkpoint of the first step; free space"):
        start(base, tmp_path / "run")
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_a_part_whose_state_cannot_be_saved_is_reported_before_training(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rrl.parts.rewards.verdict.OutcomeReward.state_dict", lambda self: {"how": lambda: 1})
    with pytest.raises(
        ContractError, match=r"reward: OutcomeReward.state_dict cannot be saved \(.*expected plain data"
    ):
        start(base, tmp_path / "run")


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_that_may_not_be_written_is_reported(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(StorageError, match="nothing can be written"):
        rehearse(*TinyLlama(**SIZES).load(None), tmp_path / "x")


# --- a save that fails all the same -----------------------------------------------------------------------------------


def test_weights_that_transformers_does_not_write_are_written_plainly(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    only_weights(RuntimeError("shared tensors"), monkeypatch)
    run = tmp_path / "run"
    with pytest.raises(StorageError) as caught:
        start(base, run, run__save_freq=1)
    reported = "the model cannot be saved as transformers does (RuntimeError: shared tensors)"
    assert list(caught.value.faults) == [f"{reported}; its weights are in {run / 'actor' / 'weights.pt'}"]
    assert f"checkpoint of step 1, actor: {reported}; training can continue from it" in caplog.messages
    weights = torch.load(run / "actor" / "weights.pt")
    assert weights["lm_head.weight"].shape == (260, 16)
    assert AutoTokenizer.from_pretrained(run / "actor").eos_token_id == 2
    assert json.loads((run / "status.json").read_text())["state"] == "failed"
    assert (run / "result.json").is_file()
    monkeypatch.undo()
    train._train([f"resume={run}"])  # nothing is left to do but to save
    saved = AutoModelForCausalLM.from_pretrained(run / "actor").state_dict()
    assert torch.equal(saved["lm_head.weight"], weights["lm_head.weight"])


def test_a_tokenizer_that_cannot_be_written_at_the_end_leaves_the_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer = TinyLlama(**SIZES).load(None)
    monkeypatch.setattr(PreTrainedTokenizerFast, "save_pretrained", raising(TypeError("no")))
    assert write_model(model, tokenizer, tmp_path) == [
        "the tokenizer cannot be saved as transformers does (TypeError: no)"
    ]
    assert sorted(path.name for path in tmp_path.glob("*.*t*")) == ["model.safetensors"]


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("[enforce fail at inline_container.cc:603] . PytorchStreamWriter failed: file write failed"),
        RuntimeError("basic_ios::clear: iostream error"),
        RuntimeError("Error while serializing: I/O error: File too large (os error 27)"),
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        OSError(errno.EROFS, "Read-only file system"),
        OSError(errno.EACCES, "Permission denied"),
    ],
    ids=str,
)
def test_a_disk_that_does_not_take_the_model_is_given_no_plain_weights(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LlamaForCausalLM, "save_pretrained", raising(error))
    with pytest.raises(type(error)) as caught:
        write_model(*TinyLlama(**SIZES).load(None), tmp_path)
    assert caught.value is error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        pytest.param(OSError(errno.EROFS, "Read-only file system"), marks=pytest.mark.slow),
    ],
)
def test_weights_that_the_disk_does_not_take_go_elsewhere(
    error: OSError, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, other = tmp_path / "run", tmp_path / "elsewhere"
    other.mkdir()
    monkeypatch.setattr(saving.tempfile, "gettempdir", lambda: str(other))
    whole = saving.write_model

    def write(model: Any, tokenizer: Any, folder: Path) -> list[str]:
        if folder.is_relative_to(run):
            raise error
        return whole(model, tokenizer, folder)

    monkeypatch.setattr("rrl.training.policy.write_model", write)
    with pytest.raises(StorageError) as caught:
        start(base, run)
    (fault,) = caught.value.faults
    assert fault.endswith(f"; the weights are in {other / 'rrl-run-rescued-step-000001'}")
    assert AutoModelForCausalLM.from_pretrained(other / "rrl-run-rescued-step-000001").num_parameters() > 0
    assert not list(run.glob("rescued-*"))


def test_what_can_be_written_nowhere_is_said_to_be_nowhere(tmp_path: Path) -> None:
    fail = raising(OSError(errno.ENOSPC, "No space left on device"))
    reported = pytest.raises(StorageError, match="ValueError: x; the weights could not be written anywhere")
    with reported, rescued(fail, "x", tmp_path):
        raise ValueError("x")
    with pytest.raises(ValueError, match=r"^x$"), rescued(None, "x", tmp_path):
        raise ValueError("x")
    assert list(tmp_path.iterdir()) == []


# --- files that may not grow ------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_limit_on_the_size_of_files_is_reported_with_where_the_weights_are(base: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    program = (
        "import resource, sys\n"
        "from rrl.cli import train\n"
        "import rrl.runs.experiment, rrl.training.policy, deepspeed\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, resource.RLIM_INFINITY))\n"
        "train.main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *words(base, run)],
        capture_output=True, text=True, check=False, env=os.environ | {"TMPDIR": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 1
    assert "Traceback" not in done.stderr.split("StorageError")[-1]
    assert done.stderr.rstrip().split("; ")[-1].startswith("the weights are in ")


# --- another day ------------------------------------------------------------------------------------------------------


@pytest.fixture
def zones() -> Iterator[Callable[[str], None]]:
    def somewhere(name: str) -> None:
        os.environ["TZ"] = name
        time.tzset()

    yield somewhere
    os.environ.pop("TZ", None)
    time.tzset()


def test_a_run_goes_on_another_day_with_the_prompts_it_began_with(
    base: Path, tmp_path: Path, zones: Callable[[str], None], caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    run = tmp_path / "run"
    zones("Etc/GMT+12")
    start(base, run, template="chat")
    zones("Etc/GMT-14")  # 26 hours later on the calendar
    train._train([f"resume={run}", "trainer.total_training_steps=2"])
    zones("UTC")
    capsys.readouterr()
    evaluate._evaluate([f"from_run={run}"])
    measured = json.loads(capsys.readouterr().out)["template"]
    templates = {json.loads(line)["template"] for line in (run / "evaluations.jsonl").read_text().splitlines()}
    assert templates == {measured}
    about = json.loads((run / "manifest.json").read_text())
    year, month, day = about["started"][:10].split("-")
    assert templates.pop().startswith(f"{day} ") and (year, month) != ("", "")
    assert len(about["resumed"]) == 1 and not [line for line in caplog.messages if "prompts: " in line]


@pytest.mark.parametrize("words", [1, 100_000])
def test_a_log_on_a_full_disk_hides_no_fault(words: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "rank-0.log").symlink_to("/dev/full")
    with pytest.raises(ValueError, match="the fault itself"), open_log(tmp_path, 0):
        logging.getLogger("rrl.x").warning("said " * words)
        raise ValueError("the fault itself")
    assert "Logging error" not in capfd.readouterr().err
