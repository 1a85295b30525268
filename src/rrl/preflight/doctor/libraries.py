"""What rrl-doctor looks at. Libraries are imported in other processes only, where a broken one does no harm."""

import importlib.metadata as metadata
import os
import platform
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rrl.preflight.doctor import surroundings
from rrl.preflight.doctor.other_programs import probe
from rrl.preflight.doctor.report import Check, Finding, fine, limited, missing
from rrl.processes.machine import cpus, in_words, main_memory

MODULES = {"hydra-core": "hydra"}
"""What is imported under another name than it is installed by."""
NEEDED = ("transformers", "hydra-core", "omegaconf", "tqdm", "matplotlib", "datasets")
BY_CHOICE = {
    "peft": ("policy.lora", "rrl[lora]"),
    "tensorboard": ("logger=tensorboard", "rrl[tensorboard]"),
    "hydra-joblib-launcher": ("a sweep of several runs at a time", "rrl[sweep]"),
    "hydra-submitit-launcher": ("a sweep on a SLURM cluster", "rrl[sweep]"),
    "hydra-optuna-sweeper": ("a sweep that searches", "rrl[sweep]"),
}
"""What needs each library, and the extra that brings it."""


def checks(*, deep: bool) -> Mapping[str, Check]:
    """Everything in the order of the report; ``deep`` also starts processes, trains a step and asks the hub."""
    return {
        "python": python,
        "torch": torch,
        "deepspeed": lambda: deepspeed(deep=deep),
        "libraries": libraries,
        "launcher": lambda: surroundings.launcher(deep=deep),
        "slurm": surroundings.slurm,
        "vllm": vllm,
        "wandb": wandb,
        "sandbox": surroundings.sandbox,
        "disk": surroundings.disk,
        "hub": lambda: surroundings.hub(deep=deep),
    }


def python() -> list[Finding]:
    """The interpreter."""
    return [fine("python", f"{platform.python_version()}, {sys.executable}", needed=True)]


def torch() -> list[Finding]:
    """torch, what it can compute on, and in which precision."""
    facts, error = probe("torch")
    memory = main_memory()
    machine = f"{cpus()} processors, {in_words(memory.free)} of {in_words(memory.total)} free"
    if not facts:
        fault = missing("torch", "cannot be imported", error, f"pip install 'torch{_range('torch')}'", needed=True)
        return [fault, fine("devices", machine)]
    build = f"for CUDA or ROCm {facts['build']}" if facts["build"] else "for the CPU"
    return [
        _fitting("torch", facts["version"], f", built {build}", needed=True),
        _devices(machine, facts),
        _precisions(facts),
    ]


def _devices(machine: str, facts: Mapping[str, Any]) -> Finding:
    gpus = [f"{each['name']}, {in_words(each['free'])} of {in_words(each['total'])} free" for each in facts["gpus"]]
    detail = "; ".join([machine, *gpus] if gpus else [machine, "no accelerator"])
    if gpus or not (facts["build"] or shutil.which("nvidia-smi")):
        return fine("devices", detail)
    why = "torch is built for accelerators, or there is a driver of one, but torch sees none: all runs on the CPU"
    return limited("devices", detail, why, "nvidia-smi; echo $CUDA_VISIBLE_DEVICES; is torch built for CUDA?")


def _precisions(facts: Mapping[str, Any]) -> Finding:
    """What bfloat16 is worth, as measured."""
    units = "" if facts["gpus"] else f" ({', '.join(_units()) or 'the processor has no unit for it'})"
    if not facts["bfloat16"]:
        return limited("precisions", "float32 alone", "the accelerator has no bfloat16", "keep policy.dtype=float32")
    detail = f"float32; bfloat16 multiplies matrices {facts['speedup']:.2g} x as fast{units}"
    if facts["speedup"] >= 1:
        return fine("precisions", detail)
    return limited("precisions", detail, "bfloat16 saves memory here, but no time", "keep policy.dtype=float32")


def _units() -> list[str]:
    """What this processor has for bfloat16."""
    try:
        flags = Path("/proc/cpuinfo").read_text().partition("flags")[2].partition("\n")[0].split()
    except OSError:
        return []
    return [flag for flag in ("avx512_bf16", "amx_bf16", "bf16") if flag in flags]


