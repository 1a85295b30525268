"""Writes docs/keys.md, every key in one table, from the tables of the other pages: ``make keys``."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = (
    "apps.md", "gsi.md", "judging.md", "code-baselines.md", "mini-tasks.md", "math.md", "evaluation.md",
    "ppo.md", "rrl.md", "records.md", "hh.md", "reward-models.md", "own-data.md", "sweeps.md",
)  # fmt: skip
"""Where keys are explained."""
WORDS = ("key", "meaning", "unit", "source", "whose")
"""Columns that hold no default."""
HEAD = """# All keys

Every key of the configuration in one table. `make keys` writes this page from the tables of the other pages; a test
compares it with them, and them with `conf/`. Defaults that depend on the choice are named by it: *tiny* is the default
of `rrl-train`, *hf* that of `task=gsm8k model=hf`, *sft* that of `warmstart=sft`. `rrl-train ... --cfg` prints those of
your own command.

| key | meaning | default | page |
| --- | --- | --- | --- |
"""


class KeyRow(NamedTuple):
    """A row of a table of keys: where it stands, and its cells by column."""

    page: str
    section: str
    cells: dict[str, str]

    @property
    def key(self) -> str:
        """The key itself."""
        return self.cells["key"].strip("`")


def key_rows() -> Iterator[KeyRow]:
    """Every key that a page explains, page by page."""
    for page in PAGES:
        header: list[str] = []
        section = ""
        for line in (DOCS / page).read_text(encoding="utf-8").splitlines():
            cells = [cell.strip() for cell in line.strip().strip("|").split(" | ")] if line.startswith("|") else []
            if line.startswith("#"):
                section = line.lstrip("# ")
            if not cells or not header:
                header = cells
            elif header[0] == "key" and not set(line) <= set("|- :"):
                yield KeyRow(page, section, dict(zip(header, cells, strict=True)))


def index() -> str:
    """The whole page."""
    rows = sorted(key_rows(), key=lambda row: (row.key, row.page))
    return HEAD + "".join(f"| `{row.key}` | {_meaning(row)} | {_default(row)} | {_place(row)} |\n" for row in rows)


def _meaning(row: KeyRow) -> str:
    """The meaning with its links leading from this page, and the unit."""
    text = re.sub(r"\]\(#", f"]({row.page}#", row.cells["meaning"])
    unit = row.cells.get("unit", "-")
    return text if unit == "-" else f"{text} ({unit})"


def _default(row: KeyRow) -> str:
    """The default, or the defaults by the choice that they depend on."""
    values = {column: value for column, value in row.cells.items() if column not in WORDS and value != "-"}
    if len(set(values.values())) <= 1:
        return next(iter(values.values()), "-")
    return ", ".join(f"{column} {value}" for column, value in values.items())


def _place(row: KeyRow) -> str:
    return f"[{row.page.removesuffix('.md')}]({row.page}#{anchor(row.section)})"


def anchor(heading: str) -> str:
    """What a heading is called in a link."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def main() -> None:
    """Write the page."""
    (DOCS / "keys.md").write_text(index(), encoding="utf-8")


if __name__ == "__main__":
    main()
