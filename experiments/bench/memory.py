"""How far memory rises in a forward and backward pass over a large vocabulary, with all logits at once and in pieces.

    python experiments/bench/memory.py

8 rows of 128 columns, 152,064 words, a Llama of one layer; each in a process of its own.
"""

import resource
import subprocess
import sys

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from rrl.training import reading


def rise(piece: int) -> float:
    """GiB above the peak before the pass."""
    reading.PIECE = piece
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=152064, num_key_value_heads=2, **sizes))
    tokens = torch.randint(4, 1000, (8, 160))
    attention = torch.ones_like(tokens, dtype=torch.bool)

    def step(rows: int, columns: int, first: int) -> int:
        few, real = tokens[:rows, :columns], attention[:rows, :columns]
        reading.read(model, few, real, first, 1.0, pays_entropy=False).logprobs.sum().backward()
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    before = step(1, 3, 1)
    return (step(8, 160, 32) - before) / 2**20


if __name__ == "__main__":
    if sys.argv[1:]:
        print(f"{rise(int(sys.argv[1])):.2f} GiB")
    else:
        for name, piece in (("all at once", 2**50), ("in pieces", reading.PIECE)):
            print(name, subprocess.check_output([sys.executable, __file__, str(piece)], text=True).strip())
