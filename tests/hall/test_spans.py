"""Where tokens stand in a text: exact under byte-level, sentencepiece-like and word-level tokenizers."""

import random
from itertools import pairwise
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from fixtures.programs import Characters
from rrl.spans import token_spans, tokens_over

TEXTS = [
    "def f(x):\n    return x ** 2\n\nprint(f(3))\n", "a = 'naïve café'  # 漢字 and 😀😀\nb = \"\t\"\r\nprint(a, b)",
    "   indented", "\n\n\n", "x", "👩‍👩‍👧 zwj", "a  b   c    d",
    "if a:\n\tb\nelse :\n  c . d , e ! n't 's\n", "éé漢é😀é",
]  # fmt: skip


def byte_level() -> PreTrainedTokenizerFast:
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, special_tokens=["</s>"])
    raw.train_from_iterator(["def return print indented else " * 9], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="</s>")


def sentencepiece() -> PreTrainedTokenizerFast:
    """As Llama's: blanks become a mark, unknown characters bytes, and a first blank is dropped."""
    words = {"</s>": 0, "<unk>": 1, **{f"<0x{byte:02X}>": 2 + byte for byte in range(256)}}
    pieces = ["▁", "▁def", "▁return", "print", "▁print", *"abcdefxnrtp():.,'"]
    words |= {piece: 258 + number for number, piece in enumerate(dict.fromkeys(pieces))}
    merges = [("▁", "d"), ("▁d", "e"), ("▁de", "f")]
    words |= {left + right: len(words) + i for i, (left, right) in enumerate(merges) if left + right not in words}
    raw = Tokenizer(models.BPE(vocab=words, merges=merges, unk_token="<unk>", byte_fallback=True))
    raw.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    raw.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="</s>", unk_token="<unk>")


def metaspace() -> PreTrainedTokenizerFast:
    raw = Tokenizer(models.Unigram())
    raw.pre_tokenizer, raw.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=200, unk_token="<unk>", special_tokens=["</s>", "<unk>"])
    raw.train_from_iterator([*TEXTS, "def f(x): return x print indented " * 9], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="</s>", unk_token="<unk>")


def words(**settings: Any) -> PreTrainedTokenizerFast:
    names = ["</s>", "<unk>", *sorted({word for text in TEXTS for word in text.split()}), "."]
    raw = Tokenizer(models.WordLevel({word: i for i, word in enumerate(dict.fromkeys(names))}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="</s>", unk_token="<unk>", **settings)


TOKENIZERS = {
    "bytes": byte_level(), "sentencepiece": sentencepiece(), "metaspace": metaspace(), "words": words(),
    "tidied words": words(clean_up_tokenization_spaces=True),
}  # fmt: skip


def by_prefixes(tokens: list[int], text: str, decode: Any) -> list[tuple[int, int]]:
    """The definition, word by word: every beginning decoded whole."""
    spans, reached = [], 0
    for count in range(1, len(tokens) + 1):
        so_far = decode(tokens[:count])
        agreed = next(
            (i for i, (a, b) in enumerate(zip(so_far, text, strict=False)) if a != b), min(len(so_far), len(text))
        )
        end = max(reached, agreed)
        spans.append((reached, end if agreed == len(so_far) else min(end + 1, len(text))))
        reached = end
    return spans


def checked(tokens: list[int], name: str) -> list[tuple[int, int]]:
    """The span of each token, which together are right."""
    decode = TOKENIZERS[name].decode
    text = decode(tokens)
    spans = token_spans(tokens, text, decode)
    covered = {place for first, last in spans for place in range(first, last)}
    if name != "sentencepiece" or "\ufffd" not in text:
        assert spans == by_prefixes(tokens, text, decode)
    assert covered == set(range(len(text))), "every character has a token"
    assert all(a[0] <= b[0] and a[1] <= b[1] for a, b in pairwise(spans)), "in order"
    return spans


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("text", TEXTS)
def test_a_text_is_shared_out_among_its_tokens(name: str, text: str) -> None:
    tokens = TOKENIZERS[name].encode(text, add_special_tokens=False)
    assert len(checked(tokens, name)) == len(tokens)


@pytest.mark.parametrize("name", TOKENIZERS)
def test_so_is_whatever_a_model_may_write(name: str) -> None:
    rng = random.Random(0)
    for _ in range(60):
        tokens = [rng.randrange(1, len(TOKENIZERS[name])) for _ in range(rng.randrange(1, 40))]
        assert len(checked(tokens, name)) == len(tokens)


def test_the_bytes_of_a_character_all_stand_for_it() -> None:
    tokens = TOKENIZERS["bytes"].encode("a😀b")
    assert token_spans(tokens, "a😀b", TOKENIZERS["bytes"].decode) == [(0, 1), *[(1, 2)] * 4, (2, 3)]


def test_a_blank_belongs_to_the_word_after_it() -> None:
    tokens = TOKENIZERS["words"].encode("return x")
    assert token_spans(tokens, "return x", TOKENIZERS["words"].decode) == [(0, 6), (6, 8)]


def test_an_end_token_lies_at_the_end() -> None:
    tokenizer = TOKENIZERS["bytes"]
    tokens = [*tokenizer.encode("ab"), tokenizer.eos_token_id]
    assert token_spans(tokens, "ab", tokenizer.decode) == [(0, 1), (1, 2), (2, 2)]


def test_a_part_of_a_text_has_the_tokens_that_touch_it() -> None:
    spans = token_spans([ord(c) for c in "abcd"], "abcd", Characters().decode)
    assert (tokens_over(spans, 1, 3), tokens_over(spans, 2, 2), tokens_over([(0, 3), (3, 5)], 2, 4)) == (
        [1, 2],
        [],
        [0, 1],
    )


@pytest.mark.parametrize("name", TOKENIZERS)
def test_the_work_grows_with_the_length(name: str) -> None:
    decoded, tokenizer = 0, TOKENIZERS[name]

    def decode(tokens: list[int]) -> str:
        nonlocal decoded
        decoded += len(tokens)
        return tokenizer.decode(tokens)

    tokens = tokenizer.encode("def print é\n 漢" * 200, add_special_tokens=False)
    token_spans(tokens, tokenizer.decode(tokens), decode)
    assert decoded <= 12 * len(tokens)
