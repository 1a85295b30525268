"""Reading a data set's rows from local files or from the Hugging Face hub, with every fault reported at once."""

import difflib
import gzip
import hashlib
import json
import random
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from rrl.errors import DataError
from rrl.interfaces import Task
from rrl.types import Example

Row = dict[str, Any]
Item = TypeVar("Item")

SHOWN_FAULTS = 10
SHOWN_CHARACTERS = 60
LONGEST_INTEGER = 4300
"""Digits; Python's own limit for turning text into integers and back."""
REPLACE = "fix or replace the file, or give another data.path"
SURROGATE = re.compile("[\ud800-\udfff]")
"""Half of a character beyond U+FFFF, alone: JSON can write it, as ``\\ud83d``, but UTF-8 and tokenizers cannot."""


class DataSet(Task):
    """A task in free text whose training examples have references, except for those that are empty."""

    def demonstrations(self, count: int, seed: int) -> list[Example]:
        """``count`` training examples with references, shuffled; none is repeated before all have been drawn."""
        return shuffled_epochs([e for e in self.examples("train") if e.reference], count, seed)


def load_split(
    path: str | None, *, hub_id: str, hub_config: str | None, split: str, fields: Sequence[str],
    data_dir: str | None = None,
) -> list[Row]:  # fmt: skip
    """Every row of a split, in order, each with at least the string ``fields``.

    ``path`` is a folder that holds ``<split>.jsonl`` or, failing that, ``<split>.jsonl.gz``. Without it the rows come
    from the hub's ``hub_id`` (which may also be a local folder in the hub's layout). ``data_dir`` is a folder within
    either. Raises DataError.
    """
    if path is None:
        return _hub_rows(hub_id, {"name": hub_config, "data_dir": data_dir}, split, fields)
    return read_rows(split_file(Path(path).expanduser() / (data_dir or ""), split), fields)


def load_hub_file(hub_id: str, split: str, fields: Sequence[str]) -> list[Row]:
    """The same from the hub's file ``<split>.jsonl``: what has a loading script is refused by ``datasets``."""
    local = Path(hub_id).expanduser()
    root = str(local) if local.is_dir() else f"hf://datasets/{hub_id}"
    return _hub_rows("json", {"data_files": {split: f"{root}/{split}.jsonl"}}, split, fields)


def split_file(folder: Path, split: str) -> Path:
    """The file of a split in a folder: ``<split>.jsonl`` or, where only that is there, ``<split>.jsonl.gz``."""
    plain, packed = folder / f"{split}.jsonl", folder / f"{split}.jsonl.gz"
    return packed if packed.is_file() and not plain.is_file() else plain


