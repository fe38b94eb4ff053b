"""The bench of the never-worse promise runs to its end on a tiny stream; its numbers mean nothing here."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

BENCH = Path(__file__).resolve().parents[1] / "bench"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    monkeypatch.syspath_prepend(str(BENCH))
    import bench_never_worse

    yield bench_never_worse
    sys.modules.pop("bench_never_worse")


def test_spoiled_labels_are_what_they_say(bench: object) -> None:
    labels = np.zeros((12, 8, 2), np.uint8)
    labels[1:5, 2:6], labels[7:11, 3:5] = 1, 2
    rng = np.random.default_rng(0)
    for kind in bench.KINDS:  # type: ignore[attr-defined]
        assert (bench.spoil(labels, kind, rng) != labels).any(), kind  # type: ignore[attr-defined]
    assert not bench.spoil(labels, "half empty", rng)[:6].any()  # type: ignore[attr-defined]
    assert (bench.spoil(labels, "classes swapped", rng)[2, 3] == 2).all()  # type: ignore[attr-defined]


def test_a_tiny_stream_goes_through_and_goes_on(bench: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(bench.TRAIN, "epochs", 1)  # type: ignore[attr-defined]
    result = bench.run(tmp_path, 8, 4, 2, 0)  # type: ignore[attr-defined]
    assert json.loads((tmp_path / "result.json").read_text()) == result
    for arm in ("ours", "stock"):
        versions = sorted(path.name for path in (tmp_path / arm / "hip_tissue_ct").iterdir() if path.name.isdigit())
        assert versions == ["0001", "0002"]
    assert result["spoiled"] == 1
    counted = ("first", "better published", "better kept", "other published", "other kept")
    assert sum(result["stock"][key] for key in counted) == 2
    assert result["from scratch on all"]["crops"] > 0
