"""Draws the pictures of these pages, ``*.svg``, from the texts ``*.yaml`` beside them: ``make pictures``."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import yaml

HERE = Path(__file__).resolve().parent
LINE = 17
"""Between two lines of text."""
COLOURS = {
    "plain": ("#eef2fb", "#4a64a8"), "data": ("#f2f2f2", "#888888"), "strong": ("#fdeedd", "#c8690b"),
}  # fmt: skip
"""Of a kind of box: inside and border."""
SIDES = {"left": (0, 0.5), "right": (1, 0.5), "top": (0.5, 0), "bottom": (0.5, 1)}
"""Where arrows meet a box, in shares of its size."""
HEAD = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {0} {1}" width="{0}" height="{1}" role="img"
     font-family="Helvetica, Arial, sans-serif" font-size="13" fill="#222222">
<title>{2}</title>
<defs><marker id="tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="8" markerHeight="8" orient="auto">
<path d="M0 0 L10 5 L0 10 z" fill="#555555"/></marker></defs>
<rect width="{0}" height="{1}" rx="8" fill="#ffffff"/>"""


def draw(picture: dict[str, Any]) -> str:
    """The SVG of a picture: its boxes by name, and arrows from one side of a box to another's."""
    width, height = picture["size"]
    boxes = [part for box in picture["boxes"].values() for part in _box(box)]
    arrows = [part for arrow in picture["arrows"] for part in _arrow(arrow, picture["boxes"])]
    return "\n".join([HEAD.format(width, height, escape(picture["title"])), *boxes, *arrows, "</svg>", ""])


def _box(box: dict[str, Any]) -> Iterator[str]:
    """A box at ``[left, top, width, height]`` with a title and lines in its middle."""
    left, top, width, height = box["at"]
    inside, border = COLOURS[box.get("kind", "plain")]
    yield f'<rect x="{left}" y="{top}" width="{width}" height="{height}" rx="6" fill="{inside}" stroke="{border}"/>'
    lines = [box["title"], *box["lines"]]
    first = top + height / 2 - LINE * (len(lines) - 1) / 2 + 4
    for number, line in enumerate(lines):
        weight = ' font-weight="bold" font-size="14"' if number == 0 else ""
        yield _text(left + width / 2, first + LINE * number, line, "middle", weight)


def _arrow(arrow: dict[str, Any], boxes: dict[str, Any]) -> Iterator[str]:
    """An arrow along its corners, with lines of text from a point on."""
    points = [_end(arrow["from"], boxes), *arrow.get("by", []), _end(arrow["to"], boxes)]
    path = " ".join(f"{x:g},{y:g}" for x, y in points)
    yield f'<polyline points="{path}" fill="none" stroke="#555555" stroke-width="1.6" marker-end="url(#tip)"/>'
    x, y = arrow.get("at", (0, 0))
    for number, line in enumerate(arrow.get("lines", [])):
        yield _text(x, y + LINE * number, line, arrow.get("anchor", "middle"), ' font-style="italic" font-size="12"')


def _end(name: str, boxes: dict[str, Any]) -> tuple[float, float]:
    """The point ``box.side``."""
    box, side = name.split(".")
    (left, top, width, height), (across, down) = boxes[box]["at"], SIDES[side]
    return left + across * width, top + down * height


def _text(x: float, y: float, line: str, anchor: str, style: str) -> str:
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}"{style}>{escape(line)}</text>'


def main() -> None:
    """Draw every picture anew."""
    for source in HERE.glob("*.yaml"):
        picture = draw(yaml.safe_load(source.read_text(encoding="utf-8")))
        source.with_suffix(".svg").write_text(picture, encoding="utf-8")


if __name__ == "__main__":
    main()
