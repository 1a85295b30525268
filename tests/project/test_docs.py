"""The documentation is true: every key, default and metric is explained, links resolve."""

import ast
import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

import file_map
import house
from fixtures.config import every_choice
from fixtures.math_task import rollout
from key_index import PAGES, key_rows
from rrl.cli import train
from rrl.config.compose import compose
from rrl.parts.rewards.preference import RewardModelReward
from rrl.types import Feedback, Judged, Verdict

pytestmark = pytest.mark.composing

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
TINY = ("model=tiny",)
HF = ("task=gsm8k", "model=hf")
SFT = ("warmstart=sft",)
KINDS = ("sequence", "embeddings")
"""Of reward models."""
GSI = {"gsi tiny": ("algo=gsi",), "gsi hf": ("algo=gsi", *HF)}
SMALL = (
    "warmstart=none", "run.threads=1", "trainer.train_batch_size=8", "trainer.ppo_mini_batch_size=8",
    "evaluation.limit=2", "evaluation.n=2", "model.hidden_size=16", "model.num_hidden_layers=1",
)  # fmt: skip


# --- keys -------------------------------------------------------------------------------------------------------------


@cache
def _reported(*names: str) -> str:
    return "\n".join((DOCS / name).read_text(encoding="utf-8") for name in names)


@cache
def _flat(*overrides: str) -> dict[str, Any]:
    """The leaves of a composed configuration, by dotted name; with a kind, that of rrl-reward-model."""
    name = "train_reward_model" if any(override.startswith("fit=") for override in overrides) else "evaluate"
    return dict(_leaves(compose(name, overrides)[0], ""))


def _leaves(node: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(node, Mapping) and not path.endswith("level_weights"):
        for key, item in node.items():
            if key != "_target_":
                yield from _leaves(item, f"{path}.{key}" if path else str(key))
    else:
        yield path, node


@cache
def _every_key() -> dict[str, list[Any]]:
    """Every key that any choice of any group brings, and the values it can then have."""
    keys: dict[str, list[Any]] = {}
    for choices in every_choice():
        if not choices[0].startswith("experiment="):
            for key, value in _flat(*choices).items():
                keys.setdefault(key, []).append(value)
    return keys


def test_every_key_is_explained() -> None:
    reported = {row.key for row in key_rows()} | {
        "warmstart",
        "judge",
        "critic",
        "lora",
        "offload",
        "compile",
        "old_log_prob",
        "siblings",
        "records",
    }
    missing = [key for key in _every_key() if key not in reported]
    assert not missing, f"explain these keys in one of {PAGES} in docs/: {missing}"


def test_no_key_is_explained_that_does_not_exist() -> None:
    known = set(_every_key()) | {"policy.lora"}
    assert not [row.key for row in key_rows() if row.key not in known]


def test_documented_defaults_are_those_of_the_configurations() -> None:
    wrong = []
    for key, row in ((row.key, row.cells) for row in key_rows()):
        for column, allowed in (
            ("tiny", [_flat(*TINY).get(key)]), ("hf", [_flat(*HF).get(key)]), ("sft", [_flat(*SFT).get(key)]),
            ("default", _every_key().get(key, [])),
            *((kind, [_flat(f"{group}={kind}").get(key) for group in ("fit", "reward_model")]) for kind in KINDS),
            *((column, [_flat(*choices).get(key)]) for column, choices in GSI.items()),
        ):  # fmt: skip
            if row.get(column, "-") != "-" and _value(row[column]) not in allowed:
                wrong.append(f"{key} ({column}): {row[column]}, but the configuration says {allowed}")
    assert not wrong, "\n".join(wrong)


def _value(cell: str) -> Any:
    """The value in a table cell: YAML in backticks."""
    return yaml.safe_load(cell.strip("`"))


# --- metrics ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("algo", "documents"),
    [("ppo", ("ppo.md",)), ("rrl", ("ppo.md", "rrl.md"))],
)
def test_every_logged_metric_is_explained(algo: str, documents: tuple[str, ...], tmp_path: Path) -> None:
    steps = ("trainer.total_training_steps=3", "trainer.critic_warmup=1", "task.train_per_level=20")
    cuts = ("selection=random_cut", "run.save_freq=1") if algo == "rrl" else ()
    logged = _logged(tmp_path / "run", f"algo={algo}", *steps, *cuts, *SMALL)
    assert ("critic/score/replayed/mean" in logged) == (algo == "rrl")
    missing = sorted(name for name in logged if f"`{name}`" not in _reported(*documents))
    assert not missing, f"explain these metrics in docs/{documents[-1]}: {missing}"


