"""Models and tokenizers: what is built in code, what is read from a folder, and what is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models
from transformers import (
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from rrl.errors import DataError
from rrl.training.models import HuggingFace, LoadedModel, TinyLlama, check_tokenizer, sound_generation
from rrl.training.tokens import embedded, refuse_beyond

SIZES: dict[str, Any] = {
    "hidden_size": 16, "num_hidden_layers": 1, "max_prompt_length": 32, "max_response_length": 32, "start_seed": 0,
}  # fmt: skip
WORDS = ("1", "2", "=", "add3")
BYTES = TinyLlama(**SIZES).load(None)
CLOSED = TinyLlama(**SIZES).load(WORDS)


def from_folder(path: object, **changes: Any) -> LoadedModel:
    keys = {"revision": None, "attention": "sdpa", "trust_remote_code": False}
    return HuggingFace(path=str(path), **{**keys, **changes}).load(None)


def refusal(path: object, **changes: Any) -> str:
    with pytest.raises(DataError) as caught:
        from_folder(path, **changes)
    assert len(caught.value.faults) == 1
    return str(caught.value.faults[0])


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that transformers can read."""
    folder = tmp_path_factory.mktemp("models") / "saved"
    BYTES.model.save_pretrained(folder)
    BYTES.tokenizer.save_pretrained(folder)
    return folder


# --- tokenizers -------------------------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(st.text())
def test_bytes_round_trip_any_text(text: str) -> None:
    bos, *tokens = BYTES.tokenizer(text).input_ids
    assert BYTES.tokenizer.decode([bos, *tokens], skip_special_tokens=True) == text
    assert bos == 1
    assert len(tokens) == len(text.encode())
    assert not set(tokens) & {0, 1, 2, 3}


@pytest.mark.parametrize("text", ["<eos>", "a<pad> <bos>", " .\n\n don't , x ", "\x00\r\n\u2028"])
def test_names_of_special_tokens_and_odd_blanks_are_text_like_any_other(text: str) -> None:
    tokens = BYTES.tokenizer(text, add_special_tokens=False).input_ids
    assert min(tokens) > 3
    assert BYTES.tokenizer.decode(tokens, skip_special_tokens=True) == text


@given(st.lists(st.sampled_from(WORDS)))
def test_words_round_trip_any_text_of_theirs(words: list[str]) -> None:
    text = " ".join(words)
    tokens = CLOSED.tokenizer(text).input_ids
    assert tokens == [1, *(4 + WORDS.index(word) for word in words)]
    assert CLOSED.tokenizer.decode(tokens, skip_special_tokens=True) == text


def test_a_word_outside_the_vocabulary_is_unknown() -> None:
    assert CLOSED.tokenizer("1 zz 2").input_ids == [1, 4, 3, 5]


@pytest.mark.parametrize(("loaded", "size"), [(BYTES, 260), (CLOSED, 8)])
def test_specials_come_first_and_the_model_embeds_every_token(loaded: LoadedModel, size: int) -> None:
    model, tokenizer = loaded
    assert (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 1, 2)
    assert (len(tokenizer), model.get_input_embeddings().weight.shape[0]) == (size, size)
    assert (model.generation_config.pad_token_id, model.generation_config.eos_token_id) == (0, 2)


# --- the model built in code ------------------------------------------------------------------------------------------


def weights(model: Any) -> dict[str, torch.Tensor]:
    return dict(model.state_dict())


def test_the_same_seed_gives_the_same_weights_and_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    again, other = (TinyLlama(**{**SIZES, "start_seed": seed}).load(None).model for seed in (0, 1))
    assert torch.equal(before, torch.get_rng_state())
    torch.testing.assert_close(weights(again), weights(BYTES.model), rtol=0, atol=0)
    assert not torch.equal(weights(other)["lm_head.weight"], weights(again)["lm_head.weight"])


