"""Submit, next and listing with very many images, beside MONAI Label's own datastore on the same folder.

    python tests/bench/bench_store.py --images 10000

The scans are hard links to one tiny file, so that the time is the store's and not the disk's. MONAI Label's datastore
has no leases and one JSON file; at more than ``--peer`` images it is left out, because a start takes minutes.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "unit"))

from store_samples import TISSUES, write

SHAPE = (3, 2, 2)


def percentiles(call: Callable[[int], Any], times: int) -> tuple[float, float]:
    """Median and 95th percentile of the seconds that a call takes, without the first."""
    took = []
    for number in range(times + 1):
        started = time.perf_counter()
        call(number)
        took.append(time.perf_counter() - started)
    return float(np.percentile(took[1:], 50)), float(np.percentile(took[1:], 95))


def say(who: str, what: str, seconds: float | tuple[float, float]) -> None:
    """One line of the table."""
    if isinstance(seconds, tuple):
        print(f"{who:12} {what:32} median {1e3 * seconds[0]:9.1f} ms   p95 {1e3 * seconds[1]:9.1f} ms", flush=True)
    else:
        print(f"{who:12} {what:32} {seconds:9.2f} s", flush=True)


def ours(studies: Path, label: Path, calls: int) -> None:
    """Our store."""
    from msklabel.choose.task import strategies
    from msklabel.store.datastore import MskDatastore

    def opened() -> MskDatastore:
        return MskDatastore(studies, studies.parent / "state", {TISSUES.name: TISSUES})

    started = time.perf_counter()
    opened()
    say("msklabel", "first start", time.perf_counter() - started)
    started = time.perf_counter()
    data = opened()
    say("msklabel", "start", time.perf_counter() - started)
    given: list[str] = []
    for strategy in ("first", "random"):
        choose = strategies()[strategy]

        def give(number: int, choose: Any = choose) -> None:
            given.append(choose({"client_id": f"ann{number}"}, data)["id"])

        say("msklabel", f"next ({strategy})", percentiles(give, calls))
    waiting = iter(given)
    say("msklabel", "submit", percentiles(lambda _: data.submit(next(waiting), label, "final", {}), calls))

    choose = strategies()["random"]

    def turn(number: int) -> None:
        chosen = choose({"client_id": f"ben{number}"}, data)
        data.submit(chosen["id"], label, "final", {"client_id": f"ben{number}"})

    say("msklabel", "next and submit, in turn", percentiles(turn, calls))
    say("msklabel", "counts (GET /info/)", percentiles(lambda _: data.status(), 10))
    say("msklabel", "list of unlabelled images", percentiles(lambda _: data.get_unlabeled_images(), 10))
    say("msklabel", "listing (GET /datastore/?output=all)", percentiles(lambda _: data.json(), 3))


def peer(studies: Path, label: Path, calls: int) -> None:
    """MONAI Label's store."""
    from monailabel.datastore.local import LocalDatastore

    started = time.perf_counter()
    data = LocalDatastore(str(studies), extensions=["*.nii"], auto_reload=False)
    say("MONAI Label", "first start", time.perf_counter() - started)
    started = time.perf_counter()
    data = LocalDatastore(str(studies), extensions=["*.nii"], auto_reload=False)
    say("MONAI Label", "start", time.perf_counter() - started)

    def give(number: int) -> str:
        image = sorted(data.get_unlabeled_images())[number]
        data.update_image_info(image, {"strategy": {"first": {"ts": number}}})
        return str(image)

    say("MONAI Label", "next (first)", percentiles(give, calls))
    images = iter(sorted(data.list_images()))
    say("MONAI Label", "submit", percentiles(lambda _: data.save_label(next(images), str(label), "final", {}), calls))
    say("MONAI Label", "counts (GET /info/)", percentiles(lambda _: data.status(), 10))
    say("MONAI Label", "list of unlabelled images", percentiles(lambda _: data.get_unlabeled_images(), 10))
    say("MONAI Label", "listing (GET /datastore/?output=all)", percentiles(lambda _: data.json(), 3))


def main() -> None:
    """Make the folder and time both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--calls", type=int, default=60)
    parser.add_argument("--peer", type=int, default=10_000, help="most images for MONAI Label's datastore")
    parser.add_argument("--folder", type=Path, default=None, help="where; a temporary folder by default")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="store-", dir=options.folder) as folder:
        studies = Path(folder) / "studies"
        first = write(studies / "s000000.nii", np.zeros(SHAPE, np.int16))
        for number in range(1, options.images):
            if number % 30_000 == 0:
                first = write(studies / f"s{number:06d}.nii", np.zeros(SHAPE, np.int16))
            else:
                os.link(first, studies / f"s{number:06d}.nii")
        label = write(Path(folder) / "label.nii", np.ones(SHAPE, np.uint8))
        print(f"{options.images} images", flush=True)
        ours(studies, label, options.calls)
        if options.images <= options.peer:
            peer(studies, label, min(options.calls, 20))


if __name__ == "__main__":
    main()
