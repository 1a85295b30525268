"""Steps, decoding and memory of random Qwen2.5 shapes on one GPU, in bfloat16, beside what the card was measured to do.

    python experiments/bench/gpu.py             # 8 minutes at most; needs one card of 80 GiB, and no network
    python experiments/bench/gpu.py --tiny      # the same on a CPU with tiny sizes: shows that it runs

``steps``: PPO (actor, critic, reference) and GRPO (8 responses a prompt) on 256 rows of 256 + 512 tokens: seconds by
phase, new and trained tokens a second, and the counted arithmetic of the update (2 operations a parameter and token
forward, 6 with the backward pass) over the rate of a large matrix product. ``decoding``: seconds of one more token for
64 rows by either engine, and the bytes it reads (weights, and the keys and values so far) over the bandwidth of a large
copy. ``logits``: a forward and backward pass of 8 rows with logits in pieces and all at once. Writes
``experiments/results/bench/<card>.json`` after every part, so that what was measured before a limit is kept; a tiny run
only prints.
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import bench
import torch
import work

from rrl.parts.engines.hf import HFEngine
from rrl.parts.engines.static import StaticHF
from rrl.training import reading
from rrl.training.prepared import FrozenSource
from rrl.types import Example, Problem, State

SHAPES = {
    "0.5B": dict(hidden_size=896, intermediate_size=4864, num_hidden_layers=24, num_attention_heads=14),
    "1.5B": dict(hidden_size=1536, intermediate_size=8960, num_hidden_layers=28, num_attention_heads=12),
    "tiny": dict(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4),
}
PARTS = {
    "task/work.yaml": "# @package _global_\ntask: {{_target_: work.Work, problems: 1024, words: {words}}}\n"
    'data:\n  name: work\n  plain_template: "{{question}}"\n  max_prompt_length: {prompt}\n'
    "  max_response_length: {response}\n  level_weights: null\n  cut_points: token\n",
    "model/bench.yaml": "# @package _global_\nmodel: {model}\n",
}


class Sizes(NamedTuple):
    """Of the work: ``rows`` a step, of which 8 have a prompt in common for GRPO; ``few`` rows are decoded."""

    shapes: tuple[str, ...]
    words: int
    prompt: int
    response: int
    rows: int
    few: int
    micro: int
    steps: int


CARD = Sizes(("0.5B", "1.5B"), 151_932, prompt=256, response=512, rows=256, few=64, micro=8, steps=2)
TINY = Sizes(("tiny",), 2_044, prompt=16, response=16, rows=16, few=4, micro=4, steps=1)
ALGORITHMS = {"ppo": ("algo=ppo", 2), "grpo": ("algo=ppo objective=grpo trainer.n=8", 1)}
"""Overrides, and how many networks are trained."""
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def seconds(act: Callable[[], Any]) -> float:
    """Of the faster of two runs."""
    best = float("inf")
    for _ in range(2):
        _wait()
        begin = time.perf_counter()
        act()
        _wait()
        best = min(best, time.perf_counter() - begin)
    return best


def _wait() -> None:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def card() -> dict[str, float]:
    """Operations a second of a bfloat16 matrix product, bytes a second of a copy (read and written)."""
    size = 8192 if DEVICE.type == "cuda" else 512
    a, b = (torch.randn(size, size, device=DEVICE, dtype=torch.bfloat16) for _ in range(2))
    block = torch.empty(2**30 if DEVICE.type == "cuda" else 2**26, dtype=torch.uint8, device=DEVICE)
    other = torch.empty_like(block)
    return {
        "matrix_flops": 10 * 2 * size**3 / seconds(lambda: [a @ b for _ in range(10)]),
        "bandwidth": 10 * 2 * len(block) / seconds(lambda: [other.copy_(block) for _ in range(10)]),
    }


def described(shape: str, sizes: Sizes) -> dict[str, int]:
    """The arguments of ``work.Qwen2``."""
    lengths = {"max_prompt_length": sizes.prompt, "max_response_length": sizes.response}
    return {**SHAPES[shape], "num_key_value_heads": 2, **lengths}


def model(shape: str, sizes: Sizes) -> Any:
    """A random model on the device, and its tokenizer."""
    loaded = work.Qwen2(**described(shape, sizes)).load(tuple(f"w{i}" for i in range(sizes.words)))
    return loaded.model.to(DEVICE, torch.bfloat16).eval(), loaded.tokenizer


def body(shape: str) -> int:
    """Parameters of the layers, without the embedding."""
    s = SHAPES[shape]
    wide, heads = s["hidden_size"], s["num_attention_heads"]
    attention = 2 * wide**2 + 4 * wide * (wide // heads)  # two heads of keys and two of values
    return s["num_hidden_layers"] * (attention + 3 * wide * s["intermediate_size"])


def step(shape: str, algorithm: str, sizes: Sizes, rates: dict[str, float]) -> dict[str, Any]:
    """A training step by phase."""
    overrides, trained = ALGORITHMS[algorithm]
    starts = sizes.rows // (8 if "n=8" in overrides else 1)
    common = (
        f"task=work model=bench warmstart=none {overrides} engine=static engine.batch_size={sizes.rows} "
        f"trainer.train_batch_size={starts} trainer.ppo_epochs=1 trainer.ppo_mini_batch_size={sizes.rows // 4} "
        f"policy.micro_batch_size={sizes.micro} policy.dtype=bfloat16 policy.actor_lr=1e-6 evaluation.limit=1 "
        f"run.test_freq=null run.rollout_freq=null run.save_freq=null trainer.total_training_steps={sizes.steps + 1}"
    ).split()
    target = {"_target_": "work.Qwen2"} | described(shape, sizes)
    fields = {"words": sizes.words, "prompt": sizes.prompt, "response": sizes.response, "model": json.dumps(target)}
    with tempfile.TemporaryDirectory() as folder:
        parts = bench.written(folder, {name: text.format(**fields) for name, text in PARTS.items()})
        _, steps = bench.run(common, parts)
    phases = {name: bench.median(f"timing_s/{name}", steps) for name in bench.PHASES}
    new, tokens = sizes.rows * sizes.response, sizes.rows * (sizes.prompt + sizes.response)
    head = SHAPES[shape]["hidden_size"] * sizes.words
    operations = 6 * (trained * body(shape) * tokens + head * new)
    return {
        "name": f"{algorithm}_{shape}", "phases": phases, "step": bench.median("timing_s/step", steps),
        "new_tokens_per_s": new / phases["gen"], "trained_tokens_per_s": trained * tokens / phases["update_actor"],
        "update_utilisation": operations / phases["update_actor"] / rates["matrix_flops"],
        "peak_gib": {name: bench.median(f"perf/max_memory/{name}", steps) for name in ("gen", "update_actor")},
    }  # fmt: skip


def decoding(shape: str, sizes: Sizes, rates: dict[str, float]) -> list[dict[str, Any]]:
    """Seconds of one more token of all rows, from runs of two lengths, by either engine."""
    language_model, tokenizer = model(shape, sizes)
    tokens = torch.randint(4, sizes.words, (sizes.few, sizes.prompt)).tolist()
    states = [State(Problem(Example(str(i), "", "", "", ""), tuple(row), ())) for i, row in enumerate(tokens)]
    short, long = sizes.response // 16, sizes.response // 4
    weights = sum(weight.numel() for weight in language_model.parameters()) * 2
    s = SHAPES[shape]
    cache = s["num_hidden_layers"] * 2 * 2 * (s["hidden_size"] // s["num_attention_heads"]) * 2
    moved = weights + sizes.few * (sizes.prompt + (short + long) / 2) * cache
    rows = []
    for kind in (HFEngine, StaticHF):
        times = []
        for length in (short, long):
            engine = kind(temperature=1.0, max_response_length=length, stop=(), batch_size=sizes.few)
            engine.start(FrozenSource(language_model), tokenizer, seed=0)
            times.append(seconds(lambda engine=engine: engine.generate(states)))
        a_token = (times[1] - times[0]) / (long - short)
        rows.append(
            {"name": f"decode_{kind.__name__}_{shape}", "rows": sizes.few, "seconds_a_token": a_token,
             "tokens_per_s": sizes.few / a_token, "bandwidth_share": moved / a_token / rates["bandwidth"]}
        )  # fmt: skip
    return rows


def logits(shape: str, sizes: Sizes) -> list[dict[str, Any]]:
    """A forward and backward pass of a micro-batch with logits in pieces and all at once; the peak on a GPU alone."""
    language_model, _ = model(shape, sizes)
    tokens = torch.randint(4, sizes.words, (sizes.micro, sizes.prompt + sizes.response), device=DEVICE)
    real, rows, usual = torch.ones_like(tokens, dtype=torch.bool), [], reading.PIECE

    def both_ways() -> None:
        language_model.zero_grad()
        read = reading.read(language_model, tokens, real, sizes.prompt, 1.0, pays_entropy=False)
        read.logprobs.sum().backward()

    for name, piece in (("pieces", usual), ("at_once", 2**60)):
        reading.PIECE = piece
        if DEVICE.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        took = seconds(both_ways)
        peak = torch.cuda.max_memory_allocated() / 2**30 if DEVICE.type == "cuda" else None
        rows.append({"name": f"logits_{name}_{shape}", "seconds": took, "peak_gib": peak})
    reading.PIECE = usual
    return rows


def main(tiny: bool) -> None:
    """Measure, print every row, and write the file."""
    if DEVICE.type == "cpu" and not tiny:
        raise SystemExit("no GPU here; --tiny runs all parts on a CPU with tiny sizes")
    sizes = TINY if tiny else CARD
    name = torch.cuda.get_device_name() if DEVICE.type == "cuda" else "CPU, tiny sizes"
    target = bench.TARGET.with_name(f"{name.replace(' ', '-')}.json")
    rates = card()
    result: dict[str, Any] = (
        {"machine": name, "torch": torch.__version__} | rates | {"sizes": sizes._asdict(), "rows": []}
    )
    print(f"{name}: {rates['matrix_flops'] / 1e12:.1f} TFLOP/s, {rates['bandwidth'] / 1e9:.0f} GB/s", flush=True)

    def keep(rows: list[dict[str, Any]]) -> None:
        result["rows"] += rows
        print(*map(json.dumps, rows), sep="\n", flush=True)
        if not tiny:
            target.write_text(json.dumps(result, indent=1) + "\n")

    for shape in sizes.shapes:
        keep(decoding(shape, sizes, rates))
        keep(logits(shape, sizes))
        torch.cuda.empty_cache()  # for the processes of the steps
        for algorithm in ALGORITHMS:
            keep([step(shape, algorithm, sizes, rates)])


if __name__ == "__main__":
    main("--tiny" in sys.argv[1:])
