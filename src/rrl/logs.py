"""One log a rank: logs/rank-0.log and so on in the run's directory."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from rrl.stopping import has_parent


@contextmanager
def open_log(folder: Path, rank: int) -> Iterator[IO[str]]:
    """Append what is logged to this rank's file; all that ranks but the first print goes there too.

    So do the first one's last words when it fails and its parent tells the reason.
    """
    path = folder / "logs" / f"rank-{rank}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        handler = logging.StreamHandler(file)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        if rank > 0:
            _print_to(file)
        root = logging.getLogger()
        root.addHandler(handler)
        try:
            yield file
        except BaseException:
            if has_parent():
                _print_to(file)
            raise
        finally:
            root.removeHandler(handler)


def _print_to(file: IO[str]) -> None:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
        os.dup2(file.fileno(), stream.fileno())