def test_sizes_and_spread_are_as_asked_for() -> None:
    config = BYTES.model.config
    assert (config.hidden_size, config.num_hidden_layers, config.max_position_embeddings) == (16, 1, 1024)
    assert float(weights(BYTES.model)["lm_head.weight"].std()) == pytest.approx(0.15, rel=0.05)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("hidden_size", -16, "hidden_size: expected at least 1, got -16"),
        ("num_hidden_layers", 0, "num_hidden_layers: expected at least 1, got 0"),
        ("hidden_size", 48, "hidden_size: expected a multiple of 32, or an even number below it, got 48"),
        ("hidden_size", 15, "hidden_size: expected a multiple of 32, or an even number below it, got 15"),
    ],
)
def test_sizes_that_make_no_model_are_refused(key: str, value: float, expected: str) -> None:
    with pytest.raises(ValueError, match=f"^{expected}$"):
        TinyLlama(**{**SIZES, key: value})


# --- a folder ---------------------------------------------------------------------------------------------------------


def test_a_folder_gives_the_same_model_and_tokenizer(saved: Path) -> None:
    model, tokenizer = from_folder(saved)
    torch.testing.assert_close(weights(model), weights(BYTES.model), rtol=0, atol=0)
    assert tokenizer("é <eos>").input_ids == BYTES.tokenizer("é <eos>").input_ids


def test_weights_are_read_in_float32(tmp_path: Path, saved: Path) -> None:
    shutil.copytree(saved, tmp_path / "half")
    TinyLlama(**SIZES).load(None).model.bfloat16().save_pretrained(tmp_path / "half")
    assert {tensor.dtype for tensor in weights(from_folder(tmp_path / "half").model).values()} == {torch.float32}


def test_a_home_folder_may_be_written_with_a_tilde(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(saved.parent))
    assert len(from_folder("~/saved").tokenizer) == 260


