"""The commands that results.md names still run and print their tables, on little: what they print here says nothing."""

import subprocess
import sys
from pathlib import Path

import pytest

from msklabel_phantoms.write import write_phantoms

BENCH = Path(__file__).parents[1] / "bench"
RUNS = {
    "bench_server": (
        ["--annotators", "2", "--seconds", "3", "--think", "0.3", "--segments", "1", "--training", "1"],
        ["2 annotators:", "0 dropped", "segment, predicted ahead: n 1, ahead 1", "segment, beside a training"],
    ),
    "bench_next": (["--scans", "60", "--requests", "3"], ["next, 60 scored scans", "cold_start"]),
    "bench_evaluate": (["--shape", "40", "40", "20"], ["MONAI"]),
    "crash": (["--kills", "1"], ["0 refused"]),
}


def printed(name: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, str(BENCH / f"{name}.py"), *arguments], capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.parametrize("name", RUNS)
def test_it_runs_and_prints_what_it_measured(name: str) -> None:
    arguments, expected = RUNS[name]
    said = printed(name, *arguments)
    assert all(text in said for text in expected), said


def test_predictions_are_timed_without_the_peer(tmp_path: Path) -> None:
    (scan,) = write_phantoms("hip_tissue_ct", tmp_path, count=1, seed=1, shape=(96, 80, 12), spacing_mm=(4.0, 4.0, 6.0))
    said = printed("bench_predict", "--skip-stock", "--profile", "demo", "--system", "hip_tissue_ct", "--repeats", "1",
                   "--scan", str(scan), "--resampling", "from_first_voxel", "--windows", "from_edge")  # fmt: skip
    assert "peak memory (GiB)" in said
    assert "ours ran on" in said
