"""HH-RLHF: dialogues taken apart, the real files' oddities counted, and verdicts from a reward model."""

import gzip
import json
import math
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from fixtures.reward_models import Table
from rrl.errors import ConfigError, DataError
from rrl.parts.tasks.hh import HH, SUBSETS
from rrl.types import Example, Feedback, Problem, Rollout, State, Verdict
from rrl.verifiers.dialogues import first_answer, split_answer, turns

PROMPT = "\n\nHuman: Hi\n\nAssistant: Hello.\n\nHuman: 1+1?\n\nAssistant:"


def task(path: Path | None = None, **changes: Any) -> HH:
    shape = {"hub_id": "Anthropic/hh-rlhf", "subsets": ("helpful-base",), "split_rows": None, "reward_model": None}
    return HH(path=None if path is None else str(path), **shape | changes)


def write(folder: Path, *rows: tuple[str, str], subset: str = "helpful-base", split: str = "train") -> Path:
    (folder / subset).mkdir(exist_ok=True)
    lines = [json.dumps({"chosen": chosen, "rejected": rejected}) for chosen, rejected in rows]
    (folder / subset / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def folder() -> Path:
    """The real files, from $RRL_DATA or from shared/data beside the repository."""
    root = Path(os.environ.get("RRL_DATA", Path(__file__).parents[4] / "shared" / "data"))
    missing = [subset for subset in SUBSETS if not (root / "hh-rlhf" / subset / "test.jsonl.gz").is_file()]
    if missing:
        pytest.skip(f"no {root}/hh-rlhf/<{'|'.join(missing)}>/test.jsonl.gz: set RRL_DATA to a folder that holds them")
    return root / "hh-rlhf"


# --- dialogues --------------------------------------------------------------------------------------------------------


def test_a_dialogue_splits_behind_the_last_mark_of_the_assistant() -> None:
    assert split_answer(f"{PROMPT} 2") == (PROMPT, " 2")
    assert split_answer("\n\nHuman: Hi") is None


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        (PROMPT, [("user", "Hi"), ("assistant", "Hello."), ("user", "1+1?")]),
        ("\n\nHuman: a\n\nHuman: b\n\nAssistant:", [("user", "a\n\nb")]),
        ("\n\nHuman: a\n\nAssistant:\n\nHuman: b\n\nAssistant:", [("user", "a\n\nb")]),
        ("\n\nHuman: a\n\nb Human: c\n\nAssistant:", [("user", "a\n\nb Human: c")]),
        ("no marks", [("user", "no marks")]),
        ("before\n\nAssistant: x\n\nHuman: y\n\nAssistant:", [("user", "before"), ("assistant", "x"), ("user", "y")]),
        ("", []),
    ],
)
def test_turns_alternate_and_lose_nothing(prompt: str, expected: list[tuple[str, str]]) -> None:
    assert [(turn["role"], turn["content"]) for turn in turns(prompt)] == expected


@pytest.mark.parametrize(
    ("response", "expected"),
    [(" 2", "2"), (" 2\n\nHuman: 3?", "2"), ("\n\nHuman:", ""), (" a\n\nb ", "a\n\nb"), (" a\n\nAssistant: b", "a")],
)
def test_an_answer_ends_where_the_next_turn_begins(response: str, expected: str) -> None:
    assert first_answer(response) == expected


# --- rows -------------------------------------------------------------------------------------------------------------

GOOD = (f"{PROMPT} Two.\n", f"{PROMPT} Three.")
ODD = {
    "equal": (GOOD[0], GOOD[0]),
    "empty": (GOOD[0], f"{PROMPT} "),
    "prompts_differ": (GOOD[0], "\n\nHuman: Bye\n\nAssistant: Three."),
    "human_last": (GOOD[0], f"{GOOD[1]}\n\nHuman: Thanks"),
    "no_assistant": (GOOD[0], "Three."),
}


def test_a_row_becomes_an_example_and_a_pair(tmp_path: Path) -> None:
    hh = task(write(tmp_path, GOOD))
    (example,), (pair,) = hh.examples("train"), hh.pairs("train")
    assert (example.id, example.level, example.strata) == (
        "hh/helpful-base/train/0",
        "helpful",
        {"subset": "helpful-base"},
    )
    assert (example.question, example.reference, example.answer) == (PROMPT, " Two.", "Two.")
    assert [turn["content"] for turn in example.turns] == ["Hi", "Hello.", "1+1?"]
    assert (pair.prompt, pair.chosen, pair.rejected) == (PROMPT, "Two.", "Three.")
    assert (pair.id, pair.level, pair.strata) == (example.id, example.level, example.strata)


@pytest.mark.parametrize("name", ODD)
def test_an_odd_row_is_no_pair_but_a_prompt_where_its_chosen_dialogue_is_whole(name: str, tmp_path: Path) -> None:
    chosen, rejected = ODD[name]
    hh = task(write(tmp_path, GOOD, (chosen, rejected), (rejected, chosen)))
    assert [pair.id[-1] for pair in hh.pairs("train")] == ["0"]
    assert {n: c for n, c in hh.oddities("train")["helpful-base"].items() if c and n != "rows"} == {name: 2}
    swapped = name in ("equal", "prompts_differ")
    assert [example.id[-1] for example in hh.examples("train")] == (["0", "1", "2"] if swapped else ["0", "1"])


