"""The project works where it was not written: wheel and sdist carry all of it, commands run from any folder."""

import configparser
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
import yaml

from rrl.config.check import load
from rrl.config.choices import conf_dir

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("src", "conf", "experiments")
FILES = ("setup.py", "setup.cfg", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE")
SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg")
COMMANDS = [row.split()[0] for row in SETUP["options.entry_points"]["console_scripts"].split("\n") if row]
ONE_STEP = (
    "warmstart=none", "run.threads=1", "trainer.total_training_steps=1", "trainer.train_batch_size=8",
    "trainer.ppo_mini_batch_size=8", "evaluation.limit=2", "evaluation.n=2", "task.train_per_level=20",
)  # fmt: skip


def build(what: str, tree: Path, out: Path) -> Path:
    """The distribution that setuptools makes of a source tree, without pip and so without the network."""
    out.mkdir(exist_ok=True)
    program = f"from setuptools import build_meta; build_meta.build_{what}({str(out)!r})"
    subprocess.run([sys.executable, "-c", program], cwd=tree, check=True, capture_output=True)
    (made,) = out.iterdir()
    return made


def names(tree: Path) -> set[str]:
    return {path.relative_to(tree).as_posix() for path in tree.rglob("*")}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is built from: a copy of the sources in which an older build has left something."""
    tree = tmp_path_factory.mktemp("tree")
    for folder in SOURCES:
        shutil.copytree(ROOT / folder, tree / folder, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for file in FILES:
        shutil.copy(ROOT / file, tree / file)
    (tree / "build" / "lib" / "rrl").mkdir(parents=True)
    (tree / "build" / "lib" / "rrl" / "removed_since.py").touch()
    return tree


@pytest.fixture(scope="module")
def wheel(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel made of the sdist that is made of the sources."""
    folder = tmp_path_factory.mktemp("dist")
    shutil.unpack_archive(build("sdist", tree, folder / "sdist"), folder / "unpacked")
    (unpacked,) = (folder / "unpacked").iterdir()
    return build("wheel", unpacked, folder / "wheel")


@pytest.fixture(scope="module")
def commands(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the commands are in an environment that has the wheel, not the checkout, and everybody else's packages."""
    folder = tmp_path_factory.mktemp("venv")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "others.pth").write_text(sysconfig.get_path("purelib"))  # its own .pth files are not read: no checkout
    pip = [sys.executable, "-m", "pip", "--python", folder / "bin" / "python"]
    subprocess.run([*pip, "install", "-q", "--no-deps", "--no-index", wheel], check=True)
    return folder / "bin"


def call(*words: object, cwd: Path, **environment: str) -> str:
    """What a program prints that runs in ``cwd`` and knows nothing of this checkout."""
    kept = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "RRL_PARTS")}
    done = subprocess.run(
        [str(word) for word in words], cwd=cwd, env={**kept, "CUDA_VISIBLE_DEVICES": "", **environment},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_wheel_holds_every_module_and_every_configuration(wheel: Path) -> None:
    assert held_by(wheel) == sources()


@pytest.mark.slow
def test_a_wheel_made_without_an_sdist_holds_the_same(tree: Path, tmp_path: Path) -> None:
    assert held_by(build("wheel", tree, tmp_path / "wheel")) == sources()


def held_by(wheel: Path) -> set[str]:
    """The files that a wheel installs."""
    with zipfile.ZipFile(wheel) as opened:
        return {name for name in opened.namelist() if ".dist-info/" not in name}


def sources() -> set[str]:
    """Every module and configuration of the checkout, where a wheel has it."""
    code = {path.relative_to(ROOT / "src").as_posix() for path in (ROOT / "src" / "rrl").rglob("*.py")}
    given = [*(ROOT / "experiments").rglob("*.yaml"), ROOT / "experiments" / "reproduce" / "published.json"]
    experiments = {f"experiment/{path.relative_to(ROOT / 'experiments').as_posix()}" for path in given}
    files = {path.relative_to(conf_dir()).as_posix() for path in conf_dir().rglob("*.yaml")} | experiments
    assert "experiment/trace/shared_critic.yaml" in files
    assets = {path.relative_to(ROOT / "src").as_posix() for path in (ROOT / "src" / "rrl").rglob("assets/**/*.*")}
    assert "rrl/study/page/assets/uplot/uPlot.iife.min.js" in assets
    licence = {"rrl/study/page/assets/uplot/LICENSE"}
    return code | assets | licence | {f"rrl/conf/{name}" for name in files} | {"rrl/py.typed"}


@pytest.mark.slow
def test_a_build_leaves_nothing_behind(tree: Path, tmp_path: Path) -> None:
    before = names(tree)
    build("wheel", tree, tmp_path / "wheel")
    build("sdist", tree, tmp_path / "sdist")
    assert names(tree) == before


def test_the_installed_package_is_the_wheels(commands: Path, tmp_path: Path) -> None:
    where = call(commands / "python", "-c", "import rrl; print(rrl.__file__)", cwd=tmp_path)
    assert Path(where).is_relative_to(commands.parent)


def test_the_installed_commands_are_those_of_the_project(commands: Path) -> None:
    assert {path.name for path in commands.glob("rrl-*")} == set(COMMANDS)


@pytest.mark.parametrize(
    "command", [COMMANDS[0], *(pytest.param(name, marks=pytest.mark.slow) for name in COMMANDS[1:])]
)
def test_every_command_is_installed_and_helps_from_any_folder(command: str, commands: Path, tmp_path: Path) -> None:
    assert command in call(commands / command, "--help", cwd=tmp_path)
    assert not any(tmp_path.iterdir())


def test_an_experiment_composes_alike_in_a_checkout_and_elsewhere(commands: Path, tmp_path: Path) -> None:
    choice = "experiment=trace/shared_critic"
    printed = call(commands / "rrl-train", choice, "--cfg", cwd=tmp_path)
    assert yaml.safe_load(printed) == load("train", [choice])[0]
    assert not any(tmp_path.iterdir())


@pytest.mark.slow
def test_an_installed_wheel_trains_with_a_users_own_part(commands: Path, tmp_path: Path) -> None:
    (tmp_path / "parts" / "sampler").mkdir(parents=True)
    example = ROOT / "docs" / "examples" / "sampler" / "hard_first"
    shutil.copy(example.with_suffix(".py"), tmp_path / "parts" / "hard_first.py")
    settings = yaml.safe_load(example.with_suffix(".yaml").read_text()) | {"_target_": "hard_first.HardFirst"}
    (tmp_path / "parts" / "sampler" / "hard_first.yaml").write_text(yaml.safe_dump(settings))

    call(commands / "rrl-train", "sampler=hard_first", *ONE_STEP, cwd=tmp_path, RRL_PARTS="parts", RRL_CACHE="cache")

    (run,) = (tmp_path / "runs").iterdir()
    assert json.loads((run / "result.json").read_text())["steps"] == 1
    assert "sampler" in yaml.safe_load((run / "config.yaml").read_text())
    call(commands / "rrl-evaluate", f"from_run={run}", "evaluation.limit=2", cwd=tmp_path, RRL_PARTS="parts")
