"""The tokenizer of a tiny model, and both as a plan needs them: without transformers, whose import takes seconds."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

SPECIALS = ("<pad>", "<bos>", "<eos>", "<unk>")
"""The first tokens, by number."""


def tokenizer(words: tuple[str, ...] | None) -> Any:
    """Of a closed vocabulary, whose words stand between white space, or of bytes; as one of transformers."""
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=_encoder(words), pad_token="<pad>", bos_token="<bos>", eos_token="<eos>", unk_token="<unk>",
        split_special_tokens=True,  # "<eos>" in a text is text
    )  # fmt: skip


def _encoder(words: tuple[str, ...] | None) -> Any:
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from tokenizers.processors import TemplateProcessing

    tokens = (*SPECIALS, *(words or sorted(pre_tokenizers.ByteLevel.alphabet())))
    vocabulary = {token: number for number, token in enumerate(tokens)}
    if words is None:
        encoder = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>"))
        encoder.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        encoder.decoder = decoders.ByteLevel()
    else:
        encoder = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
        separate = r"\n|\S+" if "\n" in words else r"\S+"  # a line's end can be a word, other white space cannot
        encoder.pre_tokenizer = pre_tokenizers.Split(Regex(separate), "removed", invert=True)
    encoder.post_processor = TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", vocabulary["<bos>"])])
    return encoder


class TokenizerSketch:
    """The same tokenizer for lists of texts; whatever else is asked of it, it asks that of transformers."""

    eos_token_id = SPECIALS.index("<eos>")

    def __init__(self, words: tuple[str, ...] | None) -> None:
        self._words, self._encoder = words, _encoder(words)

    def __len__(self) -> int:
        return int(self._encoder.get_vocab_size())

    def __call__(self, texts: Sequence[str], *, add_special_tokens: bool = True, **others: Any) -> Any:
        if isinstance(texts, str) or others:
            return self._whole(texts, add_special_tokens=add_special_tokens, **others)
        rows = self._encoder.encode_batch(texts, add_special_tokens=add_special_tokens)
        return Encoded(input_ids=[row.ids for row in rows], attention_mask=[row.attention_mask for row in rows])

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # what copies and pickles look for is not there yet
            raise AttributeError(name)
        return getattr(self._whole, name)

    @cached_property
    def _whole(self) -> Any:
        return tokenizer(self._words)


class Encoded(dict[str, list[list[int]]]):
    """Rows of token numbers by key and as an attribute, as transformers returns them."""

    @property
    def input_ids(self) -> list[list[int]]:
        return self["input_ids"]


class LlamaSketch(nn.Module):
    """The weights of a Llama by shape, on the meta device; ``sizes`` are arguments of its ``LlamaConfig``.

    It cannot be run, and takes no adapters. Layers of torch would fill their weights, which on the meta device imports
    torch's compiler: a second.
    """

    def __init__(self, sizes: Mapping[str, int]) -> None:
        super().__init__()
        self.config = SimpleNamespace(**sizes, _attn_implementation="sdpa", get_text_config=self._text_config)
        width, inner, vocabulary = sizes["hidden_size"], sizes["intermediate_size"], sizes["vocab_size"]
        layer = [*[(width, width)] * 4, *[(inner, width)] * 2, (width, inner), *[(width,)] * 2]
        layers = [_weight(*shape) for shape in [*layer * sizes["num_hidden_layers"], (width,)]]
        self.trunk = nn.ModuleList([_embedding(vocabulary, width), nn.ParameterList(layers)])
        self.output = _embedding(vocabulary, width)

    def _text_config(self, **of: Any) -> Any:
        return self.config

    def get_input_embeddings(self) -> nn.Module:
        return self.trunk[0]

    def get_output_embeddings(self) -> nn.Module:
        return self.output


def _weight(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.empty(shape, device="meta"))


def _embedding(vocabulary: int, width: int) -> nn.Module:
    made: nn.Module = nn.Embedding.from_pretrained(_weight(vocabulary, width), freeze=False)
    return made
