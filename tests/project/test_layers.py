"""The code keeps its shape: no import runs up, heavy libraries have their places, files and functions are small."""

import ast
import subprocess
import sys
from functools import cache
from graphlib import TopologicalSorter

import pytest

import shape
from house import SOURCE, arrows, imported, importers, room, trees, upward

PLACES = {
    "deepspeed": {"training/zero.py"},
    "scipy": {"study/comparison.py", "study/rankings.py"},
    "rich": {"cli/screen.py"},
    "peft": {"training/policy_settings.py", "training/adapters.py"},
    "wandb": {"records/wandb_process.py"},
    "matplotlib": {"records/plots.py"},
    "datasets": {"parts/tasks/rows.py"},
    "tqdm": {"records/display.py"},
    "httpx": {"parts/judges/endpoint.py"},
    "hydra": {"config/"},
    "omegaconf": {"config/"},
    "optuna": {"study/search.py"},
    "tokenizers": {"training/tiny.py"},
    "vllm": {"parts/engines/vllm.py"},
    "transformers": {
        "training/attention.py",
        "training/models.py",
        "training/tiny.py",
        "training/pretrained.py",
        "runs/assemble.py",
        "parts/engines/",
        "parts/reward_models/",
    },
}
"""Each heavy library, and exactly what imports it. The table in docs/architecture.md is this one."""

LATE = ("rrl.parts.engines.slots", "rrl.cli.screen")
"""Modules that are themselves imported when they are used, as one that extends a class of transformers."""
AFTER_TORCH = ("parts/samplers/", "parts/selections/")
"""Files that may import numpy: they are imported after torch, which has imported it."""
HEAVY = ("torch", "numpy", *PLACES)
NO_COMMANDS = ("__init__", "shell", "streams", "completion", "screen", "worker")
COMMANDS = sorted(path.stem for path in (SOURCE / "cli").glob("*.py") if path.stem not in NO_COMMANDS)


def test_no_import_runs_up() -> None:
    assert not upward()


def test_no_imports_go_round_in_circles() -> None:
    TopologicalSorter(arrows()).prepare()  # raises CycleError


def test_nothing_outside_names_a_part_and_no_kind_of_part_another() -> None:
    named = [
        f"{file} imports {other}"
        for file, others in arrows().items()
        for other in others
        if room(other) == "parts" and file.split("/")[:2] != other.split("/")[:2]
    ]
    assert not named


@pytest.mark.parametrize("library", PLACES)
def test_a_heavy_library_is_imported_only_in_its_place(library: str) -> None:
    folders = [place for place in PLACES[library] if place.endswith("/")]
    found = {next((folder for folder in folders if file.startswith(folder)), file) for file in importers(library)}
    assert found == PLACES[library]


def test_heavy_libraries_are_imported_when_used() -> None:
    early = [
        f"{file} imports {module}"
        for file, tree in trees().items()
        for node in tree.body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for module in imported(node)
        if module.startswith(LATE) or (module.split(".")[0] in (*PLACES, "numpy") and not is_late(file))
        if not (module.startswith("numpy") and file.startswith(AFTER_TORCH))
    ]
    assert not early


def is_late(file: str) -> bool:
    return f"rrl.{file.removesuffix('.py').replace('/', '.')}" in LATE


PLAN = "train dry_run=true task.train_per_level=20 evaluation.limit=5"
SAID = """
import importlib, sys
for line in sys.argv[1:]:
    command, *arguments = line.split()
    sys.argv = [f"rrl-{command}", *(arguments or ["--help"])]
    try: importlib.import_module(f"rrl.cli.{command}").main()
    except SystemExit as end: assert not end.code, line
    print("loaded:", *{name.split(".")[0] for name in sys.modules}, end="\\f")
"""
"""Asks commands for help, one after the other in one process, and at last for a plan; a form feed ends each text."""


@cache
def _said() -> dict[str, str]:
    lines = [*COMMANDS, PLAN]
    done = subprocess.run([sys.executable, "-c", SAID, *lines], capture_output=True, text=True, check=True)
    return dict(zip(lines, done.stdout.split("\f")[:-1], strict=True))


@pytest.mark.parametrize("command", COMMANDS)
def test_help_loads_nothing_heavy(command: str) -> None:
    text, _, loaded = _said()[command].rpartition("loaded:")
    assert f"rrl-{command.replace('_', '-')}" in text
    assert "rrl" in loaded.split()
    assert not set(loaded.split()) & set(HEAVY)


def test_a_plan_of_the_default_loads_torch_alone_and_not_its_compiler() -> None:
    text, _, loaded = _said()[PLAN].rpartition("loaded:")
    assert "actor: 162,625 trained" in text
    assert "torch" in loaded.split()
    later = {"transformers", "deepspeed", "peft", "datasets", "scipy", "matplotlib", "wandb", "sympy"}
    assert not set(loaded.split()) & later  # sympy comes with torch's compiler


def test_the_house_keeps_its_measures() -> None:
    assert not [measure for measure in shape.measures() if measure.found > measure.most]


def test_every_module_says_what_it_is_for() -> None:
    silent = [file for file, tree in trees().items() if not ast.get_docstring(tree)]
    assert not silent


def test_packages_are_empty() -> None:
    assert [file for file in trees() if file.endswith("__init__.py")] == ["__init__.py"]
