"""Reads what an offline run of Weights & Biases has kept."""

import json
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any


def offline_runs(folder: Path) -> list[list[Any]]:
    """The records of every offline run below a run directory, by time of start."""
    return [list(records(path)) for path in sorted(folder.glob("wandb/offline-run-*/*.wandb"))]


def records(path: Path) -> Iterator[Any]:
    """The records of an offline run's file: LevelDB's log format, after a header of seven bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, place, whole = path.read_bytes(), 7, b""
    assert content[:4] == b":W&B"
    while place + 7 <= len(content):
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        _, length, kind = struct.unpack("<IHB", content[place : place + 7])
        whole += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):
            record = Record()
            record.ParseFromString(whole)
            yield record
            whole = b""


def of_kind(run: Sequence[Any], kind: str) -> list[Any]:
    """The contents of the records of one kind, in order."""
    return [getattr(record, kind) for record in run if record.WhichOneof("record_type") == kind]


def items(entries: Sequence[Any]) -> dict[str, Any]:
    """Keys and values as W&B writes them."""
    return {entry.key or "/".join(entry.nested_key): json.loads(entry.value_json) for entry in entries}
