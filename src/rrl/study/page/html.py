"""One HTML file that needs nothing else: styles, scripts and data inside, under a policy that lets nothing else run."""

import base64
import gzip
import html
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Any

from rrl.errors import ConfigError
from rrl.records.files import write_whole
from rrl.records.texts import as_json
from rrl.study.page.collect import MADE_BY, collect

SCRIPTS = (
    "dom", "data", "text", "figure", "chart", "overview", "filters", "list", "strips", "tokens", "sample",
    "steps", "lanes", "replay", "main",
)  # fmt: skip
"""The page's own scripts in their order; one scope holds them all."""
MARK = "<!doctype html>\n<!-- made by rrl-report -->"
POLICY = (
    "default-src 'none'; script-src {script}; style-src {style}; img-src data: blob:; base-uri 'none'; "
    "form-action 'none'; require-trusted-types-for 'script'"
)
"""Nothing is loaded from anywhere, no script runs but the one with this hash, and no text becomes HTML."""


def write_page(arms: Mapping[str, Sequence[Path]], target: Path, megabytes: float, points: int) -> list[str]:
    """Write the page of these arms, and beside it ``.json`` with the same content; returns the lines of what is amiss.

    Raises ConfigError where either file exists and is not an earlier page.
    """
    twin = target.with_suffix(".json")
    _refuse_others(target, MARK)
    _refuse_others(twin, _opening())
    index, blocks = collect(arms, megabytes, points)
    target.parent.mkdir(parents=True, exist_ok=True)
    write_whole(twin, as_json({**index, "blocks": blocks}) + b"\n")
    write_whole(target, "".join(_page(index, blocks)).encode("utf-8", "backslashreplace"))
    return list(index["faults"])


def _opening() -> str:
    return f'{{"made_by": "{MADE_BY}"'


def _refuse_others(path: Path, opening: str) -> None:
    if path.exists():
        with path.open("rb") as file:
            if file.read(len(opening)) != opening.encode():
                raise ConfigError(
                    f"out: {str(path)!r} exists and was not made by rrl-report; expected a new file or an earlier one; "
                    "give another name or move it away"
                )


def _page(index: Mapping[str, Any], blocks: Mapping[str, Any]) -> Iterator[str]:
    """The file in pieces."""
    style = "\n".join([_asset("uplot/uPlot.min.css"), _asset("page.css")])
    own = "\n".join(_asset(f"js/{name}.js") for name in SCRIPTS)
    script = f'{_asset("uplot/uPlot.iife.min.js")}\n(function () {{\n"use strict";\n{own}\n}})();'
    policy = POLICY.format(script=_hash(script), style=_hash(style))
    body, _, end = _asset("page.html").partition("<!-- data -->")
    head = f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n<style>{style}</style>'
    yield f"{MARK}\n" + body.replace("<!-- head -->", head)
    yield f'<script type="application/json" id="index">{_plain(index)}</script>\n'
    for name, content in blocks.items():
        yield f'<script type="text/plain" data-block="{html.escape(name)}">{_packed(content)}</script>\n'
    yield end.replace("<!-- script -->", f"<script>{script}</script>")


def _asset(name: str) -> str:
    return (files("rrl.study.page") / "assets" / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(sha256(text.encode()).digest()).decode()}'"


def _plain(content: Any) -> str:
    """JSON that nothing in it can end."""
    return as_json(content).decode("utf-8").replace("<", "\\u003c")


def _packed(content: Any) -> str:
    """JSON as gzip in base64, the same for the same content."""
    return base64.b64encode(gzip.compress(as_json(content), compresslevel=6, mtime=0)).decode()
