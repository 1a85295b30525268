"""The pages hold together: their commands name what exists; index, pictures and site are made of their sources."""

import importlib.util
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

import house
import key_index
from rrl.config.compose import compose
from rrl.types import Example, Problem, Rollout, State

ROOT = Path(__file__).resolve().parents[2]
PICTURES = ROOT / "docs" / "pictures"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
CONFIGURATIONS = {
    "rrl-train": "train", "rrl-sft": "train", "rrl-evaluate": "evaluate", "rrl-reward-model": "train_reward_model",
}  # fmt: skip
OF_COMMANDS = ("resume", "from_run", "dry_run", "output", "judgements", "against", "responses", "hydra")
"""What a command takes for itself, with ``=`` as keys have it."""
LEFT_OUT = (
    "=within", "=mine", "=reverse", "=hard_first", "=length_discount", "=reinforce", "=generate", "selection.belw=",
)  # fmt: skip
"""Parts that pages add as examples, and a key that one misspells."""
FIRST = ("README", "tutorial", "how-to", "combinations", "troubleshooting")
"""Pages that a newcomer reads; the commands of the others are tried by the slow tests."""


# --- commands ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "page", [pytest.param(page, id=page.stem, marks=() if page.stem in FIRST else pytest.mark.slow) for page in PAGES]
)
def test_commands_name_keys_and_choices_that_exist(page: Path) -> None:
    commands = _commands(page.read_text(encoding="utf-8"))
    faults = {line: compose(name, overrides).faults for line, name, overrides in commands}
    assert not {line: found for line, found in faults.items() if found}


def test_commands_are_found() -> None:
    text = "```\n$ rrl-train -m \\\n  task=a,b seed=0 'x=[1,2]' ... # c=d\nrrl-sft | tee\n```\nrrl-train y=1\n"
    assert [(name, overrides) for _, name, overrides in _commands(text)] == [
        ("train", ["task=a", "seed=0", "x=[1,2]"]), ("train", ["warmstart=sft"]),
    ]  # fmt: skip


def _commands(text: str) -> Iterator[tuple[str, str, list[str]]]:
    """Commands in a page's blocks: line, configuration and overrides; of a sweep's values the first."""
    for block in re.findall(r"^ *```\w*\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            command, _, rest = line.strip().removeprefix("$ ").partition(" ")
            if command in CONFIGURATIONS and not any(part in rest for part in LEFT_OUT):
                supervised = ["warmstart=sft"] if command == "rrl-sft" else []  # which the command adds itself
                yield line, CONFIGURATIONS[command], [*_overrides(rest), *supervised]


def _overrides(rest: str) -> Iterator[str]:
    words = shlex.split(re.split(r"\s#\s|\s[|]\s|\s2>", f" {rest}")[0])
    tasks = next((word.removeprefix("task=").split(",") for word in words if word.startswith("task=")), [""])
    for word in words:
        key, equals, value = word.strip("<>").partition("=")
        key = key.removeprefix(f"{tasks[0]}.")  # of one of several tasks
        if key.split(".")[0] in tasks[1:]:
            continue
        if equals and re.split("[./]", key)[0] not in OF_COMMANDS and "(" not in value:
            yield f"{key}={value if value[:1] in '[{' else value.split(',')[0].strip('<>')}"


def test_the_checker_of_the_how_to_page_judges_within_one_per_cent() -> None:
    (source,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "how-to.md").read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, Any] = {}
    exec(source, names)
    responses = {"about 100": "right", "99.1": "right", "98.9": "wrong", "100, no: 7": "wrong", "many": "unparseable"}
    judged = names["Within"].verify(None, [_rollout(text, "100") for text in responses])
    assert {text: feedback.verdict.value for text, feedback in zip(responses, judged, strict=True)} == responses


def _rollout(response: str, answer: str) -> Rollout:
    problem = Problem(Example("p", "all", "?", answer, answer), (1,), ())
    return Rollout(State(problem), (1,), (0.0,), (0.0,), True, response, 0)


@pytest.mark.parametrize("page", [ROOT / "docs" / f"{name}.md" for name in FIRST[1:]], ids=lambda page: page.stem)
def test_keys_and_metrics_in_a_text_are_those_that_are_explained(page: Path) -> None:
    explained = "\n".join((ROOT / "docs" / name).read_text(encoding="utf-8") for name in key_index.PAGES)
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    keys = set(re.findall(r"`([a-z_]+(?:\.[a-z_]+)+)(?:=[^`]*)?`", text))
    metrics = set(re.findall(r"`([a-z-]+/[a-z_/<>-]+)`", text))
    known = {row.key for row in key_index.key_rows()} | {"metrics.jsonl", "evaluations.jsonl"}
    assert not keys - known
    assert not {metric for metric in metrics if f"`{metric}`" not in explained and metric != "perf/max_memory/<phase>"}


# --- what is made of something else -----------------------------------------------------------------------------------


def test_the_index_of_keys_is_made_of_the_tables_of_the_pages() -> None:
    assert (ROOT / "docs" / "keys.md").read_text(encoding="utf-8") == key_index.index(), "`make keys` writes it anew"


@pytest.mark.parametrize("source", sorted(PICTURES.glob("*.yaml")), ids=lambda source: source.stem)
def test_pictures_are_drawn_from_their_texts(source: Path) -> None:
    drawn = _module(PICTURES / "draw.py").draw(yaml.safe_load(source.read_text(encoding="utf-8")))
    assert source.with_suffix(".svg").read_text(encoding="utf-8") == drawn, "`make pictures` draws it anew"


def test_the_picture_of_the_rooms_shows_every_room_at_its_height() -> None:
    boxes = yaml.safe_load((PICTURES / "rooms.yaml").read_text(encoding="utf-8"))["boxes"]
    heights: dict[int, set[str]] = {}
    for name, box in boxes.items():
        heights.setdefault(-box["at"][1], set()).add(name)
    assert [heights[height] for height in sorted(heights)] == [set(rooms) for rooms in house.ROOMS]


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_site_is_built_without_a_warning_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    pages = {page: page.read_text(encoding="utf-8") for page in tmp_path.rglob("*.html")}
    assert len(pages) > len(PAGES)
    foreign = r'<(?:script|img)[^>]* src="?https?:|<link[^>]* href="?https?:'
    assert not [page.name for page, text in pages.items() if re.search(foreign, text)]


def test_the_readme_is_one_page() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 120
    assert not [line for line in lines if len(line) > 165 and not line.startswith("|")]  # but for rows of tables
