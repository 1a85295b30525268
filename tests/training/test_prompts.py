"""From text to tokens: templates, and what becomes of prompts that are too long."""

from typing import Any

import pytest
from tokenizers.processors import TemplateProcessing

from rrl.errors import DataError
from rrl.training.models import TinyLlama
from rrl.training.prompts import Chat, Plain, Prompts, Template
from rrl.types import Example, Problem

SIZES: dict[str, Any] = {
    "hidden_size": 16, "num_hidden_layers": 1,
    "max_prompt_length": 32, "max_response_length": 32, "start_seed": 0,
}  # fmt: skip
TURNS = (
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
THE_LIMIT = "the limit is the smaller of max_prompt_length and the model's context less data.max_response_length"
CANNOT = "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}x"


def tokenizer(chat_template: str | None = None) -> Any:
    made = TinyLlama(**SIZES).load(None).tokenizer
    made.chat_template = chat_template
    return made


BYTES = tokenizer()
CHAT = tokenizer(TURNS)


def example(question: str, reference: str = "") -> Example:
    return Example(id=f"toy/{question}", level="L", question=question, reference=reference, answer="")


def encode(*examples: Example, limit: int = 64, context: int = 1000, response: int = 10) -> list[Problem]:
    prompts = Prompts(template=Plain(plain_template="{question}"), max_prompt_length=limit)
    return prompts.encode(examples, BYTES, context=context, response=response)


def refusal(*examples: Example, **changes: Any) -> str:
    with pytest.raises(DataError) as caught:
        encode(*examples, **changes)
    assert len(caught.value.faults) == 1
    return str(caught.value.faults[0])


# --- plain text -------------------------------------------------------------------------------------------------------


def test_the_question_stands_in_the_text_after_one_bos_and_without_eos() -> None:
    (row,) = Plain(plain_template="Q: {question}\nA:").render([example("1+1?")], BYTES)
    assert BYTES.decode(row) == "<bos>Q: 1+1?\nA:"
    assert list(row).count(BYTES.bos_token_id) == 1


@pytest.mark.parametrize("question", ["{question}", "{0} {x}", "%s \\n", "<eos>", "", " \n"])
def test_a_question_is_not_read_as_anything_but_text(question: str) -> None:
    (row,) = Plain(plain_template="Q: {question}.").render([example(question)], BYTES)
    assert BYTES.decode(row[1:]) == f"Q: {question}."
    assert BYTES.eos_token_id not in row


def test_an_end_token_that_the_tokenizer_adds_is_taken_off() -> None:
    closing = tokenizer()
    specials = [("<bos>", 1), ("<eos>", 2)]
    closing.backend_tokenizer.post_processor = TemplateProcessing(single="<bos> $A <eos>", special_tokens=specials)
    assert closing("x").input_ids[-1] == 2
    assert Plain(plain_template="{question}").render([example("x")], closing) == Plain(
        plain_template="{question}"
    ).render([example("x")], BYTES)
    assert Plain(plain_template="{question}").describe(closing) == "<bos>{question}"


@pytest.mark.parametrize("text", ["", "hello", "{question} {question}", "{Question}"])
def test_a_text_has_the_question_exactly_once(text: str) -> None:
    with pytest.raises(ValueError, match=r"^plain_template: expected \{question\} exactly once, got "):
        Plain(plain_template=text)


def test_the_text_with_its_special_tokens_is_the_description() -> None:
    assert Plain(plain_template="Q: {question}\n").describe(BYTES) == "<bos>Q: {question}\n"


# --- chat -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("system", "expected"),
    [
        (None, "[user]1+1?[assistant]"),
        ("", "[user]1+1?[assistant]"),
        ("Be brief.", "[system]Be brief.[user]1+1?[assistant]"),
    ],
)
def test_a_conversation_goes_up_to_where_the_assistant_begins(system: str | None, expected: str) -> None:
    (row,) = Chat(system=system).render([example("1+1?")], CHAT)
    assert CHAT.decode(row) == expected  # and no BOS: a template writes its own
    assert Chat(system=system).describe(CHAT) == expected.replace("1+1?", "{question}")


