"""The sandbox keeps its limits and takes none of the tricks of programs, under every isolation."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures.attacks import FORGED, GREEDY, NO_ANSWER, REACHING, SEARCH, TRY
from fixtures.sandbox import LIMITS, reported, run, runs, still_honest, working
from rrl.sandbox.inside import watch
from rrl.sandbox.isolation import LEVELS, REACHES, described
from rrl.sandbox.limits import Limits
from rrl.sandbox.sandbox import Sandbox


@pytest.fixture(scope="module", params=LEVELS)
def sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    made = Sandbox(limits=LIMITS, workers=1, isolation=working(request.param))
    yield made
    made.close()


# --- limits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GREEDY)
def test_who_crosses_a_limit_gets_an_error(sandbox: Sandbox, name: str) -> None:
    if (name, sandbox.isolation) == ("threads", "rlimits") and os.geteuid() != 0:
        pytest.skip("limited by memory alone; docs/sandbox.md says so")
    source, error = GREEDY[name]
    assert reported(run(sandbox, source)) == ("runtime_error", error)
    assert still_honest(sandbox)


def test_files_are_gone_and_all_together_they_are_limited(sandbox: Sandbox) -> None:
    flood = "import os\nfor n in range(99):\n    os.mkdir(f'd{n}', 0)\n    open(f'f{n}', 'w').write('xyz')\nprint(n)"
    deep = "import os\nfor n in range(150):\n    os.mkdir('d')\n    os.chdir('d')\nprint(n)"
    assert run(sandbox, flood).value == "98\n"
    assert still_honest(sandbox)
    assert run(sandbox, deep).value == "149\n"
    assert still_honest(sandbox)
    if sandbox.isolation != "rlimits":
        whole = "for n in range(9): open(f'f{n}', 'wb').write(b'x' * 2 ** 20)"
        assert reported(run(sandbox, whole)) == ("runtime_error", "OSError")


def test_a_huge_source_and_a_huge_input_end_within_the_limits(sandbox: Sandbox) -> None:
    assert run(sandbox, "#" * 10**7 + "\nprint(1)").value == "1\n"
    assert run(sandbox, "print(len(input()))", "x" * 10**7).value == "10000000\n"


@pytest.mark.parametrize(
    ("change", "name"),
    [({"wall_seconds": 0.0}, "wall_seconds"), ({"memory_mb": 8}, "memory_mb"), ({"open_files": 3}, "open_files")],
)
def test_limits_out_of_range_are_refused(change: dict[str, float], name: str) -> None:
    with pytest.raises(ValueError, match=name):
        Limits(**{**vars(LIMITS), **change})


# --- evidence ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "report"),
    [
        (b"\x03\4\0\0\0told", b"told"),
        (b"\x03\4\0\0\0tol", b""),
        (b"\x03\4\0\0\0told!", b""),
        (b'{"status": "ended"}\x03\4\0\0\0told', b""),
        (b"\x03\4\0\0\0told\x03\4\0\0\0told", b""),
        (b'{"status": "ended"}', b""),
        (b"\x03", b""),
        (b"\x03\xff\xff\xff\xff", b""),
        (b"", b""),
    ],
)
def test_a_report_is_taken_whole_and_alone(said: bytes, report: bytes) -> None:
    assert watch.whole(said) == report


@pytest.mark.parametrize("name", NO_ANSWER)
def test_a_function_that_never_answers_has_not_ended(sandbox: Sandbox, name: str) -> None:
    found = run(sandbox, f"{NO_ANSWER[name]}\ndef f(): return 42\n", [], "f")
    if name == "writes a report and goes on":  # then it answers, but what it wrote makes its report unreadable
        assert reported(found) == ("runtime_error", "NoEvidence")
    assert found.status in ("runtime_error", "time_out")
    assert found.value is None
    assert still_honest(sandbox)


@pytest.mark.parametrize(
    "end", ["os._exit(1)", "os._exit(255)", "ctypes.string_at(0)", "os.closerange(3, 2000)\n1 // 0", FORGED + "1 // 0"]
)
def test_a_program_that_prints_the_answer_and_does_not_end_well_has_not_ended(sandbox: Sandbox, end: str) -> None:
    found = run(sandbox, f"import ctypes, os\nprint(42, flush=True)\n{end}")
    assert (found.status, found.value) == ("runtime_error", None)


@pytest.mark.parametrize("end", ["os._exit(0)", "os.closerange(3, 2000)", FORGED])
def test_a_program_that_ends_with_0_for_a_shell_has_ended_whatever_it_reported(sandbox: Sandbox, end: str) -> None:
    found = run(sandbox, f"import os\nprint(42, flush=True)\n{end}")
    assert (found.status, found.value) == ("ended", "42\n")


def test_neither_environment_nor_other_inputs_are_in_reach(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RRL_SECRET", "hunter2")
    first, second = runs(sandbox, SEARCH, (["input-one"], ["input" + "-two"]), "f")
    assert first.value == [False, False, True]
    assert second.value == [False, True, False]


# --- isolation --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", REACHING)
def test_a_program_does_not_reach_out(sandbox: Sandbox, name: str) -> None:
    assert run(sandbox, TRY.format(attempt=REACHING[name])).value == "kept\n"
    assert not [path for folder in ("/tmp", "/dev/shm") for path in Path(folder).glob("rrl-left-behind")]


def test_a_description_says_what_was_tried(sandbox: Sandbox) -> None:
    text = sandbox.describe()
    assert text.startswith(f"isolation {sandbox.isolation}: ")
    assert "not kept from programs: the kernel itself" in text
    facts = {**dict.fromkeys(REACHES, False), "network": True}
    assert "not kept from programs: the network; the kernel" in described("rlimits", {"bubblewrap": "absent"}, facts)
