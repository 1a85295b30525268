"""Chat templates whose text depends on the day, the hour, the zone or on chance: prompts depend on none of them."""

import json
import os
import random
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from rrl.parts.reward_models.reading import Count, Reading
from rrl.runs.manifest import moment
from rrl.training.models import TinyLlama
from rrl.training.prompts import Chat
from rrl.training.templates import this_moment
from rrl.types import Example

SIZES: dict[str, Any] = {
    "hidden_size": 16, "num_hidden_layers": 1,
    "max_prompt_length": 256, "max_response_length": 256, "start_seed": 0,
}  # fmt: skip
NOON = datetime(2025, 3, 9, 12, 34, 56, tzinfo=timezone(timedelta(hours=-12)))
DATED = (
    "{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
    "Today Date: {{ date_string }}|{% for m in messages %}{{ m.content }}{% endfor %}|"
)
"""As Llama 3.2's."""


def tokenizer(template: str) -> Any:
    made = TinyLlama(**SIZES).load(None).tokenizer
    made.chat_template = template
    return made


@pytest.fixture(autouse=True)
def zone() -> Iterator[None]:
    yield
    os.environ.pop("TZ", None)
    time.tzset()


def somewhere(name: str) -> None:
    os.environ["TZ"] = name
    time.tzset()


def text(template: str, question: str = "2+2?") -> str:
    chat, reader = Chat(system=None), tokenizer(template)
    chat.stand(NOON)
    (row,) = chat.render([Example(id="a", level="", question=question, reference="", answer="")], reader)
    assert chat.describe(reader)
    return str(reader.decode(row))


@pytest.mark.parametrize(
    ("form", "written"),
    [
        ("%d %b %Y", "09 Mar 2025"),
        ("%Y-%m-%dT%H:%M:%S", "2025-03-09T12:34:56"),
        ("%A, %B %e", "Sunday, March  9"),
        ("%s", "1741566896"),  # 2025-03-10 00:34:56 UTC
        ("[%Z%z]", "[]"),
    ],
)
@pytest.mark.parametrize("place", ["Etc/GMT+12", "UTC", "Etc/GMT-14"])
def test_the_clock_in_a_template_stands(form: str, written: str, place: str) -> None:
    somewhere(place)
    assert text("{{ strftime_now('" + form + "') }}") == written


def test_a_template_that_writes_todays_date_writes_that_of_the_beginning() -> None:
    assert text(DATED) == "Today Date: 09 Mar 2025|2+2?|"


@pytest.mark.parametrize("draw", ["{{ range(100000) | random }}", "{{ lipsum(1, false) }}"])
def test_chance_in_a_template_follows_from_the_question(draw: str) -> None:
    random.seed(5)
    first, following = text(draw), random.random()
    random.seed(6)
    assert text(draw) == first != text(draw, "3+3?")
    random.seed(5)
    assert random.random() == following  # and takes nothing from the global generator


def test_a_template_without_a_beginning_keeps_the_moment_it_was_made_at() -> None:
    somewhere("Etc/GMT+12")
    chat, reader = Chat(system=None), tokenizer("{{ strftime_now('%d') }}")
    before = chat.describe(reader)
    somewhere("Etc/GMT-14")  # 26 hours later on the calendar
    assert chat.describe(reader) == before


def test_reward_models_read_the_same_on_any_day() -> None:
    reading, count = Reading(layout="chat", max_length=400), Count()
    rows = []
    for place in ("Etc/GMT+12", "Etc/GMT-14"):
        somewhere(place)
        rows += reading.tokens([("\n\nHuman: a\n\nAssistant:", "b")], tokenizer(DATED), 400, count)
    assert rows[0] == rows[1]
    assert tokenizer(DATED).decode(rows[0]).startswith("Today Date: 26 Jul 2024|")


def test_the_beginning_is_read_from_the_manifest_in_any_zone(tmp_path: Path) -> None:
    before = this_moment()
    assert before <= moment(tmp_path) <= this_moment()
    (tmp_path / "manifest.json").write_text(json.dumps({"started": "2025-03-09T12:34:56-1200"}))
    for place in ("UTC", "Asia/Tokyo"):
        somewhere(place)
        assert moment(tmp_path).isoformat() == NOON.isoformat()
