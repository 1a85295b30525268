"""Every task with every algorithm: the pairs that fit take steps on real rows, the others say which tasks would do."""

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from fixtures.matrix import ALGOS, Record, few_rows, gradients, overrides
from rrl.config.check import Parts, load
from rrl.config.choices import groups
from rrl.errors import ConfigError
from rrl.processes.clock import Clock
from rrl.processes.distributed import start_process_group
from rrl.runs.assemble import make_trainer, prepare
from rrl.training.gsi import GSI
from rrl.training.loop import Loop
from rrl.types import Batch

ANY = ("gsi", "ppo", "rrl")
CODE = ("gsi", "ppo", "ppocoder", "rltf", "rltf_original", "rrl")
PAIRS = {
    "aime": ANY,
    "amc": ANY,
    "apps": CODE,
    "apps_plus": CODE,
    "gsm8k": ANY,
    "hh": ANY,
    "humaneval": CODE,
    "jsonl": ANY,
    "math": ANY,
    "mbpp": CODE,
    "minichat": ANY,
    "minicode": CODE,
    "trace": ANY,
}
"""The algorithms that each task can be trained with, as the README has them."""

FIT = [(task, algo) for task, algos in PAIRS.items() for algo in algos]
MISFIT = [(task, algo) for task, algos in PAIRS.items() for algo in CODE if algo not in algos]
REFUSED = (("gsm8k", "ppocoder"), ("hh", "rltf"), ("trace", "rltf_original"))
"""Every algorithm of the pairs that do not fit; each is refused with all tasks that would do. The others are slow."""
NO_ROWS = ("aime", "amc", "apps_plus", "humaneval", "mbpp")
"""Their rows are not available; they judge as jsonl and APPS do."""
RUN = [pair for pair in FIT if pair[0] not in NO_ROWS]
COVERING = (
    ("apps", "rltf"), ("gsm8k", "rrl"), ("hh", "ppo"), ("jsonl", "ppo"), ("math", "gsi"), ("minichat", "rrl"),
    ("minicode", "ppocoder"), ("minicode", "rltf_original"), ("trace", "ppo"),
)  # fmt: skip
"""Every task that has rows, and every algorithm. The other pairs are slow."""
WITHOUT_ROWS = (("apps_plus", "ppocoder"), ("apps_plus", "gsi"))
"""Of the algorithms that APPS+ can be trained with, one that needs programs and one with an own loop."""


def slow_but(covering: Collection[tuple[str, str]], pairs: Collection[tuple[str, str]]) -> list[Any]:
    """The ``pairs`` as parameters, those that are not ``covering`` marked slow."""
    return [pair if pair in covering else pytest.param(*pair, marks=pytest.mark.slow) for pair in pairs]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rows")


def test_the_table_has_every_task_and_every_algorithm() -> None:
    assert (list(PAIRS), list(CODE)) == (groups()["task"], groups()["algo"])
    assert sorted(ALGOS) == groups()["algo"]


@pytest.mark.parametrize(("task", "algo"), slow_but(REFUSED, MISFIT))
def test_a_pair_that_does_not_fit_is_refused_with_the_tasks_that_would_do(task: str, algo: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load("train", overrides(task, algo, "nowhere"))
    reported = caught.value.faults
    assert reported
    assert all(
        "needs programs" in fault and "expected task=apps|apps_plus|humaneval|mbpp|minicode" in fault
        for fault in reported
    )


@pytest.mark.parametrize(("task", "algo"), slow_but(WITHOUT_ROWS, FIT))
def test_a_pair_fits(task: str, algo: str) -> None:
    assert isinstance(load("train", overrides(task, algo, "nowhere"))[1], Parts)


def test_the_pairs_that_are_always_run_have_every_task_and_every_algorithm() -> None:
    assert {task for task, _ in COVERING} == {task for task, _ in RUN}
    assert {algo for _, algo in COVERING} == set(CODE)
    assert set(COVERING) <= set(RUN)
    assert {algo for _, algo in REFUSED} == {algo for _, algo in MISFIT}
    assert set(REFUSED) <= set(MISFIT)


@pytest.mark.parametrize(("task", "algo"), slow_but(COVERING, RUN))
def test_a_pair_that_fits_takes_its_steps_on_real_rows(task: str, algo: str, data: Path, tmp_path: Path) -> None:
    few_rows(data, task)
    config, parts = load("train", [*overrides(task, algo, str(data))])
    start_process_group()
    loop = make_trainer(parts, prepare(config, parts, lambda share, metrics: None), Clock())
    before, record = networks(loop), Record()
    record.watch(loop)

    metrics = [loop.step() for _ in range(3 if isinstance(loop, GSI) else 2)]

    after = networks(loop)
    assert moved(before["actor"], after["actor"])
    assert ("critic" not in before) or moved(before["critic"], after["critic"])
    assert ("reference" not in before) or not moved(before["reference"], after["reference"])
    assert loop.global_step == len(metrics)
    assert loop.tokens_generated == sum(len(rollout.actions) for rollout in record.written)
    assert loop.tokens_trained == sum(int(batch.mask.sum()) for batch in record.learnt) > 0
    remembers = [row["replay/buffer_size"] for row in metrics if "replay/buffer_size" in row]
    assert len(remembers) == (2 if algo == "rrl" else 0)
    assert all(remembers)
    assert any(rollout.state.prefix for rollout in record.written) == (algo in ("rrl", "gsi"))
    check_losses(loop, record)


def networks(loop: Loop) -> dict[str, dict[str, torch.Tensor]]:
    """A copy of every weight of actor, critic and reference."""
    policy: Any = loop.policy
    own = policy._engines.get("critic")
    modules = {"actor": policy.actor, "critic": own and own.module, "reference": policy._reference}
    return {
        name: {key: value.detach().clone() for key, value in module.state_dict().items()}
        for name, module in modules.items()
        if module is not None
    }


def moved(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> bool:
    return any(not torch.equal(before[name], after[name]) for name in before)


def check_losses(loop: Loop, record: Record) -> None:
    """Nothing is learnt of prompts, nor of replayed prefixes; only GSI keeps a given prefix in its answers."""
    begins = dict(context(loop, record))
    pulls = [gradients(loop, batch) for batch in record.learnt]
    for batch, pull in zip(record.learnt, pulls, strict=True):
        assert float(batch.weight.sum()) == pytest.approx(1.0)
        for row, (tokens, weight) in enumerate(zip(texts(batch), batch.weight, strict=True)):
            first = begins[tokens]
            assert not weight[:first].any() and not pull[row, :first].any()
            assert weight[first : len(tokens)].all()
            assert not weight[len(tokens) :].any()
    assert all(pull.any() for pull in pulls)


def texts(batch: Batch) -> list[tuple[int, ...]]:
    """Each row's tokens without padding."""
    return [tuple(tokens[real].tolist()) for tokens, real in zip(batch.tokens, batch.attention, strict=True)]


def context(loop: Loop, record: Record) -> Iterator[tuple[tuple[int, ...], int]]:
    """Whatever can be learnt from, and how many tokens at its beginning must not be."""
    for rollout in record.written:
        prompt = rollout.state.problem.prompt
        yield (*prompt, *rollout.tokens), len(prompt) + (0 if isinstance(loop, GSI) else len(rollout.state.prefix))
        reference = rollout.state.problem.reference
        yield (*prompt, *reference), len(prompt)
        yield (*prompt, *reference[: loop.engine.sampling.max_new_tokens]), len(prompt)
    if isinstance(loop, GSI):
        yield from (((*p.prompt, *p.reference), len(p.prompt)) for p in loop.start.problems)