def test_a_row_with_several_oddities_counts_in_each(tmp_path: Path) -> None:
    counts = task(write(tmp_path, (PROMPT, PROMPT))).oddities("train")["helpful-base"]
    assert counts == {"rows": 1, "equal": 1, "empty": 1, "prompts_differ": 0, "human_last": 0, "no_assistant": 0}


def test_counts_are_reported_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="rrl")
    task(write(tmp_path, GOOD, ODD["equal"])).pairs("train")
    assert caplog.messages == ["helpful-base, train: 2 rows; left out: chosen equals rejected: 1"]


def test_helpful_and_harmless_are_kept_apart(tmp_path: Path) -> None:
    write(tmp_path, GOOD)
    write(tmp_path, GOOD, GOOD, subset="harmless-base")
    examples = task(tmp_path, subsets=("helpful-base", "harmless-base")).examples("train")
    assert Counter(example.level for example in examples) == {"helpful": 1, "harmless": 2}
    assert [example.id for example in examples][-1] == "hh/harmless-base/train/1"


def test_splits_by_row_number_are_disjoint_and_keep_their_numbers(tmp_path: Path) -> None:
    rows = [(f"{PROMPT} {i}", f"{PROMPT} x") for i in range(25)]
    hh = task(write(tmp_path, *rows, split="test"), split_rows=8)
    train, test = ([int(pair.id.rpartition("/")[2]) for pair in hh.pairs(split)] for split in ("train", "test"))
    assert test == [8, 9, 18, 19]
    assert sorted(train + test) == list(range(25))
    assert [pair.chosen for pair in hh.pairs("test")] == ["8", "9", "18", "19"]


def test_a_missing_train_file_is_reported_with_the_key_that_splits(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"set task\.split_rows=8") as caught:
        task(write(tmp_path, GOOD, split="test")).examples("train")
    assert caught.value.faults[0].endswith("helpful-base/train.jsonl: no such file, but there is test.jsonl")


def test_a_split_that_is_not_made_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"split: 'dev'; task\.split_rows makes train and test"):
        task(write(tmp_path, GOOD, split="test"), split_rows=8).examples("dev")


