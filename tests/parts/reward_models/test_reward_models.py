"""Reward models: transformers' own numbers, whatever stands beside a text; wrong models are refused."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    LlamaConfig,
    LlamaForSequenceClassification,
)

from fixtures.reward_models import embedder, reading, saved_encoder, saved_model, sequence_reward_model, tiny
from rrl.errors import DataError
from rrl.parts.reward_models.embedder import pooled
from rrl.parts.reward_models.embeddings import EmbeddingsRewardModel, Head, save_head
from rrl.parts.reward_models.reading import Count

PROMPT = "\n\nHuman: Hi\n\nAssistant:"
PAIRS = [(PROMPT, "Hello."), (PROMPT, "Go away!"), ("\n\nHuman: " + "x" * 60 + "\n\nAssistant:", "y"), ("", "alone")]
TURNS = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_encoder(tmp_path_factory.mktemp("encoder"))


def by_transformers(folder: Path, text: str) -> float:
    """One text at a time and without any code of ours."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        return float(model(**tokenizer(text, return_tensors="pt")).logits)


# --- sequence ---------------------------------------------------------------------------------------------------------


def test_scores_are_those_of_transformers_itself(folder: Path) -> None:
    texts = [f"{PROMPT} Hello.", f"{PROMPT} Go away!", f"\n\nHuman: {'x' * 60}\n\nAssistant: y", "alone"]
    expected = [by_transformers(folder, text) for text in texts]
    assert sequence_reward_model(folder).score(PAIRS) == pytest.approx(expected, abs=1e-5)
    assert max(expected) - min(expected) > 0.1


@pytest.mark.parametrize("batch_size", [1, 2, 3, 16])
def test_neither_batching_nor_order_nor_padding_changes_a_score(folder: Path, batch_size: int) -> None:
    reward_model = sequence_reward_model(folder, batch_size=batch_size)
    alone = [reward_model.score([pair])[0] for pair in PAIRS]
    assert reward_model.score(PAIRS) == pytest.approx(alone, abs=1e-5)
    assert reward_model.score(PAIRS[::-1]) == pytest.approx(alone[::-1], abs=1e-5)
    assert reward_model.score([]) == []


def test_a_long_text_loses_its_beginning_and_is_counted(folder: Path) -> None:
    reward_model, tokenizer = sequence_reward_model(folder, reading=reading(max_length=12)), tiny().tokenizer
    first, second = reward_model.score([("b" * 30 + "aaaaa", "12345"), ("c" * 40 + "aaaaa", "12345")])
    assert first == pytest.approx(second, abs=1e-6)
    count = Count()
    rows = reward_model.reading.tokens([("b" * 30 + "aaaaa", "12345"), ("", "short")], tokenizer, 256, count)
    assert [tokenizer.decode(row) for row in rows] == ["<bos>aaaaa 12345", "<bos>short"]
    assert (count.cut, reward_model.described()["texts"], reward_model.described()["cut"]) == (1, 2, 2)


def test_the_models_context_limits_a_text_too(folder: Path) -> None:
    reward_model = sequence_reward_model(folder)
    (score,) = reward_model.score([("a" * 1000, "end")])
    assert score == pytest.approx(by_transformers(folder, "a" * 251 + " end"), abs=1e-5)  # BOS and 255 bytes of 256
    assert reward_model.described()["cut"] == 1


def test_a_chat_layout_puts_the_response_into_the_models_own_template() -> None:
    tokenizer = tiny().tokenizer
    tokenizer.chat_template = TURNS
    prompt = "\n\nHuman: Hi\n\nAssistant: Yes?\n\nHuman: Go\n\nAssistant:"
    (row,) = reading(layout="chat").tokens([(prompt, "No")], tokenizer, 256, Count())
    assert tokenizer.decode(row) == "[user]Hi[assistant]Yes?[user]Go[assistant]No"
    with pytest.raises(DataError, match="this tokenizer has no chat template"):
        reading(layout="chat").tokens([(prompt, "No")], tiny().tokenizer, 256, Count())


def test_a_pad_token_that_is_eos_does_not_move_the_score(folder: Path, tmp_path: Path) -> None:
    model, tokenizer = (kind.from_pretrained(folder) for kind in (AutoModelForSequenceClassification, AutoTokenizer))
    tokenizer.pad_token, model.config.pad_token_id = tokenizer.eos_token, tokenizer.eos_token_id
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    assert sequence_reward_model(tmp_path).score(PAIRS) == pytest.approx(
        sequence_reward_model(folder).score(PAIRS), abs=1e-5
    )


def test_a_pad_token_that_only_the_tokenizer_knows_ends_texts_all_the_same(folder: Path, tmp_path: Path) -> None:
    model, tokenizer = (kind.from_pretrained(folder) for kind in (AutoModelForSequenceClassification, AutoTokenizer))
    model.config.pad_token_id = None
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    assert sequence_reward_model(tmp_path).score(PAIRS) == pytest.approx(
        sequence_reward_model(folder).score(PAIRS), abs=1e-5
    )


# --- models that are none ---------------------------------------------------------------------------------------------


def refusal(path: Path, **changes: Any) -> str:
    with pytest.raises(DataError) as caught:
        sequence_reward_model(path, **changes).start()
    return str(caught.value.faults[0])


def test_a_language_model_without_a_reward_head_is_refused(encoder: Path) -> None:
    reported = refusal(encoder)
    assert reported.startswith(
        f"reward_model.path: '{encoder}' cannot be used (it has no weights for score.weight: a model"
    )
    assert reported.endswith("expected a folder or hub id of a sequence-classification model with one output, as "
                         "rrl-reward-model makes")  # fmt: skip


