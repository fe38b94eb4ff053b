"""How long choosing the next scan takes in a large pool: ``python tests/bench/bench_next.py --scans 10000``.

Makes a store of so many scans (empty files; nothing is read) of which all are scored and a tenth is labelled, and asks
each strategy again and again through its task, leases and all, for as many annotators. With ``--slices K`` they ask for
K slices of a scan, and of the labelled ones four slices are drawn, so that all of these can come again. With
``--rescoring`` a scan is scored anew before every request, as while a new version of the model looks at all of them;
with ``--busy`` as many processes as there are cores compute beside at low priority, as a training does.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from sqlalchemy import insert, update
from threadpoolctl import threadpool_limits

from msklabel.catalogue import load_catalogue
from msklabel.choose.strategies import STRATEGIES
from msklabel.choose.summary import Slices, Summary, to_bytes
from msklabel.choose.task import Choosers, strategies
from msklabel.store.datastore import MskDatastore
from msklabel.store.schema import Image, LabelVersion
from msklabel.store.scores import ScoreRow
from msklabel.system import System


class OneVersion:
    """Stands for a folder of versions."""

    def serving(self, system: str, variant: str = "") -> str | None:
        """The only one."""
        return "v1"

    def names(self, system: str) -> list[str]:
        """The only one."""
        return ["v1"]

    def considered(self, system: str, name: str) -> set[str]:
        """It has learned from all labels."""
        return {_SHA256}


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scans", type=int, default=10_000)
    parser.add_argument("--requests", type=int, default=100)
    parser.add_argument("--strategies", nargs="*", default=list(STRATEGIES))
    parser.add_argument("--slices", type=int, default=0, help="slices of a scan that are asked for")
    parser.add_argument("--rescoring", action="store_true", help="a new score comes in before every request")
    parser.add_argument("--busy", action="store_true", help="all cores compute at low priority")
    parser.add_argument("--json", type=Path, help="file for the figures")
    options = parser.parse_args()
    threadpool_limits(1, user_api="blas")  # as in the server
    folder = Path(tempfile.mkdtemp(prefix="msklabel-bench-"))
    try:
        system = load_catalogue(names=["thigh_ct"])["thigh_ct"]
        data = filled(folder, system, options.scans, options.slices > 0)
        with busy_cores(options.busy):
            figures = {name: measure(data, name, options) for name in options.strategies}
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    table = Table(
        "strategy",
        "p50 ms",
        "p95 ms",
        "max ms",
        "processor p95 ms",
        "first ms",
        title=f"next, {options.scans} scored scans",
    )
    for name, row in figures.items():
        table.add_row(name, *(f"{row[key]:.1f}" for key in ("p50", "p95", "max", "cpu_p95", "first")))
    Console().print(table)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


@contextmanager
def busy_cores(wanted: bool) -> Iterator[None]:
    """Have all cores compute at the priority of a training."""
    command = ["nice", "-n", "15", sys.executable, "-c", _COMPUTE]
    running = [subprocess.Popen(command) for _ in range(os.cpu_count() or 1) if wanted]
    try:
        yield
    finally:
        for one in running:
            one.kill()
            one.wait()


def measure(data: MskDatastore, name: str, options: argparse.Namespace) -> dict[str, float]:
    """Milliseconds of one strategy; the first request of a new process reads all scores."""
    choose = strategies(_CHOOSERS)[name]
    (system,) = data.store.systems.values()
    rng = np.random.default_rng(1)
    taken, computed = [], []
    for number in range(options.requests + 1):
        if options.rescoring:
            score = _score(f"s{rng.integers(options.scans):05d}", system, rng, len(system.labels))
            data.store.scores.put(score["image_id"], system.name, "v2", score["summary"], score["values"])
        start, busy = time.perf_counter(), time.process_time()
        found = choose({"client_id": f"{name}{number}", "slices": options.slices}, data)
        taken.append(1000 * (time.perf_counter() - start))
        computed.append(1000 * (time.process_time() - busy))
        assert found
    p50, p95 = np.percentile(taken[1:], [50, 95])
    cpu = float(np.percentile(computed[1:], 95))
    return {"p50": p50, "p95": p95, "max": max(taken[1:]), "cpu_p95": cpu, "first": taken[0]}


def filled(folder: Path, system: System, scans: int, in_part: bool) -> MskDatastore:
    """A store whose tables are full; written at once, as a year of use would have left them."""
    rng = np.random.default_rng(0)
    names = [f"s{number:05d}" for number in range(scans)]
    for name in names:
        (folder / f"{name}.nii").touch()
    data = MskDatastore(folder, folder / ".msklabel", {system.name: system})
    database = data.store.images._database
    labels = len(system.labels)
    with database.write() as session:
        session.execute(update(Image).values(shape=[4, 4, 100], affine=np.eye(4).tolist()))
        for number, name in enumerate(names):
            session.execute(
                update(Image).where(Image.id == name).values(patient=f"p{number // 2}", site=f"site{number % 4}")
            )
        rows = [_score(name, system, rng, labels) for name in names]
        session.execute(insert(ScoreRow), rows)
        session.execute(insert(LabelVersion), [_label(name, system, in_part) for name in names[::10]])
    return data


_SHA256 = "0" * 64
_COMPUTE = """
import torch
torch.set_num_threads(1)
a = torch.rand(1500, 1500)
while True:
    a @ a
"""
_CHOOSERS = Choosers(OneVersion())


def _score(name: str, system: System, rng: np.random.Generator, labels: int) -> dict[str, object]:
    area = rng.random((labels, 100)) * 40
    summary = Summary(
        model_version="v1",
        members=("network 0", "flip 0"),
        uncertain_cm2=area * rng.random((labels, 1)) * 0.3,
        area_cm2=area,
        volume_cm3=area.sum(axis=1)[None],
        agreement=rng.random((1, labels)),
        expected_dice=rng.random(labels),
        information=rng.random(labels) * 0.1,
        embedding=rng.normal(size=768),
        slices=Slices(2, False, 100, 100),
    )
    values = {"image_id": name, "system": system.name, "model_version": "v1", "summary": to_bytes(summary)}
    return {**values, "values": summary.values}


def _label(name: str, system: System, in_part: bool) -> dict[str, object]:
    return {
        "image_id": name,
        "tag": "final",
        "system": system.name,
        "origin": "manual",
        "sha256": _SHA256,
        "size_bytes": 0,
        "classes": list(system.labels),
        "info": {},
        "annotated": {"axis": 2, "slices": [10, 30, 50, 70]} if in_part else None,
        "state": "submitted",
    }


if __name__ == "__main__":
    main()