def deepspeed(*, deep: bool) -> list[Finding]:
    """Whether it can be imported and, by ``deep``, trained with at each ZeRO stage."""
    facts, error = probe("deepspeed")
    remedy = f"pip install 'deepspeed{_range('deepspeed')}'"
    if not facts:
        return [missing("deepspeed", "cannot be imported", error, remedy, needed=True)]
    if not deep:
        return [_fitting("deepspeed", facts["version"], "; rrl-doctor --deep trains with it", needed=True)]
    stages, error = probe("zero")
    faults = [f"policy.zero_stage={stage}: {why}" for stage, why in stages.items() if why]
    if faults or error:
        tell = missing if error or stages["0"] else limited
        return [tell("deepspeed", facts["version"], error or "; ".join(faults), remedy, needed=True)]
    return [_fitting("deepspeed", facts["version"], ", trains at ZeRO stages 0 to 3", needed=True)]


def libraries() -> list[Finding]:
    """Whether each is installed, can be imported and is of a version that fits; Hydra finds its plugins by itself."""
    names = (*NEEDED, *BY_CHOICE)
    tried = [
        MODULES.get(name, name) for name in names if _version(name) and not name.endswith(("-launcher", "-sweeper"))
    ]
    faults, crash = probe("imports", *tried)
    if crash:  # and took the others with it: one by one
        alone = {name: probe("imports", name) for name in tried}
        faults = {name: error or found[name] for name, (found, error) in alone.items()}
    return [_library(name, faults.get(MODULES.get(name, name)) or "") for name in names]


def _library(name: str, fault: str) -> Finding:
    version, needed = _version(name), name in NEEDED
    purpose, brought_by = BY_CHOICE.get(name, ("every run", f"{name}{_range(name)}"))
    remedy = f"pip install '{brought_by}'"
    if version is None:
        return missing(name, "not installed", f"{purpose} needs it", remedy, needed=needed)
    if fault:
        return missing(name, f"{version}, cannot be imported", fault, remedy, needed=needed)
    return _fitting(name, version, "", needed=needed)


def vllm() -> list[Finding]:
    """Whether it is installed beside libraries that it agrees with."""
    version = _version("vllm")
    if version is None:
        why = "nothing of this version needs it: engine=hf writes with transformers"
        return [missing("vllm", "not installed", why, "pip install vllm, in an environment of its own")]
    clashes = _clashes("vllm")
    if clashes:
        return [limited("vllm", version, f"it wants {', '.join(clashes)}", "install it in an environment of its own")]
    return [fine("vllm", version)]


def wandb() -> list[Finding]:
    """Whether logger=wandb reaches its server."""
    version = _version("wandb")
    if version is None:
        return [missing("wandb", "not installed", "logger=wandb needs it", f"pip install 'wandb{_range('wandb')}'")]
    if os.environ.get("WANDB_API_KEY"):
        return [fine("wandb", f"{version}, WANDB_API_KEY is set")]
    why = "there is no WANDB_API_KEY in the environment: logger=wandb writes below the run's directory only"
    return [limited("wandb", f"{version}, offline", why, "export WANDB_API_KEY=..., or send runs later by wandb sync")]


def _fitting(name: str, version: str, more: str, *, needed: bool) -> Finding:
    """Of a library that works: whether its version is in the range that this project is made for."""
    wanted = _range(name)
    clash = any(each.startswith(f"{name}{wanted} ") for each in _clashes("rrl"))
    if not clash:
        return fine(name, f"{version}{more}", needed=needed)
    why = f"this project is made for {name}{wanted}"
    return limited(name, f"{version}{more}", why, f"pip install '{name}{wanted}'", needed=needed)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _range(name: str) -> str:
    """The versions of a library that this project asks for, as in ``>=2.6``."""
    return next((str(each.specifier) for each in _requirements("rrl") if each.name == name), "")


def _clashes(package: str) -> list[str]:
    """What a package asks for and finds in another version; what is not installed at all is no clash."""
    found = [(each, _version(each.name)) for each in _requirements(package)]
    return [
        f"{each.name}{each.specifier} (there is {version})"
        for each, version in found
        if version is not None and not each.specifier.contains(version, prereleases=True)
    ]


def _requirements(package: str) -> list[Any]:
    """What a package asks for here, extras included."""
    from packaging.requirements import Requirement

    if _version(package) is None:
        return []
    every = [Requirement(text) for text in metadata.requires(package) or []]
    extras = ("", *metadata.metadata(package).get_all("Provides-Extra", []))
    return [
        each for each in every if each.marker is None or any(each.marker.evaluate({"extra": name}) for name in extras)
    ]
