"""The shape of src/rrl: its rooms in order, what imports what, and how large files and functions are."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[2] / "src" / "rrl"
TESTS = Path(__file__).resolve().parents[1]
ROOMS = (
    ("hall",),
    ("contracts",),
    ("records",),
    ("processes",),
    ("sandbox", "training"),
    ("verifiers", "config"),
    ("parts", "preflight"),
    ("runs",),
    ("study",),
    ("cli",),
)
"""From the ground up. The hall is the files at the top of src/rrl; any other room is a folder."""


@cache
def trees() -> dict[str, ast.Module]:
    """The syntax tree of every file that holds code, by path below src/rrl."""
    files = {path.relative_to(SOURCE).as_posix(): path.read_text(encoding="utf-8") for path in SOURCE.rglob("*.py")}
    return {name: ast.parse(text) for name, text in sorted(files.items()) if text.strip()}


def room(file: str) -> str:
    """The room of a file."""
    return file.split("/")[0] if "/" in file else "hall"


def level(file: str) -> int:
    """How far above the ground its room is."""
    return next(level for level, rooms in enumerate(ROOMS) if room(file) in rooms)


def imported(tree: ast.AST) -> Iterator[str]:
    """The modules that a tree imports, at any depth, and each name that it imports from one, dotted."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@cache
def arrows() -> dict[str, set[str]]:
    """For each file the files of src/rrl that it imports."""
    paths = {f"rrl/{file}".removesuffix(".py").replace("/", "."): file for file in trees()}
    return {file: {paths[name] for name in imported(tree) if name in paths} - {file} for file, tree in trees().items()}


def upward() -> list[str]:
    """Imports of a room above, or of another room of the same height."""
    return [
        f"{file} imports {other}"
        for file, others in arrows().items()
        for other in sorted(others)
        if room(other) != room(file) and level(other) >= level(file)
    ]


@cache
def libraries() -> dict[str, set[str]]:
    """For each file the libraries that it imports, at any depth."""
    return {file: {name.split(".")[0] for name in imported(tree)} for file, tree in trees().items()}


def importers(library: str) -> set[str]:
    """The files that import a library, at any depth."""
    return {file for file, imports in libraries().items() if library in imports}


def file_lengths() -> dict[str, int]:
    """Lines of each file."""
    return {file: len((SOURCE / file).read_text(encoding="utf-8").splitlines()) for file in trees()}


def function_lengths() -> list[int]:
    """Lines of each function, its docstring included."""
    kinds = ast.FunctionDef | ast.AsyncFunctionDef
    functions = [node for tree in trees().values() for node in ast.walk(tree) if isinstance(node, kinds)]
    return [int(node.end_lineno or 0) - node.lineno + 1 for node in functions]