def test_a_classifier_of_two_classes_is_refused(tmp_path: Path) -> None:
    tokenizer = tiny().tokenizer
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    LlamaForSequenceClassification(LlamaConfig(vocab_size=len(tokenizer), num_labels=2, **sizes)).save_pretrained(
        tmp_path
    )
    tokenizer.save_pretrained(tmp_path)
    assert "(its head has 2 outputs, not 1)" in refusal(tmp_path)


def test_a_tokenizer_with_nothing_to_pad_with_is_refused(folder: Path, tmp_path: Path) -> None:
    place = Path(shutil.copytree(folder, tmp_path / "x"))
    file = place / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"pad_token": None, "eos_token": None}))
    assert "(its tokenizer has neither a pad nor an EOS token that the model embeds)" in refusal(place)
    with pytest.raises(DataError, match=r"^[^(]*embedder\.path: .* \(its tokenizer has neither a pad nor an EOS token"):
        embedder(place).embed(PAIRS, 4)


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path / "nowhere").startswith(f"reward_model.path: '{tmp_path / 'nowhere'}' cannot be used (")


def test_a_model_that_was_taught_another_layout_is_refused(folder: Path, tmp_path: Path) -> None:
    saved_model(tmp_path)
    (tmp_path / "reward_model.json").write_text(json.dumps({"kind": "sequence", "reading": {"layout": "chat"}}))
    assert "reward_model.reading.layout: 'plain', but the reward model in" in refusal(tmp_path)
    (tmp_path / "reward_model.json").write_text(json.dumps({"kind": "embeddings"}))
    assert "expected reward_model=embeddings" in refusal(tmp_path)


@pytest.mark.parametrize("path", [None, ""])
def test_a_path_has_to_be_given(path: str | None) -> None:
    with pytest.raises(ValueError, match=r"^path: missing; give a folder or hub id"):
        sequence_reward_model(path)


# --- embeddings -------------------------------------------------------------------------------------------------------


def test_pooling_sees_real_tokens_only() -> None:
    hidden = torch.tensor([[[1.0], [2.0], [99.0]], [[3.0], [5.0], [7.0]]])
    attention = torch.tensor([[1, 1, 0], [1, 1, 1]])
    assert pooled(hidden, attention, "mean").tolist() == [[1.5], [5.0]]
    assert pooled(hidden, attention, "last").tolist() == [[2.0], [7.0]]


@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_embeddings_are_those_of_transformers_itself(encoder: Path, pooling: Any) -> None:
    tokenizer, model = AutoTokenizer.from_pretrained(encoder), AutoModel.from_pretrained(encoder).eval()
    with torch.no_grad():
        states = model(**tokenizer(f"{PROMPT} Hello.", return_tensors="pt")).last_hidden_state[0]
    expected = states.mean(0) if pooling == "mean" else states[-1]
    found = embedder(encoder, pooling=pooling).embed(PAIRS, 4)
    torch.testing.assert_close(found[0], expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(embedder(encoder, pooling=pooling).embed(PAIRS, 1), found, atol=1e-5, rtol=1e-4)


def test_features_apart_are_prompt_response_and_their_product(encoder: Path) -> None:
    found = embedder(encoder, features="apart").embed([("a prompt", "a response")], 4)[0]
    alone = embedder(encoder).embed([("", "a prompt"), ("", "a response")], 4)
    torch.testing.assert_close(found, torch.cat([alone[0], alone[1], alone[0] * alone[1]]))


def test_a_head_standardises_and_adds_up() -> None:
    head = Head(2, (), 0.0)
    head.standardise(torch.tensor([[1.0, 10.0], [3.0, 30.0]]))  # means 2 and 20, deviations sqrt 2 and sqrt 200
    with torch.no_grad():
        head.layers[0].weight.copy_(torch.tensor([[1.0, 1.0]]))
        head.layers[0].bias.fill_(0.5)
    assert head(torch.tensor([[4.0, 20.0]])).item() == pytest.approx(2 / 2**0.5 + 0.5)


def head_in(folder: Path, encoder: Path) -> EmbeddingsRewardModel:
    torch.manual_seed(3)
    save_head(folder, embedder(encoder), Head(32, (8,), 0.1), (8,))
    return EmbeddingsRewardModel(path=str(folder), batch_size=3)


def test_a_saved_head_comes_back_with_what_it_stands_on(encoder: Path, tmp_path: Path) -> None:
    reward_model = head_in(tmp_path, encoder)
    torch.manual_seed(3)
    with torch.no_grad():
        expected = Head(32, (8,), 0.1).eval()(embedder(encoder).embed(PAIRS, 1))
    assert reward_model.score(PAIRS) == pytest.approx(expected.tolist(), abs=1e-5)
    assert reward_model.described()["embedder"]["path"] == str(encoder)


def test_an_encoder_whose_weights_have_changed_is_refused(tmp_path: Path) -> None:
    encoder = saved_encoder(tmp_path / "encoder")
    reward_model = head_in(tmp_path / "head", encoder)
    weights = load_file(encoder / "model.safetensors")
    weights["model.norm.weight"] += 1
    save_file(weights, encoder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(DataError, match=r"are not those that the head in .* was trained on"):
        reward_model.start()


def test_a_folder_without_a_head_is_refused(folder: Path) -> None:
    with pytest.raises(DataError, match=r"it has no reward_model\.json with head\.safetensors"):
        EmbeddingsRewardModel(path=str(folder), batch_size=3).start()
