"""A Qwen2-shaped model with random weights and a byte-level tokenizer trained on a data file, in the hub's format.

usage: model.py TEXT_FILE FOLDER [HIDDEN LAYERS HEADS KV_HEADS INTERMEDIATE]    default: the shape of Qwen2.5-0.5B
"""

import sys
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM, set_seed


def main(text: str, folder: str, *shape: str) -> None:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=8192, special_tokens=["<pad>", "<eos>"], initial_alphabet=alphabet)
    tokenizer.train_from_iterator(Path(text).read_text(encoding="utf-8").split("\n"), trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>")
    fast.save_pretrained(folder)
    hidden, layers, heads, kv_heads, intermediate = map(int, shape or (896, 24, 14, 2, 4864))
    set_seed(0)
    config = Qwen2Config(
        vocab_size=8256, hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads,
        num_key_value_heads=kv_heads, intermediate_size=intermediate, max_position_embeddings=2048,
        tie_word_embeddings=True, pad_token_id=0, eos_token_id=1, bos_token_id=None, dtype="float32",
    )  # fmt: skip
    model = Qwen2ForCausalLM(config)
    model.save_pretrained(folder)
    print(f"{folder}: {model.num_parameters() / 1e6:.0f} million parameters, {config.vocab_size} tokens")


main(*sys.argv[1:])
