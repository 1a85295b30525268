"""The documentation is true: examples work as they stand, every key, default and metric is told, links resolve."""

import ast
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import yaml

import file_map
import house
from fixtures.config import every_choice
from key_index import PAGES, key_rows
from rrl.cli import train
from rrl.collate import collate, engine_logprobs
from rrl.config.compose import compose
from rrl.interfaces import RolloutEngine
from rrl.parts.rewards.preference import RewardModelReward
from rrl.training.models import TinyLlama
from rrl.training.prepared import FrozenSource
from rrl.types import Batch, Example, Feedback, Judged, PolicyOutput, Problem, Rollout, Sampling, State, Verdict

pytestmark = pytest.mark.composing

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
EXAMPLES = DOCS / "examples"
TINY = ("model=tiny",)
HF = ("task=gsm8k", "model=hf")
SFT = ("warmstart=sft",)
KINDS = ("sequence", "embeddings")
"""Of reward models."""
GSI = {"gsi tiny": ("algo=gsi",), "gsi hf": ("algo=gsi", *HF)}
SMALL = (
    "warmstart=none", "run.threads=1", "trainer.train_batch_size=8", "trainer.ppo_mini_batch_size=8",
    "evaluation.limit=2", "evaluation.n=2",
)  # fmt: skip


# --- examples: one Python file and one YAML each ----------------------------------------------------------------------

EXAMPLES_OF = {
    "task": "reverse", "sampler": "hard_first", "reward": "length_discount", "objective": "reinforce",
    "engine": "generate",
}  # fmt: skip
"""The example of each kind."""
ONE_STEP = ("trainer.total_training_steps=1", *SMALL)
RUN = (
    "task.train_per_length=20", "task.test_per_length=5", "algo=ppo", "critic=none", "trainer.critic_warmup=0",
    "trainer.ppo_epochs=1", *ONE_STEP,
)  # fmt: skip
"""With what all of them are tried together."""


def test_there_is_an_example_of_every_kind() -> None:
    for suffix in ("py", "yaml"):
        assert {(path.parent.name, path.stem) for path in EXAMPLES.glob(f"*/*.{suffix}")} == set(EXAMPLES_OF.items())


def test_examples_run_when_their_two_files_each_are_put_in(tmp_path: Path) -> None:
    package, conf = tmp_path / "src" / "rrl", tmp_path / "conf"
    shutil.copytree(ROOT / "src" / "rrl", package)
    shutil.copytree(ROOT / "conf", conf, ignore=shutil.ignore_patterns("experiment"))
    for kind, name in EXAMPLES_OF.items():
        module, choice = package / "parts" / f"{kind}s" / f"{name}.py", conf / kind / f"{name}.yaml"
        assert module.parent.is_dir()
        assert choice.parent.is_dir()
        shutil.copy(EXAMPLES / kind / f"{name}.py", module)
        shutil.copy(EXAMPLES / kind / f"{name}.yaml", choice)

    done = subprocess.run(
        [
            sys.executable, "-m", "rrl.cli.train", f"run.dir={tmp_path / 'run'}",
            *(f"{kind}={name}" for kind, name in EXAMPLES_OF.items()), *RUN,
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "src"), "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run" / "result.json").read_text())["steps"] == 1
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    for kind, name in EXAMPLES_OF.items():
        assert config[kind]["_target_"].startswith(f"rrl.parts.{kind}s.{name}.")


# --- what the examples claim ------------------------------------------------------------------------------------------


