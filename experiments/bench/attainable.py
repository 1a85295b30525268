"""What torch's kernels leave of a step of ``bench.py``'s work: the least time of its products, attention and memory.

    python experiments/bench/attainable.py

Every matrix product and every attention of the step is timed by itself at its shape, the best of many, with nothing in
between. All that lies between them (norms, rotations, activations, residuals, their gradients) counts as if it were
fused into passes over memory: one that reads each input once and writes each output once, at the rate of ``torch.add``
on tensors of that size. No dispatch, no optimiser, no loss, no sampling. A step of the same networks by torch's
kernels in float32 cannot be shorter; ``bench.py`` tells how long it is.
"""

import time
from collections.abc import Callable
from typing import Any

import bench
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

HIDDEN, LAYERS, HEADS, WIDE, WORDS = bench.SIZES["hidden"], bench.SIZES["layers"], 4, 512, 64
PROMPT, RESPONSE, ROWS = bench.SIZES["prompt"], bench.SIZES["response"], bench.SIZES["rollouts"]
LAYER = 4 * [(HIDDEN, HIDDEN)] + 2 * [(HIDDEN, WIDE)] + [(WIDE, HIDDEN)]
"""The products of a layer: width before and after."""
FORWARD, BACKWARD = 26, 52
"""Tensors of [tokens, hidden] that the rest of a layer reads or writes.

Forward: two norms 2 each, rotation of queries and keys 4, two residuals 3 each, the activation 3 of four times the
width, read as 12. Backward: as many gradients, and what was saved is read again: twice as many.
"""


def best(work: Callable[[], Any], seconds: float = 0.3) -> float:
    """Seconds of one call: the least of as many as fit."""
    least, end, calls = 1e9, time.perf_counter() + seconds, 0
    while time.perf_counter() < end or calls < 9:  # the first call of a kind may take a second
        calls += 1
        begin = time.perf_counter()
        work()
        least = min(least, time.perf_counter() - begin)
    return least


def product(rows: int, width: int, out: int, learns: bool) -> float:
    """Seconds of [rows, width] x [width, out], and of the gradients of both."""
    left, right, gradient = torch.randn(rows, width), torch.randn(out, width), torch.randn(rows, out)
    found = best(lambda: left @ right.T)
    return found + (best(lambda: gradient @ right) + best(lambda: gradient.T @ left) if learns else 0.0)


def attention(rows: int, queries: int, keys: int, learns: bool) -> float:
    """Seconds of one layer's attention, and of its gradient."""
    q, k, v = (torch.randn(rows, HEADS, n, HIDDEN // HEADS, requires_grad=learns) for n in (queries, keys, keys))

    def work() -> None:
        seen: Tensor = scaled_dot_product_attention(q, k, v, is_causal=queries > 1)
        if learns:
            seen.backward(torch.ones_like(seen))

    return best(work)


def memory(tokens: int, tensors: int) -> float:
    """Seconds to read or write so many tensors of [tokens, hidden]."""
    a, b, c = (torch.randn(tokens, HIDDEN) for _ in range(3))
    return best(lambda: torch.add(a, b, out=c)) * tensors / 3


def network(rows: int, queries: int, keys: int, words: int, learns: bool) -> float:
    """Seconds of a pass over ``rows`` rows; ``words`` positions of each reach the head."""
    tokens, tensors = rows * queries, FORWARD + (BACKWARD if learns else 0)
    products = {shape: product(tokens, *shape, learns) for shape in set(LAYER)}
    layer = sum(products[shape] for shape in LAYER) + attention(rows, queries, keys, learns) + memory(tokens, tensors)
    return LAYERS * layer + product(rows * words, HIDDEN, WORDS, learns)


def main() -> None:
    torch.set_num_threads(bench.THREADS)
    length = PROMPT + RESPONSE - 1
    steps = [network(ROWS, 1, keys, 1, False) for keys in range(PROMPT + 4, length, 8)]  # every eighth token
    generation = network(ROWS, PROMPT, PROMPT, 1, False) + sum(steps) / len(steps) * (RESPONSE - 1)
    read = ROWS // bench.SIZES["minibatch"] * network(bench.SIZES["minibatch"], length, length, RESPONSE, False)
    learnt = ROWS // bench.SIZES["minibatch"] * network(bench.SIZES["minibatch"], length, length, RESPONSE, True)
    print(f"generation {generation:.2f} s, a reading pass {read:.2f} s, a training pass {learnt:.2f} s of a network")
    print(f"PPO (two networks read, two trained): {generation + 2 * read + 2 * learnt:.2f} s")
    print(f"GRPO (one trained): {generation + learnt:.2f} s")


if __name__ == "__main__":
    main()