def test_tied_weights_and_other_architectures_are_whole(tmp_path: Path) -> None:
    small = {"vocab_size": 260, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    tied = LlamaForCausalLM(LlamaConfig(**small, intermediate_size=32, tie_word_embeddings=True))
    other = GPT2LMHeadModel(GPT2Config(vocab_size=260, n_embd=16, n_layer=1, n_head=2, n_positions=64))
    for number, model in enumerate((tied, other)):
        model.save_pretrained(tmp_path / str(number))
        BYTES.tokenizer.save_pretrained(tmp_path / str(number))
        assert type(from_folder(tmp_path / str(number)).model) is type(model)


def changed(saved: Path, folder: Path, file: str, **values: Any) -> Path:
    """A copy of the folder with values changed in one of its JSON files; None takes a key out."""
    shutil.copytree(saved, folder)
    content = {**json.loads((folder / file).read_text()), **values}
    (folder / file).write_text(json.dumps({key: value for key, value in content.items() if value is not None}))
    return folder


def test_a_tokenizer_without_a_pad_token_gets_its_end_token_for_it(saved: Path, tmp_path: Path) -> None:
    tokenizer = from_folder(changed(saved, tmp_path / "x", "tokenizer_config.json", pad_token=None)).tokenizer
    assert (tokenizer.pad_token, tokenizer.pad_token_id) == ("<eos>", 2)


def test_a_tokenizer_without_an_end_token_is_refused(saved: Path, tmp_path: Path) -> None:
    folder = changed(saved, tmp_path / "x", "tokenizer_config.json", eos_token=None)
    assert refusal(folder) == (
        f"tokenizer of {folder}: has no EOS token, so that no response could end; set eos_token in its "
        "tokenizer_config.json"
    )


def with_added(saved: Path, folder: Path, **specials: str) -> Path:
    """A copy of the folder whose tokenizer has one token more than the model embeds, of any special kinds."""
    shutil.copytree(saved, folder)
    tokenizer = AutoTokenizer.from_pretrained(saved)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image_soft_token>"], **specials})
    tokenizer.split_special_tokens = False
    tokenizer.save_pretrained(folder)
    return folder


def test_a_tokenizer_may_have_a_token_that_the_model_does_not_embed(saved: Path, tmp_path: Path) -> None:
    model, tokenizer = from_folder(with_added(saved, tmp_path / "x"))
    assert (len(tokenizer), embedded(model), tokenizer.pad_token_id) == (261, 260, 0)


def test_a_pad_token_that_is_not_embedded_gives_way_to_the_end_token(saved: Path, tmp_path: Path) -> None:
    tokenizer = from_folder(with_added(saved, tmp_path / "x", pad_token="<image_soft_token>")).tokenizer
    assert (tokenizer.pad_token, tokenizer.pad_token_id) == ("<eos>", 2)


def test_an_end_token_that_is_not_embedded_is_refused(saved: Path, tmp_path: Path) -> None:
    folder = with_added(saved, tmp_path / "x", eos_token="<image_soft_token>")
    assert refusal(folder) == (
        f"tokenizer of {folder}: its EOS token has the number 260 but the model embeds 260; use the tokenizer "
        "the model was trained with"
    )


def test_a_token_beyond_the_embedding_is_refused_where_a_text_uses_it(saved: Path, tmp_path: Path) -> None:
    _, tokenizer = from_folder(with_added(saved, tmp_path / "x"))
    texts = {"a": "none", "b": "look: <image_soft_token>", "c": "<image_soft_token>" * 2}
    rows = [(name, tokenizer(text).input_ids) for name, text in texts.items()]
    refuse_beyond(rows[:1], tokenizer, 260)
    refuse_beyond(rows, tokenizer, 261)
    with pytest.raises(DataError) as caught:
        refuse_beyond(rows, tokenizer, 260)
    reported = (
        "has token 260 ('<image_soft_token>'), but the model embeds 260 tokens; use the tokenizer the model was "
        "trained with, or take it out of the text"
    )
    assert list(caught.value.faults) == [f"b: {reported}", f"c: {reported}"]


def test_only_ten_texts_are_named() -> None:
    rows = [(str(number), (1, 300)) for number in range(12)]
    with pytest.raises(DataError) as caught:
        refuse_beyond(rows, BYTES.tokenizer, 260)
    assert (len(caught.value.faults), caught.value.faults[-1]) == (11, "... and 2 more texts")


def test_a_tokenizer_with_a_hole_between_its_numbers_is_judged_by_what_is_used() -> None:
    vocabulary = {"a": 0, "b": 300, "c": 1}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel(vocabulary, unk_token="a")))
    with pytest.raises(DataError, match="tokenizer of x: has no EOS token"):
        check_tokenizer(tokenizer, BYTES.model, "x")
    tokenizer.eos_token = "c"
    check_tokenizer(tokenizer, BYTES.model, "x")
    assert tokenizer.pad_token_id == 1


# --- generation configs -----------------------------------------------------------------------------------------------

TOKENS = {"bos_token_id": 1, "eos_token_id": [2, 5], "pad_token_id": 0}


@pytest.mark.parametrize("file", ["generation_config.json", "config.json"])
@pytest.mark.parametrize(
    ("values", "written"),
    [
        ({}, {}),
        ({"temperature": 0.6, "do_sample": True}, {"temperature": 0.6, "do_sample": True}),
        ({"repetition_penalty": 1.1}, {"repetition_penalty": 1.1}),
        ({"temperature": 0.6}, {"temperature": 0.6, "do_sample": True}),
        ({"top_p": 0.9, "top_k": 20}, {"top_p": 0.9, "top_k": 20, "do_sample": True}),
        ({"typical_p": 0.5, "do_sample": False}, {"typical_p": 0.5, "do_sample": True}),
        ({"min_p": 0.1}, {"min_p": 0.1, "do_sample": True}),
        ({"epsilon_cutoff": 1e-3}, {"epsilon_cutoff": 1e-3, "do_sample": True}),
        ({"num_return_sequences": 3}, {"num_return_sequences": 3, "do_sample": True}),
        ({"early_stopping": True}, {}),
        ({"length_penalty": 2.0, "num_beams": 1}, {}),
        ({"num_beams": 2, "num_return_sequences": 3}, {}),
        ({"early_stopping": "sometimes"}, {}),
        ({"temperature": 0.6, "early_stopping": True}, {}),
    ],
)
def test_a_model_can_be_saved_whatever_its_generation_config_says(
    file: str, values: dict[str, Any], written: dict[str, Any], saved: Path, tmp_path: Path
) -> None:
    folder = changed(saved, tmp_path / "x", file, **values, eos_token_id=[2, 5])
    if file == "config.json":
        (folder / "generation_config.json").unlink()
    model = from_folder(folder).model
    model.save_pretrained(tmp_path / "again")
    found = json.loads((tmp_path / "again" / "generation_config.json").read_text())
    sampling = {"temperature", "do_sample", "early_stopping", "length_penalty", "max_new_tokens", *values}
    assert {name: found[name] for name in sampling if found.get(name) is not None} == written
    assert {name: found[name] for name in TOKENS} == TOKENS


