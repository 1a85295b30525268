"""Writes the table of files in docs/architecture.md, which is made of the first lines of the files: ``make map``."""

import ast
import re
from pathlib import Path

from house import ROOMS, room, trees

PAGE = Path(__file__).resolve().parents[2] / "docs" / "architecture.md"
TABLE = re.compile(r"(?<=<!-- files -->\n\n).*?(?=\n<!-- end of files -->)", re.DOTALL)


def table() -> str:
    """A row for every file that holds code, room by room, from the ground up."""
    order = [name for rooms in ROOMS for name in rooms]
    rows = []
    for name in order:
        here = [file for file in trees() if room(file) == name and file != "__init__.py"]
        rows += [f"| `{file}` | {first_line(file)} |" for file in here]
    return "\n".join(["| file | what it is for |", "| --- | --- |", *rows, ""])


def first_line(file: str) -> str:
    """The first line of a file's docstring, for a table in Markdown."""
    text = (ast.get_docstring(trees()[file]) or "").split("\n")[0].rstrip(".")
    return text.replace("``", "`").replace("|", "\\|")


def main() -> None:
    """Put the table into the page."""
    page = PAGE.read_text(encoding="utf-8")
    assert TABLE.search(page), f"no place for the table of files in {PAGE}"
    PAGE.write_text(TABLE.sub(lambda _: table(), page), encoding="utf-8")


if __name__ == "__main__":
    main()