def test_turns_of_a_conversation_become_turns_of_the_template_and_a_plain_text_has_the_question() -> None:
    said = [("user", "Hi"), ("assistant", "Hello."), ("user", "1+1?")]
    turns = tuple({"role": role, "content": content} for role, content in said)
    conversation = Example("p", "level", "raw", " 2", "2", turns=turns)
    (row,) = Chat(system="Be brief.").render([conversation], CHAT)
    assert CHAT.decode(row) == "[system]Be brief.[user]Hi[assistant]Hello.[user]1+1?[assistant]"
    assert BYTES.decode(Plain(plain_template="{question}").render([conversation], BYTES)[0]) == "<bos>raw"


@pytest.mark.parametrize(
    ("template", "expected"), [(Plain(plain_template="{question}"), " 2"), (Chat(system=None), "2")]
)
def test_a_reference_follows_a_chat_template_without_the_blank_that_follows_plain_text(
    template: Template, expected: str
) -> None:
    assert template.continuation(" 2") == expected


def test_a_tokenizer_without_a_chat_template_is_refused() -> None:
    with pytest.raises(DataError) as caught:
        Chat(system=None).render([example("1+1?")], BYTES)
    assert caught.value.faults == ("template: the tokenizer has no chat template; use template=plain or another model",)


def test_a_chat_template_that_cannot_take_a_system_message_is_reported() -> None:
    assert Chat(system=None).describe(tokenizer(CANNOT)) == "x"
    with pytest.raises(DataError) as caught:
        Chat(system="Be brief.").describe(tokenizer(CANNOT))
    assert caught.value.faults == (
        "template: the tokenizer's chat template cannot take this conversation (System role not supported); set "
        "template.system=null or use template=plain",
    )


# --- problems ---------------------------------------------------------------------------------------------------------


def test_a_problem_has_prompt_and_reference_which_ends_with_eos() -> None:
    (problem,) = encode(example("ab", "c"))
    assert problem.prompt == tuple(BYTES("ab").input_ids)
    assert problem.reference == (*BYTES("c", add_special_tokens=False).input_ids, BYTES.eos_token_id)
    assert (problem.id, problem.level) == ("toy/ab", "L")


def test_no_reference_is_no_tokens() -> None:
    assert encode(example("ab"))[0].reference == ()


def test_longer_prompts_are_dropped_and_counted_and_the_order_stays(caplog: pytest.LogCaptureFixture) -> None:
    kept = encode(*map(example, ["aaaa", "bbbbbbb", "ccc", "dddddd"]), limit=5)
    assert [problem.id for problem in kept] == ["toy/aaaa", "toy/ccc"]  # with BOS, four letters make five tokens
    assert caplog.messages == [
        "data.max_prompt_length: 2 of 4 prompts are longer than 5 tokens (longest: toy/bbbbbbb with 8); "
        f"{THE_LIMIT}; dropped"
    ]


def test_a_prompt_has_to_leave_room_for_the_response_in_the_context() -> None:
    four, five = example("aaa"), example("bbbb")
    assert [p.id for p in encode(four, five, context=14, response=10)] == ["toy/aaa"]
    assert [p.id for p in encode(four, five, context=15, response=10)] == ["toy/aaa", "toy/bbbb"]


def test_nothing_left_is_refused() -> None:
    assert refusal(example("aaaa"), example("bbbbb"), limit=4) == (
        "data.max_prompt_length: 2 of 2 prompts are longer than 4 tokens (longest: toy/bbbbb with 6); "
        f"{THE_LIMIT}; raise the limit: no problem is left"
    )


def test_no_examples_are_refused() -> None:
    assert refusal() == "data: no problem at all; expected at least one; give another data set or split"


@pytest.mark.parametrize("response", [10, 11])
def test_a_response_as_long_as_the_context_is_refused(response: int) -> None:
    assert refusal(example("a"), context=10, response=response) == (
        f"data.max_response_length: {response} leaves no room for a prompt in the model's context of 10 tokens; lower "
        "it, or take a model with a longer context"
    )


def test_a_limit_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^max_prompt_length: expected at least 1, got 0$"):
        Prompts(template=Plain(plain_template="{question}"), max_prompt_length=0)
