"""A scan whose scoring goes wrong in a way that nobody foresaw."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from store_samples import store
from test_choosing import TOY, publish, studies

from msklabel.choose.summarise import Summarise
from msklabel.choose.task import Choosers, SummaryScoring

__all__ = ["studies"]


def test_a_scan_that_breaks_its_scoring_does_not_stop_the_others(
    studies: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    data = store(studies, TOY)
    choosers = Choosers(publish(data.store.state))
    scoring, healthy = SummaryScoring(choosers, choosers.versions), Summarise.__call__

    def breaks(self: Summarise, scan: Any, *rest: Any) -> Any:
        if scan.array.std() < least.pop():
            raise MemoryError("too large")
        return healthy(self, scan, *rest)

    monkeypatch.setattr(Summarise, "__call__", breaks)
    least = [np.inf] * 2
    with pytest.raises(MemoryError, match="too large"):
        scoring({"limit": 2}, data)
    assert data.store.scores.newest("toy") == {}
    least = [0] * 5 + [np.inf]
    said = scoring({}, data)["toy"]
    assert (said["scored"], said["failed"], said["left"]) == (5, 1, 0)
    assert caplog.text.count("could not be scored") == 3
    assert scoring({}, data)["toy"]["failed"] == 0
