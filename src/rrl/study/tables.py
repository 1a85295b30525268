"""Tables of results: as plain data, as Markdown and as LaTeX."""

from collections.abc import Sequence
from dataclasses import dataclass

LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "−": "$-$", "<": "$<$", ">": "$>$",
}  # fmt: skip


@dataclass(frozen=True)
class Table:
    """A title, the heads of the columns, and rows of as many cells."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        """The title, a blank line, the table."""
        lines = [_line(self.head), "| --- " * len(self.head) + "|", *map(_line, self.rows)]
        return "\n".join([self.title, "", *lines]) + "\n"

    def latex(self) -> str:
        """For the package booktabs; the first column is aligned to the left."""
        head, *rows = (" & ".join(map(_escaped, row)) + r" \\" for row in (self.head, *self.rows))
        columns = "l" + "r" * (len(self.head) - 1)
        body = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", head, r"\midrule", *rows, r"\bottomrule"]
        return "\n".join([rf"% {' '.join(self.title.split())}", *body, r"\end{tabular}"]) + "\n"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _escaped(text: str) -> str:
    return "".join(LATEX.get(character, character) for character in text)
