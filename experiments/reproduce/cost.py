"""What reproductions cost: memory by the plan of rrl-train, hours calculated, not measured: the table of docs/reproduction.md.

    python experiments/reproduce/cost.py DATA     # a folder that holds gsm8k/, math/, apps/ and hh-rlhf/

Models are built by their shape; weights and hub are not needed. APPS stands for APPS+, whose lengths are set alike. Hours
follow docs/scaling.md with its assumptions: responses are on average half as long as their limit, and a step writes as
long as its longest, which reaches the limit.
"""

import json
import logging
import sys
import tempfile
from math import ceil
from pathlib import Path
from typing import Any

from rrl.config.check import load
from rrl.preflight.plan import plan
from rrl.training.models import TinyLlama

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bench"))
from scaling import CARD, LAUNCH  # noqa: E402

LLAMA = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "max_position_embeddings": 4096}
QWEN = {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "max_position_embeddings": 4096}
SHAPES = {
    "microsoft/rho-math-1b-v0.1": (LLAMA, 2048, 5632, 22, 32, 4, 32000, False),
    "deepseek-ai/deepseek-math-7b-base": (LLAMA, 4096, 11008, 30, 32, 32, 102400, False),
    "deepseek-ai/deepseek-coder-1.3b-instruct": (LLAMA, 2048, 5504, 24, 16, 16, 32256, False),
    "deepseek-ai/deepseek-coder-6.7b-instruct": (LLAMA, 4096, 11008, 32, 32, 32, 32256, False),
    "Qwen/Qwen2.5-1.5B": (QWEN, 1536, 8960, 28, 12, 2, 151936, True),
    "Qwen/Qwen2.5-7B": (QWEN, 3584, 18944, 28, 28, 4, 152064, False),
    "Qwen/Qwen2.5-0.5B": (QWEN, 896, 4864, 24, 14, 2, 151936, True),
}
"""Hidden and inner size, layers, heads, heads of keys, vocabulary, shared embeddings: of the published config.json."""
DATA = {"gsm8k": "gsm8k", "math": "math", "code": "apps", "dialogue": "hh-rlhf"}
MICRO = {"gsm8k": 4, "math": 4, "code": 2, "dialogue": 4}
"""Rows of a micro-batch on a card of 24 GiB."""
INSTEAD = {
    "code": ["task=apps", "data.max_prompt_length=1024", "data.max_response_length=512", "template=plain"],
    "dialogue": ["task.split_rows=8", "reward_model=sequence", "reward_model.path=any"],
}
"""What stands for data and models that are not here."""
GIB = 2**30


def main() -> None:
    """The table, as Markdown."""
    logging.disable()
    print("| task | model, cards | PPO: largest phase | main memory for loading | disk | hours a run |")
    print("| --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        for task in DATA:
            small = [f"experiment=[reproduce/{task}/small,reproduce/ppo]"]
            less = ["model.path=Qwen/Qwen2.5-0.5B", f"policy.micro_batch_size={MICRO[task]}"]
            for given in ([*small, *less], small, [f"experiment=[reproduce/{task}/paper,reproduce/ppo]"]):
                print(_row(task, given, Path(sys.argv[1]), Path(folder)), flush=True)


def _row(task: str, given: list[str], data: Path, folder: Path) -> str:
    more = INSTEAD.get(task, [])
    path = next(iter(sorted((data / DATA[task]).glob("train_subset*"))), data / DATA[task])
    name = load("train", [*given, *more], starting=())[0]["model"]["path"]
    given = [text for text in given if not text.startswith("model.path=")]
    places = [f"data.path={path}", f"model.path={_shape(name, folder)}"]
    config, parts = load("train", [*given, *more, *places], starting=())
    planned = plan(config, parts)
    needed = {phase.name: sum(phase.parts.values()) / GIB for phase in planned.phases}
    largest = max((size, phase) for phase, size in needed.items() if phase not in ("loading", "save_checkpoint"))
    cards = parts.launcher.processes
    hours = _hours(config, name, cards)
    return (
        f"| {task} | {name}, {cards} | `{largest[1]}`, {largest[0]:.0f} GiB a card | {needed['loading'] * cards:.0f} GiB "
        f"| {planned.disk.total / GIB:.0f} GiB | {hours:.0f} |"
    )


def _shape(name: str, folder: Path) -> Path:
    """A folder with the model's config.json and a tokenizer of bytes."""
    kind, hidden, inner, layers, heads, keys, vocabulary, tied = SHAPES[name]
    place = folder / name.replace("/", "-")
    tiny = TinyLlama(hidden_size=32, num_hidden_layers=1, start_seed=0, max_prompt_length=8, max_response_length=8)
    tiny.load(None).tokenizer.save_pretrained(place)
    sizes = {
        "hidden_size": hidden, "intermediate_size": inner, "num_hidden_layers": layers, "num_attention_heads": heads,
        "num_key_value_heads": keys, "vocab_size": vocabulary, "tie_word_embeddings": tied, "eos_token_id": 2,
    }  # fmt: skip
    (place / "config.json").write_text(json.dumps({**kind, **sizes}))
    return place


def _hours(config: dict[str, Any], name: str, cards: int) -> float:
    """Of a PPO run: writing, the passes of actor, critic and reference, and two epochs over actor and critic."""
    _, hidden, inner, layers, heads, keys, vocabulary, tied = SHAPES[name]
    width = hidden // heads * keys
    parameters = layers * hidden * (2 * hidden + 2 * width + 3 * inner) + (2 - tied) * vocabulary * hidden
    data, trainer = config["data"], config["trainer"]
    response, prompt = data["max_response_length"], data["max_prompt_length"] / 2
    rows = trainer["train_batch_size"] * trainer["n"]
    steps = trainer["total_tokens"] / (rows * response / 2)
    places = min(config["engine"]["batch_size"], ceil(rows / cards))
    moved = 2 * parameters + places * (prompt + response / 2) * layers * 2 * width * 2
    token = max(LAUNCH, moved / (CARD.bandwidth * CARD.read))
    writing = ceil(rows / cards / places) * response * token
    passes = (3 * 2 + 2 * 6 * trainer["ppo_epochs"]) * parameters * rows / cards * (prompt + response / 2)
    return steps * (writing + passes / (CARD.flops * CARD.trained)) / 3600


if __name__ == "__main__":
    main()
