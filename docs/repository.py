"""A hook of mkdocs: the site holds the repository's pages, and what they link to, at their paths in the repository."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("docs", "experiments", "conf", "src")
SUFFIXES = (".md", ".css", ".svg", ".png", ".json", ".csv", ".py", ".yaml")
SINGLE = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE")


def on_files(files: Files, config: Any) -> Files:
    """Put the repository's files in place of those of ``docs/`` alone, so that links are the same in both."""
    for file in list(files):
        if file.src_dir == config.docs_dir:
            files.remove(file)
    for path in _paths():
        name = path.relative_to(ROOT).as_posix()
        files.append(File.generated(config, name, abs_src_path=str(path)))
    return files


def _paths() -> Iterator[Path]:
    yield from (ROOT / name for name in SINGLE)
    for folder in FOLDERS:
        yield from (path for path in sorted((ROOT / folder).rglob("*")) if path.suffix in SUFFIXES)
