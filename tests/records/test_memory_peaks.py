"""Peaks of memory, of each phase and of the whole process."""

import pytest

from rrl.processes import machine
from rrl.processes.clock import Clock
from rrl.processes.machine import peak, peaks, restart_peak


def test_a_phase_has_its_own_peak_of_memory_even_after_a_larger_one() -> None:
    clock = Clock()
    for name, megabytes in (("large", 300), ("small", 100), ("nothing", 0), ("small", 20)):
        with clock.phase(name):
            held = bytearray(megabytes * 2**20)
            held[::4096] = b"x" * len(held[::4096])
            del held
    peaks = {name.removeprefix("perf/max_memory/"): 1024 * size for name, size in clock.peaks().items()}
    assert peaks["large"] - peaks["nothing"] == pytest.approx(300, abs=30)
    assert peaks["small"] - peaks["nothing"] == pytest.approx(100, abs=30)
    assert clock.peaks() == {}


def test_the_peak_of_the_whole_process_outlives_those_of_phases() -> None:
    held = bytearray(200 * 2**20)
    held[::4096] = b"x" * len(held[::4096])
    before = peaks()[0].size
    del held
    restart_peak()
    assert peaks()[0].size == before


def test_where_the_kernel_sets_no_mark_back_a_phase_has_what_is_held_or_the_new_mark(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reported = iter([(100, 900), (300, 900), (200, 900), (200, 1500), (250, 1500), (100, 1500)])
    monkeypatch.setattr(machine, "_resident", lambda: next(reported))
    found = []
    for _ in range(3):
        restart_peak()
        found.append(peak())
    assert found == [300, 1500, 250]


def test_there_is_no_peak_where_no_one_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_resident", lambda: (0, 0))
    clock = Clock()
    with clock.phase("gen"):
        pass
    assert clock.peaks() == {}


def test_an_accelerator_reports_its_own_peak(monkeypatch: pytest.MonkeyPatch) -> None:
    class Cuda:
        held, most = 10, 70

        def is_initialized(self) -> bool:
            return True

        def device_count(self) -> int:
            return 1

        def max_memory_allocated(self, number: int) -> int:
            return self.most

        def reset_peak_memory_stats(self, number: int) -> None:
            self.most = self.held

    cuda = Cuda()
    monkeypatch.setattr(machine, "_cuda", lambda: cuda)
    monkeypatch.setattr(machine, "_whole", {})
    restart_peak()
    cuda.most = 40
    assert (peak(), machine._whole[0]) == (40, 70)
