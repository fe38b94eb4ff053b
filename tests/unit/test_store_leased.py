"""Two processes, eight annotators: no scan is given twice."""

from __future__ import annotations

import multiprocessing
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import store_samples
from store_samples import TISSUES, store, write

from msklabel.choose.task import strategies

SCANS = 500
SHAPE = (3, 2, 2)


def annotate(names: list[str], studies: Path, strategy: str, database: str | None, results: Any) -> None:
    """Several annotators of one process ask for scans and submit labels until there is nothing left."""
    store_samples.DATABASE = database
    data = store(studies)
    choose = strategies()[strategy]
    label = studies.parent / "label.nii"

    def work(name: str) -> list[str]:
        given: list[str] = []
        while chosen := choose({"client_id": name}, data):
            given.append(chosen["id"])
            assert data.store.leases.held()[given[-1]] == name
            version = data.submit(given[-1], label, "final", {"client_id": name})
            assert version.warnings == []
        return given

    with ThreadPoolExecutor(len(names)) as pool:
        results.put(dict(zip(names, pool.map(work, names), strict=True)))


@pytest.mark.parametrize("strategy", ["first", "random"])
def test_no_scan_is_given_twice(tmp_path: Path, strategy: str, any_database: str | None) -> None:
    studies = tmp_path / "studies"
    whole = strategy == "first" and any_database is None
    for number in range(SCANS if whole else SCANS // 10):
        write(studies / f"s{number:03d}.nii", np.full(SHAPE, number, np.int16))
    write(tmp_path / "label.nii", np.full(SHAPE, 1, np.uint8))
    data = store(studies)
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    teams = [[f"ann{number}" for number in range(first, first + 4)] for first in (0, 4)]
    known = (studies, strategy, any_database, results)
    processes = [context.Process(target=annotate, args=(team, *known)) for team in teams]
    for process in processes:
        process.start()
    given = {name: scans for _ in processes for name, scans in results.get(timeout=300).items()}
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    counts = Counter(scan for scans in given.values() for scan in scans)
    assert set(counts.values()) == {1}
    assert set(counts) == set(data.list_images())
    assert len(given) == 8
    assert len([name for name, scans in given.items() if scans]) > 1  # how many more, the machine decides
    authors = {version.image_id: version.author for version, _ in data.store.labels.current("final", TISSUES.name)}
    assert authors == {scan: name for name, scans in given.items() for scan in scans}
    assert data.store.leases.held() == {}
