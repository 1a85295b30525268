"""rrl-doctor: what it finds, what it says of what is missing, and that nothing that is broken stops it."""

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from rrl.cli import doctor as command
from rrl.errors import ConfigError
from rrl.preflight.doctor import libraries, other_programs, surroundings
from rrl.preflight.doctor.other_programs import output_of, probe
from rrl.preflight.doctor.report import (
    Finding,
    examine,
    fine,
    lacking,
    limited,
    missing,
    report_json,
    report_text,
    usable,
)
from rrl.processes.machine import MemoryInfo, cpus, in_words, main_memory

GOOD, POOR = fine("one", "there", needed=True), limited("two", "half", "slow", "buy more")
LACK = missing("three", "absent", "nothing works", "pip install three", needed=True)
SPARE = missing("four", "absent", "not needed", "pip install four")


# --- the report -------------------------------------------------------------------------------------------------------


def test_only_what_is_needed_and_missing_makes_a_machine_unusable() -> None:
    assert usable([GOOD, POOR, SPARE])
    assert not usable([GOOD, LACK])
    assert lacking([GOOD, LACK, SPARE]) == ["three"]


def test_the_text_is_a_table_the_remedies_and_a_verdict() -> None:
    lines = report_text([GOOD, POOR, LACK]).splitlines()
    assert lines[:3] == ["one    ok       there", "two    limited  half", "three  missing  absent"]
    assert lines[4:8] == [
        "two is limited: slow",
        "  buy more",
        "three is missing: nothing works",
        "  pip install three",
    ]
    assert lines[-1] == "rrl cannot run here yet: three"
    assert report_text([GOOD, SPARE]).splitlines()[-1].startswith("rrl can run here")


def test_the_same_is_there_for_programs() -> None:
    report = json.loads(report_json([GOOD, LACK]))
    assert report["usable"] is False
    assert report["findings"][1] == {
        "what": "three", "state": "missing", "detail": "absent", "needed": True, "why": "nothing works",
        "remedy": "pip install three",
    }  # fmt: skip


def test_a_check_that_breaks_is_a_finding_and_the_others_go_on() -> None:
    def broken() -> Sequence[Finding]:
        raise OSError("libcuda.so.1: cannot open shared object file")

    first, second = examine({"broken": broken, "sound": lambda: [GOOD]})
    assert (first.what, first.state) == ("broken", "limited")
    assert "libcuda.so.1" in first.why
    assert second == GOOD


# --- programs that are asked ------------------------------------------------------------------------------------------


def test_a_program_that_fails_says_why_in_its_last_line() -> None:
    assert output_of([sys.executable, "-c", "import sys; sys.exit('one\\nlast\\n')"]) == (None, "last")
    assert output_of([sys.executable, "-c", "import os; os._exit(7)"])[1].endswith("code 7")
    assert output_of(["no-such-program"])[0] is None


def test_a_program_that_hangs_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(other_programs, "PATIENCE", 0.2)
    found, why = output_of([sys.executable, "-c", "import time; time.sleep(60)"])
    assert found is None
    assert "longer than 0.2 s" in why


def test_imports_report_which_module_is_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _library(tmp_path, "shaky", "raise OSError('libshaky.so: cannot open')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert probe("imports", "json", "shaky") == ({"json": None, "shaky": "OSError: libshaky.so: cannot open"}, "")


def _library(folder: Path, name: str, code: str, *wants: str, version: str = "1.0") -> None:
    """A library as pip leaves it."""
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").write_text(code)
    about = folder / f"{name}-{version}.dist-info"
    about.mkdir()
    text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    (about / "METADATA").write_text(text + "".join(f"Requires-Dist: {each}\n" for each in wants))


# --- libraries --------------------------------------------------------------------------------------------------------


def test_a_library_that_is_not_installed_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libraries, "installed_version", lambda name: None)
    monkeypatch.setattr(libraries, "probe", lambda name, *modules: ({}, ""))
    found = {finding.what: finding for finding in libraries.libraries()}
    assert found["peft"].remedy == "pip install 'rrl[lora]'"
    assert "lora=default" in found["peft"].why
    assert not found["peft"].needed
    assert found["transformers"].needed
    assert found["transformers"].remedy.startswith("pip install 'transformers")


def test_a_library_that_breaks_when_imported_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    faults = {"hydra": "OSError: broken", "transformers": None}
    monkeypatch.setattr(libraries, "probe", lambda name, *modules: (faults, ""))
    found = {finding.what: finding for finding in libraries.libraries()}
    assert (found["hydra-core"].state, found["hydra-core"].why) == ("missing", "OSError: broken")
    assert found["transformers"].state == "ok"