def test_every_metric_of_preferences_is_explained() -> None:
    part = RewardModelReward(subtract_mean=False, clip=1.0, unparseable=0.0, truncation_penalty=0.0)
    logged = part.observe([Judged(rollout("", "b a"), Feedback(0.5, Verdict.WRONG, {"reward": 1.0}))])
    assert not [name for name in logged if f"`{name}`" not in _reported("hh.md")]


ITERATIONS = (
    "task.train_per_level=20", "warmstart=none", "run.threads=1", "evaluation.limit=2",
    "trainer.first_iteration=references", "trainer.iterations=2", "trainer.train_batch_size=20",
    "trainer.epochs=12", "trainer.mini_batch_size=8", "policy.actor_lr=3e-3", "model.hidden_size=16",
    "model.num_hidden_layers=1",
)  # fmt: skip


def test_every_logged_metric_of_guided_self_improvement_is_explained(tmp_path: Path) -> None:
    logged = _logged(tmp_path / "run", "algo=gsi", *ITERATIONS)
    assert {"gsi/guided_success/<stage>", "actor/sft_loss"} <= logged
    missing = sorted(name for name in logged if f"`{name}`" not in _reported("ppo.md", "gsi.md"))
    assert not missing, f"explain these metrics in docs/gsi.md: {missing}"


def _logged(folder: Path, *overrides: str) -> set[str]:
    """The metrics of a run, under their general names."""
    train._train([*overrides, f"run.dir={folder}"])
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {_general(name) for row in rows for name in row if name != "step"}


def _general(name: str) -> str:
    """A metric's name with its variable parts named."""
    for pattern, general in (
        (r"val-core/[^/]+/pass@\d+/.+", "val-core/<source>/pass@<k>/<mode>"),
        (r"val-core/[^/]+/(\w+|maj@n)/.+", r"val-core/<source>/\1/<mode>"),
        (r"val/[^/]+/[^/]+/acc/.+", "val/<source>/<level>/acc/<mode>"),
        (r"data/level_share/.+", "data/level_share/<level>"),
        (r"gsi/guided_success/.+", "gsi/guided_success/<stage>"),
        (r"data/level_score/.+/(fresh|replayed)", r"data/level_score/<level>/\1"),
    ):
        name = re.sub(f"^{pattern}$", general, name)
    return name


# --- files and links --------------------------------------------------------------------------------------------------


def test_the_file_map_is_made_of_the_first_lines_of_the_files() -> None:
    assert file_map.table() in _reported("architecture.md"), "`make map` writes it anew"


def test_the_first_line_of_a_file_is_a_sentence() -> None:
    first = {file: (ast.get_docstring(tree) or "").split("\n")[0] for file, tree in house.trees().items()}
    assert not {file: line for file, line in first.items() if not line.endswith(".")}


def _pages() -> list[Path]:
    return [*DOCS.glob("*.md"), *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"))]


@pytest.mark.parametrize("page", _pages(), ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    targets = [target for target in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in target]
    broken = [target for target in targets if not _leads_somewhere(page, target)]
    assert not broken


def _leads_somewhere(page: Path, target: str) -> bool:
    path, _, anchor = target.partition("#")
    file = page.parent / path if path else page
    if not file.exists() or (file.is_file() and not file.stat().st_size):
        return False
    if not anchor:
        return True
    headings = re.findall(r"^#+ (.+)$", file.read_text(encoding="utf-8"), re.MULTILINE)
    return anchor in {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