def held_out(name: str, share: float) -> bool:
    """Whether an item is among the ``share`` of a data set that is held out: by the hash of its name, so for good."""
    digest = hashlib.sha256(name.encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


def read_rows(path: Path, fields: Sequence[str], plain: Sequence[str] = (), remedy: str = REPLACE) -> list[Row]:
    """The objects of a UTF-8 ``.jsonl`` or ``.jsonl.gz`` file, one per line; blank lines are skipped.

    Lines end at ``\\n`` only: other Unicode line breaks may stand inside a JSON string. Raises DataError with every
    row that is not an object or lacks one of the string ``fields``, or of the ``plain`` ones, strings or numbers.
    """
    rows: list[Row] = []
    faults: list[str] = []
    for number, line in enumerate(_read_text(path).split("\n"), start=1):
        if line.strip():
            try:
                rows.append(parse_json(line))
                found = list(_row_faults(rows[-1], fields, plain))
            except json.JSONDecodeError as error:
                where = f"{error.msg} at column {error.colno}"
                found = [f"malformed JSON, {where}: received {_shown(line)}, expected an object"]
            faults += [f"{path}, line {number}: {fault}" for fault in found]
    if not rows and not faults:
        faults.append(f"{path}: empty, expected one JSON object per line")
    refuse(faults, remedy)
    return rows


def read_objects(path: Path) -> list[Row]:
    """The objects of a UTF-8 ``.json`` or ``.json.gz`` file that holds one list of them. Raises DataError."""
    try:
        rows = parse_json(_read_text(path))
    except json.JSONDecodeError as error:
        raise DataError(f"{path}: malformed JSON, {error}", "remedy: fetch the file anew") from error
    if not isinstance(rows, list) or not rows:
        raise DataError(
            f"{path}: expected a list of objects, received {_shown(rows)}", "remedy: give another data.path"
        )
    refuse([f"{path}, item {i}: {fault}" for i, row in enumerate(rows) for fault in _row_faults(row, ())], REPLACE)
    return rows


def parse_json(text: str) -> Any:
    """JSON data; integers that are too long for Python to read become infinite. Raises JSONDecodeError.

    An object with a key twice is refused, because it does not say which value counts.
    """
    try:
        return json.loads(text, parse_int=_integer, object_pairs_hook=_object)
    except RecursionError as error:
        raise json.JSONDecodeError("lists and objects within each other, too deep to read", "", 0) from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise json.JSONDecodeError(f"key {twice!a} twice in one object", "", 0)
    return found


def _integer(digits: str) -> float:
    return int(digits) if len(digits) <= LONGEST_INTEGER else float(digits)


def unwritable(value: Any, place: str) -> Iterator[str]:
    """Every text within a value that UTF-8 cannot hold, as a fault; keys count as texts."""
    if isinstance(value, str):
        if half := SURROGATE.search(value):
            yield f"{place}: half a character, {half[0]!a}, at {half.start()}: received {_shown(value)}, expected text"
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from unwritable(key, f"{place}, a key")
            yield from unwritable(item, place)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from unwritable(item, place)


def refuse(faults: Sequence[str], remedy: str) -> None:
    """Raise one DataError for all ``faults``, of which the first ten are shown and the rest counted; pass on none."""
    if faults:
        hidden = len(faults) - SHOWN_FAULTS
        rest = [f"... and {hidden} more faults"] if hidden > 0 else []
        raise DataError(*faults[:SHOWN_FAULTS], *rest, f"remedy: {remedy}")


def shuffled_epochs(items: Sequence[Item], count: int, seed: int) -> list[Item]:
    """``count`` items in shuffled order: none is repeated before all others have been drawn."""
    generator = random.Random(seed)
    drawn: list[Item] = []
    while items and len(drawn) < count:
        drawn += generator.sample(items, len(items))
    return drawn[:count]


def _read_text(path: Path) -> str:
    if not path.is_file():
        refuse(
            [f"{path.absolute()}: no such file; {_nearest_names(path.absolute())}"],
            "give data.path=<folder that holds the files>; relative paths count from the working directory"
            + _splits(path),
        )
    try:
        content = path.read_bytes()
        content = gzip.decompress(content) if path.suffix == ".gz" else content
        return content.decode("utf-8").removeprefix("\ufeff")  # some editors begin a file with this mark
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        kind = "gzip-packed UTF-8 text" if path.suffix == ".gz" else "UTF-8 text"
        fault = f"{path}: expected {kind}, received {type(error).__name__}: {error}"
        if isinstance(error, UnicodeDecodeError):
            line = error.object.count(b"\n", 0, error.start) + 1
            fault += f" (line {line})"
        raise DataError(fault, "remedy: fetch or pack the file anew, or write it anew as UTF-8") from error


def _splits(path: Path) -> str:
    """The splits that exist in the folder of a missing one; none where its files are not those of splits."""
    files = [*path.parent.glob("*.jsonl"), *path.parent.glob("*.jsonl.gz")]
    names = sorted({file.name.partition(".jsonl")[0] for file in files})
    return f"; or evaluation.split={'|'.join(names)}, which are there" if {"train", "test"} & {*names} else ""


def _nearest_names(path: Path) -> str:
    if path.is_dir():
        return "it is a folder"
    folder = next(parent for parent in path.parents if parent.is_dir())
    wanted = path.relative_to(folder).parts[0]
    names = sorted(entry.name for entry in folder.iterdir())
    nearest = difflib.get_close_matches(wanted, names, n=3, cutoff=0.0)
    return f"nearest names in {folder}: {', '.join(nearest)}" if nearest else f"{folder} is empty"


def _row_faults(row: Any, fields: Sequence[str], plain: Sequence[str] = ()) -> Iterator[str]:
    if not isinstance(row, dict):
        yield f"expected an object, received {_shown(row)}"
        return
    for name in sorted((*fields, *plain), key=row.__contains__):  # missing ones first
        kind, words = (str, "a string") if name in fields else (str | int | float, "a string or a number")
        if name not in row:
            yield f"field {name!r} is missing, expected {words}; there are {list(row)}"
        elif not isinstance(row[name], kind):
            yield f"field {name!r}: expected {words}, received {_shown(row[name])}"
    for name, item in row.items():
        yield from unwritable(item, f"field {name!a}")


def _shown(value: Any) -> str:
    text = repr(value)
    short = text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}..."
    return f"{short} ({type(value).__name__})"


def _hub_rows(source: str, arguments: dict[str, Any], split: str, fields: Sequence[str]) -> list[Row]:
    import datasets  # seconds to import, and only needed here

    named = {"name": "config", "data_dir": "folder"}
    chosen = ", ".join(f"{named.get(key, key)} {value}" for key, value in arguments.items() if value is not None)
    origin = f"{source} ({chosen}), split {split}"
    try:
        rows: list[Row] = datasets.load_dataset(source, split=split, **arguments).to_list()
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise DataError(
            f"{origin}: could not be loaded from the Hugging Face hub, received {type(error).__name__}: {error}",
            f"remedy: give data.path=<folder that holds {split}.jsonl or {split}.jsonl.gz> to read local files",
        ) from error
    faults = [f"{origin}, row {i}: {fault}" for i, row in enumerate(rows) for fault in _row_faults(row, fields)]
    refuse(faults or ([] if rows else [f"{origin}: empty"]), "check task.hub_id, or give data.path")
    return rows