NONSENSE = [{"cache_implementation": "none such"}, {"pad_token_id": -1}, {"compile_config": 3}, {"max_new_tokens": 0}]


@pytest.mark.parametrize("values", NONSENSE)
def test_of_a_generation_config_that_is_nonsense_the_tokens_stay(values: Any, saved: Path, tmp_path: Path) -> None:
    model = from_folder(changed(saved, tmp_path / "x", "generation_config.json", **values, eos_token_id=[2, 5])).model
    model.save_pretrained(tmp_path / "again")
    assert model.generation_config.eos_token_id == [2, 5]


def test_a_generation_config_that_is_sound_is_left_to_transformers(saved: Path) -> None:
    assert sound_generation(str(saved), None) is None


def remove(*names: str) -> Callable[[Path], None]:
    return lambda folder: [(folder / name).unlink() for name in names] and None


def cut(name: str, length: int) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:length]) and None


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (remove("config.json"), "Unrecognized model in"),
        (remove("model.safetensors"), "Error no file named model.safetensors"),
        (remove("tokenizer.json", "tokenizer_config.json"), "Couldn't instantiate the backend tokenizer"),
        (cut("config.json", 20), "It looks like the config file at"),
        (cut("tokenizer.json", 20), "Expecting"),
        (cut("model.safetensors", 5), "Error while deserializing header"),
        (cut("model.safetensors", 5000), "Error while deserializing header"),
    ],
)
def test_a_damaged_folder_is_refused_with_the_reason(
    damage: Callable[[Path], None], reason: str, saved: Path, tmp_path: Path
) -> None:
    shutil.copytree(saved, tmp_path / "x")
    damage(tmp_path / "x")
    reported = refusal(tmp_path / "x")
    assert reported.startswith(f"model.path: '{tmp_path / 'x'}' is a folder that transformers cannot read ({reason}")
    assert reported.endswith(
        "expected a folder with config.json, tokenizer and weights of a causal language model, or the id of a hub "
        "model this machine can reach"
    )


def test_weights_that_are_missing_are_not_made_up(saved: Path, tmp_path: Path) -> None:
    reported = refusal(changed(saved, tmp_path / "x", "config.json", num_hidden_layers=2))
    assert "(9 weights are missing, such as model.layers.1.input_layernorm.weight); expected a folder with" in reported
    assert reported.count("model.path: ") == 1


def test_weights_of_another_shape_are_refused(saved: Path, tmp_path: Path) -> None:
    assert "transformers cannot read" in refusal(changed(saved, tmp_path / "x", "config.json", hidden_size=32))


@pytest.mark.parametrize("path", ["/no/such/folder", "a/b/c/d", "no such name"])
def test_a_path_that_is_nowhere_is_refused(path: str) -> None:
    assert refusal(path).startswith(f"model.path: '{path}' is no local folder (")


@pytest.mark.parametrize("attention", ["nothing_such", "flash_attention_2"])
def test_an_attention_that_is_not_there_is_reported_by_its_own_key(attention: str, saved: Path) -> None:
    reported = refusal(saved, attention=attention)
    assert reported.startswith(f"model.attention: '{attention}' cannot be used here (")
    assert reported.endswith("expected sdpa or eager")
