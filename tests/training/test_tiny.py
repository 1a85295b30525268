"""A plan's sketch of a tiny model and of its tokenizer agrees with both."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fixtures import training
from rrl.preflight import capacity, passes
from rrl.training.models import TinyLlama
from rrl.training.tiny import TokenizerSketch
from rrl.training.tokens import context, embedded

WORDS = ("1", "2", "=", "add3")
LINES = (*WORDS, "\n")
SIZES: dict[str, Any] = {"max_prompt_length": 32, "max_response_length": 2000, "start_seed": 0}
MODELS = [
    TinyLlama(hidden_size=16, num_hidden_layers=1, **SIZES),
    TinyLlama(hidden_size=64, num_hidden_layers=3, **SIZES),
]
BOTH = {words: (TokenizerSketch(words), MODELS[0].load(words).tokenizer) for words in (None, WORDS, LINES)}
TEXTS = st.text() | st.lists(st.sampled_from([*LINES, "zz", "<eos>", "<pad>"])).map(" ".join)


@settings(max_examples=25, deadline=None)
@given(st.lists(TEXTS, min_size=1), st.sampled_from(list(BOTH)), st.booleans())
def test_texts_become_the_same_tokens(texts: list[str], words: Any, special: bool) -> None:
    sketch, whole = (each(texts, add_special_tokens=special) for each in BOTH[words])
    assert sketch.input_ids == sketch["input_ids"] == whole.input_ids
    assert sketch["attention_mask"] == whole["attention_mask"]


def test_what_a_sketch_cannot_do_is_done_by_the_tokenizer_itself() -> None:
    sketch, whole = BOTH[WORDS]
    assert (len(sketch), sketch.eos_token_id, sketch.pad_token_id) == (len(whole), whole.eos_token_id, 0)
    assert sketch("1 add3").input_ids == [1, 4, 7]
    assert sketch(["1 2", "1"], padding=True)["attention_mask"] == [[1, 1, 1], [1, 1, 0]]
    assert sketch.decode([4, 7]) == "1 add3"


@pytest.mark.parametrize("model", MODELS)
def test_a_model_has_the_shapes_of_its_sketch(model: TinyLlama) -> None:
    sketch, whole = (each(WORDS).model for each in (model.sketch, model.load))
    shapes, expected = ([tuple(p.shape) for p in each.parameters()] for each in (sketch, whole))
    assert sorted(shapes) == sorted(expected)
    assert {p.device.type for p in sketch.parameters()} == {"meta"}
    assert passes.shape(sketch.config) == passes.shape(whole.config)
    assert (context(sketch), embedded(sketch)) == (context(whole), embedded(whole)) == (2032, 8)


@pytest.mark.parametrize(("width", "deviation"), [(32, 0.15), (64, 0.15), (256, 0.075)])  # .15 by the root of 64/256
def test_random_weights_of_wide_models_are_smaller_by_the_root_of_the_width(width: int, deviation: float) -> None:
    model = TinyLlama(hidden_size=width, num_hidden_layers=1, **SIZES).load(WORDS).model
    assert model.config.initializer_range == deviation
    assert model.model.layers[0].mlp.up_proj.weight.std().item() == pytest.approx(deviation, rel=0.05)


@pytest.mark.parametrize("critic", ["own", "shared", "none"])
def test_the_networks_of_a_sketch_are_those_of_the_model(critic: Any) -> None:
    chosen = training.settings(critic=critic, head_size=3)
    sketch, whole = (capacity.networks(each(WORDS).model, chosen) for each in (MODELS[1].sketch, MODELS[1].load))
    assert sketch == whole
