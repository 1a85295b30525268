"""What several test modules use, and what makes all of them faster."""

import gc
import logging
import os
import pickle
import sys
import tempfile
from collections.abc import Iterator
from functools import cache
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tensors here are tiny: a second thread costs more than it brings
os.environ["TORCHDYNAMO_DISABLE"] = "1"  # else DeepSpeed's first start loads the whole compiler
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # some hundred processes would compile the sources anew
sys.dont_write_bytecode = False
gc.set_threshold(20_000, 20, 20)  # imports and configurations make many objects and little rubbish

import pytest  # noqa: E402

from fixtures.judge_server import server  # noqa: E402  # it imports torch, which reads OMP_NUM_THREADS once

__all__ = ["server"]

CACHE = tempfile.TemporaryDirectory(prefix="rrl-cache-")  # of the whole session; the user's own is left alone
os.environ["RRL_CACHE"] = CACHE.name
STARTERS = {
    "subprocess", "multiprocessing", "Sandbox", "Server", "Workers", "on_ranks", "on_terminal", "Attended", "working",
    "start", "swept", "service", "CONTEXT", "Launcher", "browser",
    "begin", "demo", "evaluate", "learn", "make_policy", "make_trainer", "reward_model", "sft", "train",
}  # fmt: skip
"""What a test module that starts processes imports: these, whole commands, and DeepSpeed, which looks for compilers."""


@pytest.fixture(autouse=True)
def cache_as_before() -> Iterator[None]:
    """A test may put the cache elsewhere."""
    before = os.environ["RRL_CACHE"]
    yield
    os.environ["RRL_CACHE"] = before


@pytest.fixture
def own_messages() -> Iterator[None]:
    """As the commands do: messages of this project from INFO on."""
    logger = logging.getLogger("rrl")
    before = logger.level
    logger.setLevel(logging.INFO)
    yield
    logger.setLevel(before)


@pytest.fixture(autouse=True, scope="session")
def short_compositions() -> Iterator[None]:
    """Each composition reads some 36 files; a file that has not changed is parsed once.

    Hydra tabulates the choices so far for each file, half of the time; only an interpolated choice looks at them.
    """
    from hydra._internal import defaults_list
    from omegaconf import OmegaConf

    load, parsed = OmegaConf.load, dict[tuple[int, ...], bytes]()
    table = defaults_list._create_interpolation_map

    def needed(overrides: Any, defaults: Any, self_added: bool) -> Any:
        return table(overrides, defaults, self_added) if any(d.is_interpolation() for d in defaults) else None

    def kept(file: Any) -> Any:
        stat = os.stat(file.fileno() if hasattr(file, "fileno") else file)
        key = (stat.st_dev, stat.st_ino, stat.st_mtime_ns, stat.st_size)
        if key not in parsed:
            parsed[key] = pickle.dumps(load(file))
        return pickle.loads(parsed[key])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OmegaConf, "load", kept)
        patch.setattr(defaults_list, "_create_interpolation_map", needed)
        yield


def pytest_itemcollected(item: pytest.Item) -> None:
    """A module that can start processes is marked ``process`` as a whole."""
    if isinstance(item, pytest.Function) and STARTERS & vars(item.module).keys():
        item.add_marker("process")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Whoever asks for tests that start no process is told of one that does all the same."""
    if "not process" in item.config.option.markexpr:
        _guard()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Any:
    """What a test has printed reaches the terminal from a worker only where halves of characters are escaped."""
    report = yield
    report.sections = [
        (name, text.encode("utf-8", "backslashreplace").decode("utf-8")) for name, text in report.sections
    ]
    return report


@cache
def _guard() -> None:
    def refuse(event: str, arguments: tuple[Any, ...]) -> None:
        if event in ("subprocess.Popen", "os.fork", "os.posix_spawn"):
            raise AssertionError(f"{event} {arguments}: started by a test module without the mark `process`")

    sys.addaudithook(refuse)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Of several workers one runs all of a file; one all that watch clocks, start ranks, or compose every choice.

    Tests of a file share what they make; every choice is composed once.
    """
    from xdist.scheduler import LoadScopeScheduling

    @cache
    def group(file: str) -> str:
        text = (config.rootpath / file).read_text(encoding="utf-8")  # marks are known to the workers alone
        return next((name for name in ("clock", "ranks", "composing") if f"pytest.mark.{name}" in text), file)

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return group(nodeid.split("::")[0])

    return ByFile(config, log)


def pytest_collection_finish() -> None:
    """What is imported is not looked at again by each collection, which would take much of the time."""
    _freeze(len(sys.modules) // 500)


def pytest_runtest_logfinish() -> None:
    """So are libraries that the first tests import."""
    _freeze(len(sys.modules) // 500)


@cache
def _freeze(modules: int) -> None:
    """Leave out all present objects from collections, once for this many hundreds of modules."""
    gc.collect()
    gc.freeze()
