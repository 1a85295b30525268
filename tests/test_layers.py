"""The code keeps its shape: imports point down, heavy libraries have their places, files and functions are small."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from statistics import median, quantiles

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src" / "rrl"

PLUGINS = ("tasks", "rewards", "samplers", "selections", "objectives", "engines", "scorers", "judges", "guidance")
LAYERS = (
    (
        "types", "functional", "errors", "fingerprints", "ranges", "devices", "machine", "sidecar",
        "wandb_process", "asking", "doctor", "blocks", "conclusions", "notation", "units", "brackets", "texts",
        "numerals", "values", "serving", "spans", "dialogue", "calibration", "intervals", "arguments",
        "secrecy", "effects", "console", "pulse", "environment", "resolvers", "tracebacks",
    ),
    (
        "progress", "tokens", "saving", "adapters", "templates", "interfaces", "scoring", "records", "memory",
        "surroundings", "workers", "answers", "formula", "names", "programs", "final_numbers", "spelling",
        "choices", "stopping", "networks", "policy_settings", "calling", "breaches",
    ),
    (
        "buffer", "cuts", "collate", "metrics", "distributed", "clock", "data", "overrides", "rundir",
        "runstate", "tracking", "display", "plots", "checks", "sandbox", "mathjudge", "statements", "contracts",
        "winrate", "codematch", "zero", "own_parts", "importing", "logs", "multirun", "saved",
    ),
    (
        *PLUGINS, "policy", "agreement", "models", "prompts", "sft", "evaluation", "report", "watchdog",
        "launch", "footprint", "preferences", "sweep_records", "rescore", "loop", "harvest", "regions", "arms",
        "summary", "binding", "manifest",
    ),
    (
        "trainer", "gsi", "phases", "probes", "search", "prepared", "equality",
    ),
    (
        "config", "checkpoint", "forecast", "jobs",
    ),
    (
        "assemble", "resume", "sweep_plan", "budget", "reward_training", "cautions",
    ),
    (
        "plan",
    ),
    (
        "experiment", "arena", "sweeps",
    ),
    (
        "cli",
    ),
)  # fmt: skip
"""From the ground up; a folder counts as one name. The picture in docs/architecture.md is this one."""

PLACES = {
    "deepspeed": {"zero.py"},
    "peft": {"policy_settings.py", "adapters.py"},
    "wandb": {"wandb_process.py"},
    "matplotlib": {"plots.py"},
    "datasets": {"data.py"},
    "tqdm": {"display.py"},
    "httpx": {"judges/endpoint.py"},
    "hydra": {"arguments.py", "overrides.py", "multirun.py"},
    "omegaconf": {"overrides.py", "saved.py", "multirun.py", "resolvers.py"},
    "optuna": {"search.py"},
    "tokenizers": {"models.py"},
    "transformers": {"models.py", "assemble.py", "engines/", "scorers/"},
}
"""Each heavy library, and exactly what imports it. The table in docs/architecture.md is this one."""

HEAVY = ("torch", "numpy", *PLACES)
NO_COMMANDS = ("__init__", "shell", "streams", "completion", "worker")
COMMANDS = sorted(path.stem for path in (SOURCE / "cli").glob("*.py") if path.stem not in NO_COMMANDS)


@cache
def _trees() -> dict[str, ast.Module]:
    """The syntax tree of every file, by path below src/rrl."""
    files = sorted(SOURCE.rglob("*.py"))
    return {path.relative_to(SOURCE).as_posix(): ast.parse(path.read_text(encoding="utf-8")) for path in files}


def _imports(tree: ast.AST) -> Iterator[str]:
    """The modules that a tree imports, at any depth; ``from rrl.cli import shell`` counts as rrl.cli."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield str(node.module)


def _own_imports() -> Iterator[tuple[str, str, str]]:
    """Every import of our own: file, its name in LAYERS, and the module imported."""
    for file, tree in _trees().items():
        for module in _imports(tree):
            if module.startswith("rrl."):
                yield file, _name(file.removesuffix(".py").replace("/", ".")), module


def _name(module: str) -> str:
    return module.removeprefix("rrl.").split(".")[0]


