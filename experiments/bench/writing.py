"""Generation of uneven responses, and from half-written ones: seconds of the static engine beside its alternatives.

    python experiments/bench/writing.py

The model is that of ``bench.py``. ``uneven``: 512 responses whose lengths are geometric with a mean of a quarter of the
limit of 64 tokens, against transformers' ``generate``, which writes batches of 128 until their longest row ends; tokens
are those before the end. ``prefix``: 128 responses of 64 tokens of which half are given, against writing all of them.
Medians of five, taken in turn, are printed and put into the file that ``bench.py`` writes.
"""

import math
import statistics
import time
from collections.abc import Callable
from typing import Any

import bench
import torch
import work

from rrl.parts.engines.static import StaticHF
from rrl.training.prepared import FrozenSource
from rrl.types import Example, Problem, State

LIMIT, ROWS, BATCH, EOS = 64, 512, 128, 2


def ends_with(probability: float) -> Any:
    """A hook by which every token ends the response with this probability."""

    def hook(module: torch.nn.Module, inputs: Any, logits: torch.Tensor) -> torch.Tensor:
        others = logits.index_fill(-1, torch.tensor([EOS]), float("-inf")).logsumexp(-1, keepdim=True)
        end = others + (math.log(probability / (1 - probability)) if probability else float("-inf"))
        return torch.cat([logits[..., :EOS], end, logits[..., EOS + 1 :]], dim=-1)

    return hook


def model(probability: float) -> Any:
    """The benchmark's model and tokenizer, with responses that end with this probability at every token."""
    loaded = work.Llama(hidden_size=128, num_hidden_layers=4).load(tuple(f"w{i}" for i in range(60)))
    loaded.model.lm_head._forward_hooks.clear()
    loaded.model.lm_head.register_forward_hook(ends_with(probability))
    return loaded.model.eval(), loaded.tokenizer


def states(rows: int, prefix: int) -> list[State]:
    """Random prompts of 32 tokens with random beginnings of responses."""
    tokens = torch.randint(4, 64, (rows, 32 + prefix), generator=torch.Generator().manual_seed(0)).tolist()
    problems = [Problem(Example(str(i), "", "", "", ""), tuple(row[:32]), ()) for i, row in enumerate(tokens)]
    return [State(problem, tuple(row[32:])) for problem, row in zip(problems, tokens, strict=True)]


def static(language_model: Any, tokenizer: Any, rows: list[State]) -> int:
    """Write with the static engine; returns the number of new tokens."""
    engine = StaticHF(temperature=1.0, max_response_length=LIMIT, stop=(), batch_size=BATCH)
    engine.start(FrozenSource(language_model), tokenizer, seed=0)
    return sum(len(rollout.actions) for rollout in engine.generate(rows))


def generate(language_model: Any, rows: list[State]) -> int:
    """Write with transformers; returns the number of new tokens up to the ends."""
    tokens = 0
    for begin in range(0, len(rows), BATCH):
        prompts = torch.tensor([state.problem.prompt for state in rows[begin : begin + BATCH]])
        ones = torch.ones_like(prompts)
        whole = language_model.generate(
            prompts, attention_mask=ones, do_sample=True, max_new_tokens=LIMIT, top_k=0, top_p=1.0, pad_token_id=0
        )
        tokens += int((whole[:, 32:] != 0).sum())
    return tokens


def per_token(write: Callable[[], int]) -> float:
    """Seconds a token."""
    begin = time.perf_counter()
    tokens = write()
    return (time.perf_counter() - begin) / tokens


def seconds(write: Callable[[], int]) -> float:
    """Seconds of all tokens."""
    begin = time.perf_counter()
    write()
    return time.perf_counter() - begin


def main() -> None:
    """Measure, print, and add two rows to the file."""
    torch.set_num_threads(bench.THREADS)
    torch.manual_seed(0)
    ending, words = model(4 / LIMIT)
    endless, _ = model(0.0)
    fresh, begun = states(BATCH, 0), states(BATCH, LIMIT // 2)
    uneven = states(ROWS, 0)
    runs: dict[str, tuple[Callable[[], float], Callable[[], float]]] = {
        "uneven_seconds_a_token": (
            lambda: per_token(lambda: static(ending, words, uneven)),
            lambda: per_token(lambda: generate(ending, uneven)),
        ),
        "half_prefix_seconds": (
            lambda: seconds(lambda: static(endless, words, begun)),
            lambda: seconds(lambda: static(endless, words, fresh)),
        ),
    }
    rows = []
    for name, pair in runs.items():
        for measure in pair:
            measure()  # warms up
        times = [[measure() for measure in pair] for _ in range(5)]
        ours, other = (statistics.median(column) for column in zip(*times, strict=True))
        rows.append({"name": name, "ours": ours, "peer": other, "ratio": other / ours})
        print(f"{name}: {ours:.3g} s, against {other:.3g} s: ratio {other / ours:.2f}")
    bench.record(rows)


if __name__ == "__main__":
    main()