def test_the_hub_is_asked_for_the_folder_of_each_subset(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets  # takes its time, and no other test here needs it

    asked = []

    def load_dataset(source: str, **arguments: Any) -> datasets.Dataset:
        asked.append((source, arguments))
        return datasets.Dataset.from_list([{"chosen": GOOD[0], "rejected": GOOD[1]}])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    hh = task(subsets=("helpful-online", "harmless-base"))
    assert [example.level for example in hh.examples("train")] == ["helpful", "harmless"]
    assert asked == [
        ("Anthropic/hh-rlhf", {"name": None, "data_dir": "helpful-online", "split": "train"}),
        ("Anthropic/hh-rlhf", {"name": None, "data_dir": "harmless-base", "split": "train"}),
    ]


def test_demonstrations_are_chosen_answers(tmp_path: Path) -> None:
    rows = [(f"{PROMPT} {i}", f"{PROMPT} x") for i in range(5)]
    found = task(write(tmp_path, *rows)).demonstrations(5, seed=1)
    assert sorted(example.reference for example in found) == [" 0", " 1", " 2", " 3", " 4"]


@pytest.mark.parametrize(
    ("changes", "reported"),
    [
        ({"subsets": ("helpful",)}, "subsets: expected some of"),
        ({"subsets": ()}, "subsets: expected some of"),
        ({"subsets": ("helpful-base", "helpful-base")}, "each once"),
        ({"split_rows": 10}, "split_rows: expected 1 to 9 of every ten rows, or null, got 10"),
    ],
)
def test_hyper_parameters_out_of_range_are_refused(changes: dict[str, Any], reported: str) -> None:
    with pytest.raises(ValueError, match=reported):
        task(**changes)


def test_the_yaml_states_every_field() -> None:
    stated = yaml.safe_load((Path(__file__).parents[3] / "conf/task/hh.yaml").read_text(encoding="utf-8"))["task"]
    assert stated.pop("_target_") == "rrl.parts.tasks.hh.HH"
    taken = {"path", "reward_model"}  # from data.path, and the group reward_model
    assert {*stated, *taken} == {name for name, field in HH.__dataclass_fields__.items() if field.init}


# --- the real files ---------------------------------------------------------------------------------------------------

# Literal numbers of the README beside the data (its "Seen"), in the order of SUBSETS.
REAL = {
    "rows": (2354, 2312, 1137, 2749),
    "equal": (2, 0, 2, 32),
    "empty": (4, 4, 3, 0),
    "prompts_differ": (9, 5, 0, 3),
    "human_last": (0, 0, 2, 0),
    "no_assistant": (0, 0, 0, 0),
}


def test_oddities_of_the_real_files_are_those_of_their_readme(folder: Path) -> None:
    counts = task(folder, subsets=SUBSETS).oddities("test")
    assert {name: tuple(counts[subset][name] for subset in SUBSETS) for name in REAL} == REAL


@pytest.mark.parametrize(
    ("subsets", "pairs", "examples"),
    [
        (SUBSETS[2:3], [1130], [1137]),
        # 4 chosen answers are empty
        pytest.param(SUBSETS, [2339, 2303, 1130, 2714], [2354, 2308, 1137, 2749], marks=pytest.mark.slow),
    ],
    ids=["one", "all"],
)
def test_pairs_and_prompts_of_the_real_files(
    folder: Path, subsets: tuple[str, ...], pairs: list[int], examples: list[int]
) -> None:
    hh = task(folder, subsets=subsets)
    found = hh.pairs("test")
    for items, expected in ((found, pairs), (hh.examples("test"), examples)):
        counts = Counter(each.strata["subset"] for each in items)
        assert [counts[subset] for subset in subsets] == expected
    assert all(pair.chosen and pair.rejected and pair.chosen != pair.rejected for pair in found)


def test_every_real_dialogue_comes_back_from_its_parts(folder: Path) -> None:
    with gzip.open(folder / "helpful-online" / "test.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file.read().split("\n") if line]
    examples = task(folder, subsets=("helpful-online",)).examples("test")
    assert [e.question + e.reference for e in examples] == [row["chosen"].rstrip() for row in rows]
    assert all(e.turns[-1]["role"] == "user" and e.turns[0]["role"] == "user" for e in examples)


# --- the verifier -----------------------------------------------------------------------------------------------------


def rollout(response: str, answer: str = "ref", question: str = PROMPT) -> Rollout:
    example = Example("hh/helpful-base/train/0", "helpful", question, f" {answer}", answer)
    return Rollout(State(Problem(example, (), ())), (), (), (), True, response, 0)


def judged(rewards: dict[str, float], *responses: str) -> list[Feedback]:
    return task(reward_model=Table(rewards)).verify([rollout(response) for response in responses])


def test_the_score_is_the_probability_of_being_preferred_to_the_reference() -> None:
    better, worse, same = judged({"ref": 1.0, "a": 3.0, "b": 0.0, "c": 1.0}, " a", " b", " c")
    assert better.score == pytest.approx(0.880797, abs=1e-6)  # 1 / (1 + e^-2)
    assert worse.score == pytest.approx(0.268941, abs=1e-6)  # 1 / (1 + e)
    assert same.score == 0.5
    assert [f.verdict for f in (better, worse, same)] == [Verdict.RIGHT, Verdict.WRONG, Verdict.WRONG]
    assert better.evidence == {"reward": 3.0, "reference_reward": 1.0}


def test_an_empty_answer_is_unparseable_and_the_reward_model_is_not_asked() -> None:
    reward_model = Table({"ref": 1.0, "a": 0.0})
    feedback = task(reward_model=reward_model).verify([rollout(text) for text in (" ", "\n\nHuman: I?", " a")])
    assert [f.verdict for f in feedback] == [Verdict.UNPARSEABLE, Verdict.UNPARSEABLE, Verdict.WRONG]
    assert feedback[0].score == 0.0
    assert feedback[0].evidence == {"reward": None, "reference_reward": None}
    assert reward_model.asked == [(PROMPT, "ref"), (PROMPT, "a")]


@pytest.mark.parametrize(("answer", "reference"), [(math.nan, 1.0), (math.inf, 1.0), (1.0, math.nan), (-math.inf, 0.0)])
def test_a_number_that_is_not_finite_is_the_reward_models_error(answer: float, reference: float) -> None:
    (feedback,) = judged({"ref": reference, "a": answer}, "a")
    assert (feedback.score, feedback.verdict) == (0.0, Verdict.ERROR)
    assert feedback.evidence == {"error": f"the reward model says {answer}, of the reference {reference}"}


def test_references_are_scored_once() -> None:
    reward_model = Table({"ref": 1.0, "other": 5.0, "a": 0.0})
    hh = task(reward_model=reward_model)
    hh.verify([rollout("a"), rollout("a"), rollout("a", answer="other")])
    assert reward_model.asked == [(PROMPT, text) for text in ("ref", "other", "a", "a", "a")]
    (again,) = hh.verify([rollout("a", answer="other")])
    assert again.evidence["reference_reward"] == 5.0
    assert len(reward_model.asked) == 6


def test_only_the_answer_is_judged_when_the_response_goes_on() -> None:
    reward_model = Table({"ref": 1.0, "a": 2.0})
    task(reward_model=reward_model).verify([rollout(" a\n\nHuman: And?\n\nAssistant: b")])
    assert reward_model.asked[-1] == (PROMPT, "a")


def test_without_a_reward_model_nothing_can_be_judged_and_the_way_out_is_reported() -> None:
    assert task(reward_model=Table({})).faults() == []
    assert len(task().faults()) == 1
    with pytest.raises(ConfigError, match="reward_model: none, but task=hh judges by one"):
        task().start()


def test_a_reward_model_is_loaded_before_the_start() -> None:
    reward_model = Table({})
    task(reward_model=reward_model).start()
    assert reward_model.started