def _level(name: str) -> int:
    return next(level for level, names in enumerate(LAYERS) if name in names)


def test_every_module_has_a_layer() -> None:
    known = {name for names in LAYERS for name in names} | {"__init__"}
    unknown = sorted({_name(file.removesuffix(".py").replace("/", ".")) for file in _trees()} - known)
    assert not unknown, f"give these a place in LAYERS and in the picture of docs/architecture.md: {unknown}"


def test_imports_point_down() -> None:
    wrong = [
        f"{file} imports {module}"
        for file, name, module in _own_imports()
        if name != _name(module) and _level(_name(module)) >= _level(name)
    ]
    assert not wrong


def test_nothing_outside_names_a_plugin() -> None:
    named = [
        f"{file} imports {module}"
        for file, name, module in _own_imports()
        if _name(module) in PLUGINS and name != _name(module)
    ]
    assert not named


@pytest.mark.parametrize("library", PLACES)
def test_a_heavy_library_is_imported_only_in_its_place(library: str) -> None:
    importing = [
        file for file, tree in _trees().items() if library in {module.split(".")[0] for module in _imports(tree)}
    ]
    assert {_place(file) for file in importing} == PLACES[library]


def _place(file: str) -> str:
    """Engines are alike, and so are scorers; any other file is its own place."""
    return next((folder for folder in ("engines/", "scorers/") if file.startswith(folder)), file)


def test_heavy_libraries_are_imported_when_used() -> None:
    early = [
        f"{file} imports {module}"
        for file, tree in _trees().items()
        for node in tree.body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for module in _imports(node)
        if module.split(".")[0] in PLACES or (module.split(".")[0] == "numpy")
    ]
    assert not early


HELP = """
import importlib, sys
for command in sys.argv[1:]:
    sys.argv = [f"rrl-{command}", "--help"]
    try: importlib.import_module(f"rrl.cli.{command}").main()
    except SystemExit as end: assert not end.code, command
    print("loaded:", *{name.split(".")[0] for name in sys.modules}, end="\\f")
"""
"""Asks commands for help, one after the other in one process; a form feed ends what each one has said and loaded."""


@cache
def _helps() -> dict[str, str]:
    done = subprocess.run([sys.executable, "-c", HELP, *COMMANDS], capture_output=True, text=True, check=True)
    return dict(zip(COMMANDS, done.stdout.split("\f")[:-1], strict=True))


@pytest.mark.parametrize("command", COMMANDS)
def test_help_loads_nothing_heavy(command: str) -> None:
    text, _, loaded = _helps()[command].rpartition("loaded:")
    assert f"rrl-{command.replace('_', '-')}" in text
    assert "rrl" in loaded.split()
    assert not set(loaded.split()) & set(HEAVY)


def test_files_are_short() -> None:
    lengths = {
        path: len((SOURCE / path).read_text(encoding="utf-8").splitlines())
        for path, tree in _trees().items()
        if tree.body
    }
    assert median(lengths.values()) <= 150
    assert not {path: length for path, length in lengths.items() if length > 300}


def test_functions_are_short() -> None:
    functions = [node for tree in _trees().values() for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    lengths = [int(node.end_lineno or 0) - node.lineno + 1 for node in functions]
    assert median(lengths) <= 12
    assert quantiles(lengths, n=10)[-1] <= 35


def _asserts(node: ast.AST) -> bool:
    if isinstance(node, ast.Call):
        return ast.unparse(node.func).rpartition(".")[2] in ("raises", "assert_close")
    return isinstance(node, ast.Assert)


def test_every_test_has_an_assertion_of_its_own() -> None:
    files = sorted(Path(__file__).parent.rglob("test_*.py"))
    tests = [
        (file.name, node)
        for file in files
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    ]
    assert len(tests) > 1000
    assert not [f"{name}: {test.name}" for name, test in tests if not any(map(_asserts, ast.walk(test)))]


def test_every_module_says_what_it_is_for() -> None:
    silent = [path for path, tree in _trees().items() if tree.body and not ast.get_docstring(tree)]
    assert not silent


def test_packages_are_empty() -> None:
    full = [path for path, tree in _trees().items() if path.endswith("/__init__.py") and tree.body]
    assert not full
