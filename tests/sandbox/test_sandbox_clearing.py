"""What a program leaves in its folder is removed, whatever it is."""

import os
import sys
from pathlib import Path
from subprocess import run

import pytest

from rrl.sandbox.inside import clearing
from rrl.sandbox.server import _remove

pytestmark = pytest.mark.process


def fill(folder: Path) -> None:
    """Deep and wide, odd names, without permissions, links out and in circles, pipes."""
    for number in range(30):
        (folder / f"{number}" / "inner" / "empty").mkdir(parents=True)
        (folder / f"{number}" / "inner" / "file").write_text("x")
        (folder / f"{number}" / "inner").chmod(0o100)
        (folder / f"{number}").chmod(0)
    for byte in (1, 10, 39, 127, 200, 255):
        os.mkdir(os.fsencode(folder) + b"/" + bytes([byte]) * 200)
    for name, target in (("a", "b"), ("b", "a"), ("c", "."), ("d", str(folder.parent / "kept"))):
        (folder / name).symlink_to(target)
    os.mkfifo(folder / "pipe", 0)
    here = os.getcwd()
    os.chdir(folder)
    for _ in range(1500):  # beyond what a path can name and what recursion reaches
        os.mkdir("d" * 20)
        os.chdir("d" * 20)
    os.chdir(here)


@pytest.fixture
def full(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    here = os.getcwd()
    request.addfinalizer(lambda: os.chdir(here))
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").write_text("kept")
    (tmp_path / "box").mkdir()
    fill(tmp_path / "box")
    return tmp_path / "box"


def test_a_folder_is_emptied_and_what_links_name_is_kept(full: Path) -> None:
    clearing.empty(str(full))
    assert list(full.iterdir()) == []
    assert (full.parent / "kept" / "file").read_text() == "kept"


def test_a_server_that_cannot_clear_leaves_it_to_a_process_beside_it(full: Path) -> None:
    full.chmod(0)
    _remove(str(full))
    assert not full.exists()
    _remove(str(full))


def test_what_is_moved_meanwhile_leads_nowhere_else(full: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (full / "0").chmod(0o700)
    enter, moved = clearing._enter, []

    def moving(folder: str) -> tuple[int, int]:
        found = enter(folder)
        if folder == "inner" and not moved:
            moved.append(os.rename("../inner", full.parent / "kept" / "inner"))
        return found

    monkeypatch.setattr(clearing, "_enter", moving)
    with pytest.raises(OSError, match="moved while it is cleared"):
        clearing.empty(str(full))
    assert (full.parent / "kept" / "file").read_text() == "kept"
    clearing.remove(str(full.parent / "kept" / "inner"))
    clearing.remove(str(full))


def test_a_folder_that_became_a_link_is_not_entered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("kept", "box", "box/inner"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    enter = clearing._enter

    def swapping(folder: str) -> tuple[int, int]:
        if folder == "inner":
            os.rename("inner", tmp_path / "moved")
            os.symlink(tmp_path / "kept", "inner")
        return enter(folder)

    monkeypatch.setattr(clearing, "_enter", swapping)
    with pytest.raises(OSError):
        clearing.empty(str(tmp_path / "box"))
    assert (tmp_path / "kept" / "file").read_text() == "kept"


def test_a_folder_that_is_not_there_is_cleared() -> None:
    assert run([sys.executable, clearing.__file__, "/nowhere/at/all"]).returncode == 0
