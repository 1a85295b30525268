"""What setup.cfg requires, constraints.txt pins, the doctor names and the Dockerfile installs is the same."""

import configparser
import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from rrl.preflight.doctor import libraries

ROOT = Path(__file__).resolve().parents[2]
APART = ("vllm",)
"""In an environment of its own, with other versions."""


def required(extra: str | None = None) -> list[Requirement]:
    """What the package, or an extra of it, requires."""
    setup = configparser.RawConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    text = setup["options"]["install_requires"] if extra is None else setup["options.extras_require"][extra]
    return [Requirement(line) for line in text.split("\n") if line and not line.startswith("%")]


def pins() -> list[Requirement]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return [Requirement(line) for line in lines if not line.startswith("#")]


@pytest.mark.parametrize("extra", [None, "lora", "sweep", "tensorboard", "docs", "dev"])
def test_what_is_required_is_pinned_within_its_range(extra: str | None) -> None:
    versions = {(pin.name.lower(), next(iter(pin.specifier)).version) for pin in pins()}
    for requirement in required(extra):
        found = [version for name, version in versions if name == requirement.name.lower()]
        assert found and all(version in requirement.specifier for version in found), f"{requirement}: {found}"


def test_hydra_has_the_fix_of_its_security_release() -> None:
    (hydra,) = [requirement for requirement in required() if requirement.name == "hydra-core"]
    assert "1.3.4" in hydra.specifier and "1.3.3" not in hydra.specifier


def test_the_doctor_names_the_extra_that_installs_a_library() -> None:
    for name, (_, extra) in libraries.BY_CHOICE.items():
        match = re.fullmatch(r"rrl\[(\w+)\]", extra)
        assert match and name in [requirement.name for requirement in required(match[1])], f"{name}: {extra}"


def test_the_dockerfile_installs_extras_that_exist_and_keeps_the_pins() -> None:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    installs = [line for line in text.splitlines() if "pip install" in line]
    assert installs and all("-c /src/constraints.txt" in line for line in installs)
    (extras,) = re.findall(r'"/src\[(.+)\]"', text)
    assert all(required(extra) for extra in extras.split(",")) and not set(APART) & set(extras.split(","))
