from __future__ import annotations

from pathlib import Path

import pytest

from reconstruct import memory


@pytest.mark.skipif(not memory.PROCESS.is_dir(), reason="only Linux counts from a moment on")
def test_the_peak_is_of_what_was_held_since_it_was_restarted() -> None:
    def peak_after(megabytes: int) -> float:
        memory.restart_peak()
        held = bytearray(b"x") * (megabytes * 10**6)
        del held
        peak = memory.peak_mb()
        assert peak is not None
        return peak

    little, much = peak_after(1), peak_after(300)
    assert much - little == pytest.approx(300, abs=30)
    assert peak_after(1) == pytest.approx(little, abs=30)


def test_where_proc_is_closed_the_whole_process_is_counted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    here = memory.peak_mb()
    monkeypatch.setattr(memory, "PROCESS", tmp_path / "absent")
    memory.restart_peak()
    whole = memory.peak_mb()
    assert here is not None
    assert whole is not None
    assert whole >= here - 1