def test_one_that_takes_the_program_down_is_distinguished_from_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def crashing(name: str, *modules: str) -> tuple[dict[str, Any], str]:
        return ({}, "ended with code -11") if "tqdm" in modules else (dict.fromkeys(modules), "")

    monkeypatch.setattr(libraries, "probe", crashing)
    found = {finding.what: finding for finding in libraries.libraries()}
    assert found["tqdm"].why == "ended with code -11"
    assert found["omegaconf"].state == "ok"


def test_a_version_out_of_range_is_reported_with_the_range(monkeypatch: pytest.MonkeyPatch) -> None:
    real = libraries.installed_version
    monkeypatch.setattr(libraries, "installed_version", lambda name: "4.0.0" if name == "transformers" else real(name))
    finding = libraries._library("transformers", "")
    assert (finding.state, finding.detail) == ("limited", "4.0.0")
    assert "transformers<" in finding.remedy


def test_vllm_is_compared_with_what_it_wants(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [absent] = libraries.vllm()
    _library(tmp_path, "vllm", "", "torch==1.0", "transformers>=4", "no-such-library>=9")
    monkeypatch.syspath_prepend(tmp_path)
    [found] = libraries.vllm()
    assert absent.state == "missing"
    assert found.state == "limited"
    assert f"torch==1.0 (there is {metadata.version('torch')})" in found.why
    assert "transformers" not in found.why
    assert "no-such-library" not in found.why


def test_a_torch_that_cannot_be_imported_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(libraries, "probe", lambda name: ({}, "OSError: libtorch.so"))
    first, *others = libraries.torch()
    assert (first.state, first.why, first.needed) == ("missing", "OSError: libtorch.so", True)
    assert [finding.what for finding in others] == ["devices"]


FACTS = {"version": "2.13.0", "build": None, "threads": 1, "gpus": [], "bfloat16": True, "speedup": 2.0}


@pytest.mark.parametrize(
    ("change", "state"),
    [({}, "ok"), ({"speedup": 0.3}, "limited"), ({"bfloat16": False}, "limited")],
)
def test_bfloat16_is_judged_by_its_speed(change: dict[str, Any], state: str) -> None:
    assert libraries._precisions(FACTS | change).state == state


def test_accelerators_that_torch_does_not_see_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert libraries._devices("2 processors", FACTS).state == "ok"
    assert libraries._devices("2 processors", FACTS | {"build": "12.8"}).state == "limited"
    gpu = {"name": "H", "free": 2**30, "total": 2**31}
    assert libraries._devices("2 processors", FACTS | {"build": "12.8", "gpus": [gpu]}).detail.endswith(
        "H, 1 GiB of 2 GiB free"
    )


@pytest.mark.parametrize(("stages", "state"), [({"0": None, "3": None}, "ok"), ({"0": None, "3": "no"}, "limited")])
def test_a_stage_that_does_not_train_is_reported(
    stages: dict[str, Any], state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        libraries, "probe", lambda name: ({"deepspeed": {"version": "0.19.8"}, "zero": stages}[name], "")
    )
    assert libraries.deepspeed(deep=True)[0].state == state


def test_a_key_makes_wandb_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    assert libraries.wandb()[0].state == "limited"
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    [found] = libraries.wandb()
    assert found.state == "ok"
    assert "xxx" not in found.detail


# --- surroundings -----------------------------------------------------------------------------------------------------


BUBBLE: dict[str, Any] = {"level": "bubblewrap", "reasons": {}, "open": []}
SPACES = {"level": "namespaces", "reasons": {"bubblewrap": "bwrap is not installed"}, "open": []}
OPEN = {"level": "rlimits", "reasons": {"bubblewrap": "no", "namespaces": "no"}, "open": ["the network"]}


@pytest.mark.parametrize(
    ("found", "state", "detail", "why"),
    [
        (BUBBLE, "ok", "bubblewrap: no way out was found", ""),
        (SPACES, "limited", "namespaces: no way out was found", "bubblewrap does not work: bwrap is not installed"),
        (OPEN, "limited", "rlimits: programs reach the network", "namespaces does not work: no"),
        ({}, "missing", "no isolation works", "broken"),
    ],
)
def test_a_sandbox_is_reported_by_what_works_and_what_programs_reach(
    found: dict[str, Any], state: str, detail: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(surroundings, "probe", lambda name: (found, "" if found else "broken"))
    [reported] = surroundings.sandbox()
    assert (reported.state, reported.detail) == (state, detail)
    assert why in reported.why
    assert reported.remedy == {"ok": "", "limited": "apt-get install bubblewrap"}.get(state, reported.remedy)


def test_the_sandbox_is_really_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    [reported] = surroundings.sandbox()
    assert reported.state == "limited"
    assert "bubblewrap does not work: bwrap is not installed" in reported.why


def test_little_room_and_a_folder_of_others_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RRL_CACHE", str(tmp_path / "not" / "yet" / "there"))
    monkeypatch.setattr(surroundings, "LITTLE", 0)
    assert [finding.state for finding in surroundings.disk()] == ["ok", "ok"]
    monkeypatch.setattr(surroundings, "LITTLE", 2**80)
    assert [finding.state for finding in surroundings.disk()] == ["limited", "limited"]
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert lacking(surroundings.disk()) == ["runs", "cache"]
    assert not (tmp_path / "not").exists()


def test_a_cache_behind_a_link_to_nowhere_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cache").symlink_to(tmp_path / "gone")
    monkeypatch.setenv("RRL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(surroundings, "LITTLE", 0)
    assert lacking(surroundings.disk()) == ["cache"]


def test_only_a_deep_look_asks_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def refuse(address: str, timeout: float) -> None:
        asked.append(address)
        raise OSError("Name or service not known")

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    assert (surroundings.hub(deep=False)[0].state, asked) == ("ok", [])
    assert surroundings.hub(deep=True)[0].state == "limited"
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert surroundings.hub(deep=True)[0].state == "limited"
    assert len(asked) == 1


def test_processes_that_cannot_meet_leave_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for found, state in ((({"processes": 2, "sum": 3.0}, ""), "ok"), ((None, "no process"), "limited")):
        monkeypatch.setattr(surroundings, "_two_processes", lambda found=found: found)
        assert surroundings.launcher(deep=True)[0].state == state
    assert surroundings.launcher(deep=False)[0].state == "ok"


# --- the machine ------------------------------------------------------------------------------------------------------


def test_sizes_are_reported_in_three_digits() -> None:
    assert [in_words(size) for size in (0, 999, 1536, 2**30, 5 * 2**40)] == [
        "0 B",
        "999 B",
        "1.5 KiB",
        "1 GiB",
        "5,120 GiB",
    ]


def test_a_control_group_limits_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = main_memory()
    assert 0 < whole.free <= whole.total
    assert cpus() >= 1
    (tmp_path / "limit").write_text("1048576\n")
    (tmp_path / "used").write_text("1048000\n")
    monkeypatch.setattr("rrl.processes.machine.CGROUPS", ((str(tmp_path / "limit"), str(tmp_path / "used")),))
    assert main_memory() == MemoryInfo("main memory", 1048576, 576)
    (tmp_path / "limit").write_text("max\n")
    assert main_memory().total == whole.total


# --- the command ------------------------------------------------------------------------------------------------------


def test_an_unknown_option_is_reported() -> None:
    with pytest.raises(ConfigError, match="--depe"):
        command._doctor(["--depe"])


@pytest.mark.slow
def test_the_command_reports_a_broken_library_and_ends_with_1(tmp_path: Path) -> None:
    _library(tmp_path / "broken", "deepspeed", "raise OSError('libaio.so.1: cannot open')", version="0.19.8")
    done = _doctor(tmp_path, "--json", PYTHONPATH=str(tmp_path / "broken"))
    report = json.loads(done.stdout)
    found = {finding["what"]: finding for finding in report["findings"]}
    assert done.returncode == 1
    assert found["deepspeed"]["why"] == "OSError: libaio.so.1: cannot open"
    assert found["torch"]["state"] == found["hydra-core"]["state"] == "ok"
    assert all(finding["why"] and finding["remedy"] for finding in found.values() if finding["state"] == "missing")
    assert [path.name for path in tmp_path.iterdir()] == ["broken"]


@pytest.mark.slow
def test_a_deep_look_starts_processes_and_trains(tmp_path: Path) -> None:
    done = _doctor(tmp_path, "--deep", HF_HUB_OFFLINE="1")
    assert done.returncode == 0, done.stdout
    assert "trains at ZeRO stages 0 to 3" in done.stdout
    assert "two processes, started by DeepSpeed's launcher, added up their numbers" in done.stdout


def _doctor(folder: Path, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "rrl.cli.doctor", *arguments]
    quiet = {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1", **environment}
    return subprocess.run(command, cwd=folder, env={**os.environ, **quiet}, capture_output=True, text=True)
