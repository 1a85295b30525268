"""The examples of the documentation work as they stand, and do what they claim."""

import importlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
import yaml

from rrl.cli import train
from rrl.collate import collate, engine_logprobs
from rrl.interfaces import RolloutEngine
from rrl.training.models import TinyLlama
from rrl.training.prepared import FrozenSource
from rrl.types import Batch, Example, Feedback, Judged, PolicyOutput, Problem, Rollout, Sampling, State, Verdict

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "docs" / "examples"

EXAMPLES_OF = {
    "task": "reverse", "sampler": "hard_first", "reward": "length_discount", "objective": "reinforce",
    "engine": "generate",
}  # fmt: skip
"""The example of each kind."""
RUN = (
    "task.train_per_length=20", "task.test_per_length=5", "algo=ppo", "critic=none", "trainer.critic_warmup=0",
    "trainer.ppo_epochs=1", "trainer.total_training_steps=1", "warmstart=none", "run.threads=1",
    "trainer.train_batch_size=8", "trainer.ppo_mini_batch_size=8", "evaluation.limit=2", "evaluation.n=2",
)  # fmt: skip
"""With what all of them are tried together."""


def test_there_is_an_example_of_every_kind() -> None:
    for suffix in ("py", "yaml"):
        assert {(path.parent.name, path.stem) for path in EXAMPLES.glob(f"*/*.{suffix}")} == set(EXAMPLES_OF.items())


def test_examples_run_together_under_the_names_that_they_get(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules stand where src/rrl has those of their kind; their choices are found beside ours."""
    for kind, name in EXAMPLES_OF.items():
        assert (ROOT / "conf" / kind).is_dir()
        _put(kind, name, tmp_path / "rrl", tmp_path / "conf")
        package = importlib.import_module(f"rrl.parts.{kind}s")
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path / "rrl" / "parts" / f"{kind}s")])
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("RRL_PARTS", str(tmp_path / "conf"))
    train._train([f"run.dir={tmp_path / 'run'}", *(f"{kind}={name}" for kind, name in EXAMPLES_OF.items()), *RUN])
    assert_trained(tmp_path / "run")
    for kind, name in EXAMPLES_OF.items():
        del sys.modules[f"rrl.parts.{kind}s.{name}"]


@pytest.mark.slow
def test_examples_run_when_their_two_files_each_are_put_in(tmp_path: Path) -> None:
    package, conf = tmp_path / "src" / "rrl", tmp_path / "conf"
    shutil.copytree(ROOT / "src" / "rrl", package)
    shutil.copytree(ROOT / "conf", conf, ignore=shutil.ignore_patterns("experiment"))
    for kind, name in EXAMPLES_OF.items():
        _put(kind, name, package, conf)

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
    assert_trained(tmp_path / "run")


def _put(kind: str, name: str, package: Path, conf: Path) -> None:
    """Copy an example's module into a package and its YAML into a folder of configurations."""
    for suffix, place in (("py", package / "parts" / f"{kind}s"), ("yaml", conf / kind)):
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(EXAMPLES / kind / f"{name}.{suffix}", place)


def assert_trained(run: Path) -> None:
    assert json.loads((run / "result.json").read_text())["steps"] == 1
    config = yaml.safe_load((run / "config.yaml").read_text())
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
