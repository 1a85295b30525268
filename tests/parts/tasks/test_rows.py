"""Reading rows: local files, the hub's layout, and faults that name the line and the remedy."""

import gzip
import json
from pathlib import Path

import pytest

from rrl.errors import DataError
from rrl.parts.tasks.rows import load_split, read_rows, refuse, shuffled_epochs
from rrl.records.fingerprints import fingerprint

FIELDS = ("question", "answer")
ROWS = [{"question": "1+1? \u2028 \u0085", "answer": "2"}, {"question": "2+2?", "answer": "4", "extra": [1]}]
TEXT = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)


def faults_of(content: str | bytes, path: Path) -> list[str]:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError) as caught:
        read_rows(path, FIELDS)
    return [fault.replace(str(path), "FILE") for fault in caught.value.faults]


def load(path: Path | None, hub_id: str = "openai/gsm8k", split: str = "train") -> list[dict[str, object]]:
    return load_split(path and str(path), hub_id=hub_id, hub_config="main", split=split, fields=FIELDS)


# Local files


def test_rows_come_as_they_are_and_lines_end_at_newlines_only(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text(TEXT, encoding="utf-8")
    assert read_rows(tmp_path / "train.jsonl", FIELDS) == ROWS


@pytest.mark.parametrize("text", [TEXT, TEXT.rstrip("\n"), TEXT.replace("\n", "\r\n"), TEXT.replace("\n", "\n\n")])
def test_ends_of_lines_and_blank_lines_do_not_matter(text: str, tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_bytes(text.encode())
    assert read_rows(tmp_path / "train.jsonl", FIELDS) == ROWS


def test_a_split_is_a_plain_or_a_packed_file_and_the_plain_one_goes_first(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl.gz").write_bytes(gzip.compress(TEXT.encode()))
    assert load(tmp_path) == ROWS
    (tmp_path / "train.jsonl").write_text(TEXT.split("\n")[1], encoding="utf-8")
    assert load(tmp_path) == ROWS[1:]


def test_every_fault_is_reported_with_its_line_field_and_value(tmp_path: Path) -> None:
    lines = [
        '{"question": "a", "answer": "b"}',
        '{"question": "a", "answer": 3}',
        "",
        '{"question": "a"',
        '{"question": null}',
        "[1, 2]",
    ]
    assert faults_of("\n".join(lines), tmp_path / "train.jsonl") == [
        "FILE, line 2: field 'answer': expected a string, received 3 (int)",
        "FILE, line 4: malformed JSON, Expecting ',' delimiter at column 17: "
        'received \'{"question": "a"\' (str), expected an object',
        "FILE, line 5: field 'answer' is missing, expected a string; there are ['question']",
        "FILE, line 5: field 'question': expected a string, received None (NoneType)",
        "FILE, line 6: expected an object, received [1, 2] (list)",
        "remedy: fix or replace the file, or give another data.path",
    ]


def test_ten_faults_are_shown_and_the_rest_counted(tmp_path: Path) -> None:
    faults = faults_of("{}\n" * 7, tmp_path / "train.jsonl")
    assert len(faults) == 12
    assert faults[-2:] == ["... and 4 more faults", "remedy: fix or replace the file, or give another data.path"]


def test_a_long_value_is_shown_in_part(tmp_path: Path) -> None:
    (fault, _) = faults_of(json.dumps({"question": "a", "answer": [7] * 1000}), tmp_path / "train.jsonl")
    assert fault == f"FILE, line 1: field 'answer': expected a string, received [{'7, ' * 19}7,... (list)"


@pytest.mark.parametrize(
    ("row", "reported"),
    [
        (r'"question": "a\ud83d"', r"field 'question': half a character, '\ud83d', at 1: received 'a\ud83d' (str)"),
        (r'"question": "\udc00!"', r"field 'question': half a character, '\udc00', at 0: received '\udc00!' (str)"),
        (r'"question": "", "x": [{"y": "\uDFFF"}]',
         r"field 'x': half a character, '\udfff', at 0: received '\udfff' (str)"),
        (r'"question": "", "x": {"\ud800": 1}',
         r"field 'x', a key: half a character, '\ud800', at 0: received '\ud800' (str)"),
    ],
)  # fmt: skip
def test_half_a_character_is_a_fault_of_its_line_and_field(row: str, reported: str, tmp_path: Path) -> None:
    content = TEXT.split("\n")[0] + '\n\n{"answer": "b", ' + row + "}"
    fault, remedy = faults_of(content, tmp_path / "train.jsonl")
    assert fault == f"FILE, line 3: {reported}, expected text"
    assert remedy.startswith("remedy: ")


@pytest.mark.parametrize("text", [r"\ud83d\ude00", "\U0001f600", r"\u0000", "\u2028", r"\ufffd", r"\uffff", r"\ufeff"])
def test_whole_characters_are_text_however_odd(text: str, tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text(f'{{"question": "{text}", "answer": "b"}}', encoding="utf-8")
    (row,) = read_rows(tmp_path / "train.jsonl", ("question", "answer"))
    assert row["question"] == json.loads(f'"{text}"')


def test_a_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_bytes(b'\xef\xbb\xbf{"question": "a", "answer": "b"}\r\n')
    assert read_rows(tmp_path / "train.jsonl", ("question",)) == [{"question": "a", "answer": "b"}]


def test_bytes_that_are_no_text_are_reported_with_their_line(tmp_path: Path) -> None:
    fault = faults_of(b'{"question": "a", "answer": "b"}\n{"question": "\xff"}', tmp_path / "train.jsonl")[0]
    assert fault.startswith("FILE: expected UTF-8 text, received UnicodeDecodeError: ")
    assert fault.endswith("invalid start byte (line 2)")


@pytest.mark.parametrize(
    "row",
    ['{"question": "a", "question": "b", "answer": "c"}', '{"question": "a", "answer": "c", "x": {"q": 1, "q": 1}}'],
)
def test_a_key_given_twice_is_a_fault(row: str, tmp_path: Path) -> None:
    key = "question" if "b" in row else "q"
    fault = faults_of(row, tmp_path / "train.jsonl")[0]
    assert fault.startswith(f"FILE, line 1: malformed JSON, key '{key}' twice in one object at column 1: received ")


@pytest.mark.parametrize("value", ["NaN", "Infinity", "3", "null", "true", '["a"]'])
def test_a_field_that_is_read_is_text_and_no_other_matters(value: str, tmp_path: Path) -> None:
    (fault, _) = faults_of(f'{{"question": {value}, "answer": "b"}}', tmp_path / "train.jsonl")
    assert fault.startswith("FILE, line 1: field 'question': expected a string, received ")
    (tmp_path / "x.jsonl").write_text(f'{{"question": "a", "answer": "b", "other": {value}}}', encoding="utf-8")
    assert len(read_rows(tmp_path / "x.jsonl", ("question", "answer"))) == 1


@pytest.mark.parametrize("content", ["", "\n \n"])
def test_an_empty_file_is_a_fault(content: str, tmp_path: Path) -> None:
    assert faults_of(content, tmp_path / "train.jsonl")[0] == "FILE: empty, expected one JSON object per line"


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("train.jsonl", b'{"question": "\xff"}', "FILE: expected UTF-8 text, received UnicodeDecodeError"),
        ("train.jsonl", gzip.compress(b"{}", mtime=0), "FILE: expected UTF-8 text, received UnicodeDecodeError"),
        ("train.jsonl.gz", b"{}", "FILE: expected gzip-packed UTF-8 text, received BadGzipFile"),
        (
            "train.jsonl.gz",
            gzip.compress(TEXT.encode(), mtime=0)[:-12],
            "FILE: expected gzip-packed UTF-8 text, received EOF",
        ),
    ],
)
def test_an_unreadable_file_is_a_fault(name: str, content: bytes, expected: str, tmp_path: Path) -> None:
    assert faults_of(content, tmp_path / name)[0].startswith(expected)


def test_a_missing_file_is_named_with_the_nearest_names_there(tmp_path: Path) -> None:
    for name in ("training.jsonl", "notes.txt", "test.jsonl", "LICENSE"):
        (tmp_path / name).touch()
    with pytest.raises(DataError) as caught:
        load(tmp_path)
    assert caught.value.faults[0].startswith(f"{tmp_path}/train.jsonl: no such file; nearest names in {tmp_path}: trai")
    assert "training.jsonl" in caught.value.faults[0]
    assert "data.path" in caught.value.faults[1]


def test_a_missing_folder_is_named_with_its_nearest_neighbours(tmp_path: Path) -> None:
    (tmp_path / "gsm8k").mkdir()
    with pytest.raises(DataError, match=rf"gsm8/train.jsonl: no such file; nearest names in {tmp_path}: gsm8k\n"):
        load(tmp_path / "gsm8")
    with pytest.raises(DataError, match=rf"{tmp_path}/gsm8k is empty\n"):
        load(tmp_path / "gsm8k")


def test_a_file_given_for_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text(TEXT, encoding="utf-8")
    with pytest.raises(DataError, match=r"train.jsonl/train.jsonl: no such file; nearest names in .*: train.jsonl\n"):
        load(tmp_path / "train.jsonl")


def test_no_faults_raise_nothing() -> None:
    assert refuse([], "none needed") is None


# The hub


@pytest.fixture
def hub_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A local folder in the layout of openai/gsm8k on the hub: parquet files per configuration and split."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "gsm8k"
    (folder / "main").mkdir(parents=True)
    rows = [{name: row[name] for name in FIELDS} for row in ROWS]
    datasets.Dataset.from_list(rows).to_parquet(str(folder / "main/train-00000-of-00001.parquet"))
    datasets.Dataset.from_list(rows[:1]).to_parquet(str(folder / "main/test-00000-of-00001.parquet"))
    (folder / "README.md").write_text(
        "---\nconfigs:\n- config_name: main\n  data_files:\n"
        "  - split: train\n    path: main/train-*\n  - split: test\n    path: main/test-*\n---\n",
        encoding="utf-8",
    )
    return folder


def test_the_hub_gives_the_same_rows_as_local_files(hub_copy: Path, tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text(TEXT.replace(', "extra": [1]', ""), encoding="utf-8")
    assert load(None, str(hub_copy)) == load(tmp_path)
    assert len(load(None, str(hub_copy), "test")) == 1


def test_json_files_in_the_hubs_layout_are_read_too(hub_copy: Path) -> None:
    readme = (hub_copy / "README.md").read_text(encoding="utf-8")
    (hub_copy / "README.md").write_text(readme.replace("-*", ".jsonl"), encoding="utf-8")
    (hub_copy / "main/train.jsonl").write_text('{"question": "3+3?", "answer": "6"}\n', encoding="utf-8")
    (hub_copy / "main/test.jsonl").write_text('{"question": "4+4?", "answer": "8"}\n', encoding="utf-8")
    assert load(None, str(hub_copy)) == [{"question": "3+3?", "answer": "6"}]


def test_hub_rows_are_checked_like_local_ones(hub_copy: Path) -> None:
    with pytest.raises(DataError) as caught:
        load_split(None, hub_id=str(hub_copy), hub_config="main", split="train", fields=("question", "level"))
    place = f"{hub_copy} (config main), split train"
    assert caught.value.faults == (
        f"{place}, row 0: field 'level' is missing, expected a string; there are ['question', 'answer']",
        f"{place}, row 1: field 'level' is missing, expected a string; there are ['question', 'answer']",
        "remedy: check task.hub_id, or give data.path",
    )


@pytest.mark.parametrize(
    ("config", "split", "reported"),
    [("main", "validation", 'Unknown split "validation".*train'), ("socratic", "train", "'socratic' not found.*main")],
)
def test_an_unknown_split_or_configuration_is_a_fault(config: str, split: str, reported: str, hub_copy: Path) -> None:
    with pytest.raises(
        DataError, match=f"could not be loaded from the Hugging Face hub, received ValueError: .*{reported}"
    ):
        load_split(None, hub_id=str(hub_copy), hub_config=config, split=split, fields=FIELDS)


def test_an_unreachable_hub_is_a_fault_with_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path)
    with pytest.raises(DataError) as caught:
        load(None, "openai/nothing-of-this-name")
    reported, remedy = caught.value.faults
    assert (
        "openai/nothing-of-this-name (config main), split train: could not be loaded from the Hugging Face" in reported
    )
    assert remedy == "remedy: give data.path=<folder that holds train.jsonl or train.jsonl.gz> to read local files"


# What every task needs


def test_a_fingerprint_is_the_sha256_of_canonical_lines() -> None:
    # printf '{"a":"é","b":1}\n{"a":"x","b":2}\n' | sha256sum
    rows = [{"b": 1, "a": "é"}, {"a": "x", "b": 2}]
    assert fingerprint(rows) == "9120df7ed2b4627288742f85d0c51d66467b4761c9e4e1b153cec709c8c6c356"
    assert fingerprint(row for row in rows) == fingerprint(rows)


def test_a_fingerprint_moves_with_order_content_and_boundaries() -> None:
    rows = [{"a": "1"}, {"a": "2"}]
    others = [rows[::-1], rows[:1], [{"a": "1"}, {"a": 2}], [*rows, {}], []]
    assert len({fingerprint(each) for each in [rows, *others]}) == 6


def test_shuffled_epochs_repeat_none_before_all_were_drawn() -> None:
    drawn = shuffled_epochs("abcdef", 15, seed=3)
    assert [sorted(drawn[:6]), sorted(drawn[6:12])] == [list("abcdef"), list("abcdef")]
    assert len(set(drawn[12:])) == 3
    assert drawn[:6] != drawn[6:12]
    assert shuffled_epochs("abcdef", 4, seed=3) == drawn[:4]
    assert shuffled_epochs("abcdef", 15, seed=4) != drawn


def test_shuffled_epochs_of_nothing_are_nothing() -> None:
    assert shuffled_epochs([], 5, seed=0) == shuffled_epochs("ab", 0, seed=0) == []


def test_a_split_without_a_file_is_reported_with_the_splits_that_have_one(tmp_path: Path) -> None:
    for name in ("train.jsonl", "test.jsonl.gz", "notes.txt"):
        (tmp_path / name).write_text("")
    with pytest.raises(DataError) as caught:
        load_split(str(tmp_path), hub_id="", hub_config=None, split="tset", fields=())
    assert caught.value.faults[0].startswith(f"{tmp_path}/tset.jsonl: no such file; nearest names in {tmp_path}: ")
    assert caught.value.faults[1].endswith("; or evaluation.split=test|train, which are there")