def _example(kind: str, name: str) -> ModuleType:
    """An example's module, loaded from where it lies."""
    full = f"example_{kind}_{name}"
    spec = importlib.util.spec_from_file_location(full, EXAMPLES / kind / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[full] = module
    spec.loader.exec_module(module)
    return module


def _rollout(
    response: str = "",
    *,
    actions: int = 1,
    prefix: int = 0,
    finished: bool = True,
    name: str = "p",
    answer: str = "b a",
) -> Rollout:
    problem = Problem(Example(name, "level", "a b", answer, answer), (1, 5), ())
    zeros = (0.0,) * actions
    return Rollout(State(problem, (7,) * prefix), (7,) * actions, zeros, zeros, finished, response, 0)


@pytest.mark.parametrize(
    ("response", "finished", "verdict"),
    [
        ("b a", True, Verdict.RIGHT),
        ("a b", True, Verdict.WRONG),
        ("b a", False, Verdict.WRONG),
        ("b", True, Verdict.WRONG),
        ("b =", True, Verdict.UNPARSEABLE),
    ],
)
def test_reverse_judges_the_whole_word(response: str, finished: bool, verdict: Verdict) -> None:
    task = _example("task", "reverse").Reverse(lengths=(2,), train_per_length=3, test_per_length=3, start_seed=0)
    assert task.verify([_rollout(response, finished=finished)])[0].verdict is verdict


def test_reverse_holds_its_test_words_out() -> None:
    task = _example("task", "reverse").Reverse(lengths=(1, 2), train_per_length=13, test_per_length=13, start_seed=0)
    train, test = ({example.question for example in task.examples(split)} for split in ("train", "test"))
    assert (len(train), len(test), train & test) == (26, 26, set())
    assert all(e.question.split() == e.reference.split()[::-1] for e in task.examples("train"))


def test_hard_first_prefers_what_was_failed() -> None:
    sampler = _example("sampler", "hard_first").HardFirst(level_weights=None, candidates=4, momentum=0.5, unknown=0.5)
    easy, hard = _rollout(name="easy"), _rollout(name="hard")
    sampler.start([easy.state.problem, hard.state.problem], 0, lambda states: [], None)
    sampler.sample(1, 0.0)
    judged = [Judged(easy, Feedback(1.0, Verdict.RIGHT)), Judged(hard, Feedback(0.0, Verdict.WRONG))]
    sampler.observe(judged, None)
    assert [state.problem.id for state in sampler.sample(3, 0.0)] == ["hard"] * 3


def test_length_discount_counts_the_replayed_prefix() -> None:
    reward = _example("reward", "length_discount").LengthDiscount(discount=0.5, free_tokens=2)
    right = Feedback(1.0, Verdict.RIGHT)
    assert reward(Judged(_rollout(actions=2), right)) == [0.0, 1.0]
    assert reward(Judged(_rollout(actions=3, prefix=1), right)) == [0.0, 0.0, 0.25]


def test_reinforce_subtracts_the_mean_score_of_the_others() -> None:
    objective = _example("objective", "reinforce").Reinforce(leave_one_out=True)
    batch = _batch([[1.0], [0.0, 0.0], [0.0]])
    credited = objective.assign_credit(batch)
    # Scores 1, 0, 0: the others' means are 0, 1/2, 1/2.
    torch.testing.assert_close(credited.advantages[batch.mask], torch.tensor([1.0, -0.5, -0.5, -0.5]))


def test_reinforce_makes_a_better_response_likelier() -> None:
    objective = _example("objective", "reinforce").Reinforce(leave_one_out=False)
    batch = objective.assign_credit(_batch([[1.0], [0.0]]))
    batch = batch.with_(weight=batch.mask / 2.0)
    logprobs = torch.zeros(batch.tokens.shape, requires_grad=True)
    objective.loss(batch, PolicyOutput(logprobs, torch.zeros_like(batch.weight), None))[0].backward()
    assert logprobs.grad is not None
    torch.testing.assert_close(logprobs.grad[batch.mask], torch.tensor([-0.25, 0.25]))


def _batch(rewards: list[list[float]]) -> Batch:
    return collate([_rollout(actions=len(row)) for row in rewards], rewards, pad=0)


@pytest.fixture(scope="module")
def engine() -> RolloutEngine:
    """The example's engine on a random model of 12 tokens."""
    model, tokenizer = TinyLlama(
        hidden_size=16, num_hidden_layers=1, max_prompt_length=32, max_response_length=32, start_seed=0,
    ).load(tuple("abcdefgh"))  # fmt: skip
    made: RolloutEngine = _example("engine", "generate").Generate(
        temperature=0.8, top_p=0.9, top_k=6, max_response_length=5, batch_size=2
    )
    made.start(FrozenSource(model), tokenizer, seed=0)
    return made


STATES = [_rollout(prefix=length).state for length in (0, 4, 0, 2)]


def test_generate_owns_its_randomness(engine: RolloutEngine) -> None:
    before = torch.get_rng_state()
    first, again, other = (engine.generate(STATES, generator=torch.Generator().manual_seed(seed)) for seed in (3, 3, 4))
    assert [r.actions for r in first] == [r.actions for r in again]
    assert [r.actions for r in first] != [r.actions for r in other]
    assert torch.equal(torch.get_rng_state(), before)


def test_generate_reports_the_log_probabilities_that_it_drew_from(engine: RolloutEngine) -> None:
    rollouts = engine.generate(STATES, generator=torch.Generator().manual_seed(0))
    batch = collate(rollouts, [[0.0] * len(r.actions) for r in rollouts], pad=0)
    model = engine._source._model  # type: ignore[attr-defined]
    with torch.no_grad():
        logits = model(input_ids=batch.tokens, attention_mask=batch.attention).logits[:, :-1] / 0.8
    expected = logits.log_softmax(-1).gather(-1, batch.tokens[:, 1:, None]).squeeze(-1)
    found = engine_logprobs(rollouts, batch.mask)[:, 1:]
    torch.testing.assert_close(found[batch.mask[:, 1:]], expected[batch.mask[:, 1:]], atol=1e-4, rtol=1e-4)
    assert any(mass < -1e-3 for r in rollouts for mass in r.kept)


def test_generate_keeps_prefix_and_new_tokens_within_the_limit(engine: RolloutEngine) -> None:
    greedy = Sampling(0.0, 1.0, 0, 5, ())
    for rollout in (*engine.generate(STATES), *engine.generate(STATES, greedy)):
        assert 1 <= len(rollout.actions) <= 5 - len(rollout.state.prefix)
        assert rollout.finished or len(rollout.tokens) == 5
        assert rollout.finished == (rollout.actions[-1] == 2)


# --- keys -------------------------------------------------------------------------------------------------------------


@cache
def _told(*names: str) -> str:
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
    told = {row.key for row in key_rows()} | {"warmstart", "judge", "critic", "lora", "compile", "old_log_prob"}
    # in the tasks themselves; under their own names
    elsewhere = "task."
    missing = [key for key in _every_key() if key not in told and not key.startswith(elsewhere)]
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
    missing = sorted(name for name in logged if f"`{name}`" not in _told(*documents))
    assert not missing, f"explain these metrics in docs/{documents[-1]}: {missing}"


def test_every_metric_of_preferences_is_explained() -> None:
    part = RewardModelReward(subtract_mean=False, clip=1.0, unparseable=0.0, truncation_penalty=0.0)
    logged = part.observe([Judged(_rollout(), Feedback(0.5, Verdict.WRONG, {"reward": 1.0}))])
    assert not [name for name in logged if f"`{name}`" not in _told("hh.md")]


ITERATIONS = (
    "task.train_per_level=20", "warmstart=none", "run.threads=1", "evaluation.limit=2",
    "trainer.first_iteration=references", "trainer.iterations=2", "trainer.train_batch_size=20",
    "trainer.epochs=12", "trainer.mini_batch_size=8",
    "policy.actor_lr=3e-3",
)  # fmt: skip


def test_every_logged_metric_of_guided_self_improvement_is_explained(tmp_path: Path) -> None:
    logged = _logged(tmp_path / "run", "algo=gsi", *ITERATIONS)
    assert {"gsi/guided_success/<stage>", "actor/sft_loss"} <= logged
    missing = sorted(name for name in logged if f"`{name}`" not in _told("ppo.md", "gsi.md"))
    assert not missing, f"explain these metrics in docs/gsi.md: {missing}"


def _logged(folder: Path, *overrides: str) -> set[str]:
    """The metrics of a run, under their general names."""
    train._train([*overrides, f"run.dir={folder}"])
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {_general(name) for row in rows for name in row if name != "step"}


def _general(name: str) -> str:
    """A metric's name with its variable parts named."""
    for pattern, general in (
        (r"val-core/[^/]+/acc/.+", "val-core/<source>/acc/<mode>"),
        (r"val-core/[^/]+/error_frac/.+", "val-core/<source>/error_frac/<mode>"),
        (r"val/[^/]+/[^/]+/acc/.+", "val/<source>/<level>/acc/<mode>"),
        (r"data/level_share/.+", "data/level_share/<level>"),
        (r"gsi/guided_success/.+", "gsi/guided_success/<stage>"),
        (r"data/level_score/.+/(fresh|replayed)", r"data/level_score/<level>/\1"),
    ):
        name = re.sub(f"^{pattern}$", general, name)
    return name


# --- files and links --------------------------------------------------------------------------------------------------


def test_the_file_map_is_made_of_the_first_lines_of_the_files() -> None:
    assert file_map.table() in _told("architecture.md"), "`make map` writes it anew"


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
