"""How long annotators wait while the server computes: ``python tests/bench/bench_server.py --seconds 60``.

1, 4 and 16 annotators ask for the next scan, download it, think and submit a label, over and over, while inferences run
one after the other. They think for times drawn from an exponential distribution, before they begin, too: with one and
the same time all would come at once, again and again. Each request opens a connection of its own, as 3D Slicer does. A
download is timed to its first byte. ``dropped`` counts requests that failed, and labels that were acknowledged and are
not in the store afterwards. The share of the processors' time that the machine's host kept for other guests is printed:
where it is not near 0 the figures are the machine's, not the server's.

Before they come, ``--segments 10`` presses *Segment* on ten served scans that were predicted ahead, and
``--training 10`` segments ten others first on the idle server and then while it trains.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import platform
import random
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import requests
from bench_latency import SERVER, SYSTEM, Inferences, free_port, in_a_folder, publish_fresh_weights, wait_for
from rich.console import Console
from rich.table import Table
from segment_waits import beside_training, prefetched

from msklabel_phantoms.write import write_phantoms

KINDS = ("info", "next", "download", "submit")


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--annotators", type=int, nargs="+", default=(1, 4, 16), help="how many at once (1 4 16)")
    parser.add_argument("--seconds", type=float, default=60.0, help="length of each measurement (60)")
    parser.add_argument("--think", type=float, default=2.0, help="mean seconds between download and label (2)")
    parser.add_argument("--profile", default="demo", help="profile of the system that infers: demo or paper (demo)")
    parser.add_argument("--shape", type=int, nargs=3, default=(256, 192, 24), help="voxels of a scan (256 192 24)")
    parser.add_argument("--segments", type=int, default=0, help="served scans to segment that were predicted ahead (0)")
    parser.add_argument("--training", type=int, default=0, help="scans to segment idle and beside a training (0)")
    parser.add_argument("--described", action="store_true", help="the server has seen all scans before")
    parser.add_argument("--json", type=Path, help="file for the figures")
    in_a_folder(measure, show, parser.parse_args())


def measure(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Prepare a studies folder, run a server on it, let annotators work."""
    names, label = _studies(folder, options)
    publish_fresh_weights(folder / "images", options.profile)
    port = free_port()
    conf = {"models": SYSTEM, "profile": options.profile, "auto_train": "false"}
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER, json.dumps([str(folder / "images"), conf, port])], stdout=subprocess.DEVNULL
    )
    figures: dict[str, Any] = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
        "profile": options.profile,
        "shape": list(options.shape),
        "annotators": {},
    }
    try:
        wait_for(port)
        state = folder / "images" / ".msklabel"
        if options.segments:
            figures["segment, predicted ahead"] = prefetched(port, state, options.segments)
        if options.training:
            images = names[-options.training - 4 :]
            figures["segment, beside a training"] = beside_training(port, state, images, label)
        if options.described:
            _described(port)
        with Inferences(port, names[:2]) as inferences:
            for count in options.annotators:
                figures["annotators"][count] = _with(count, port, label, options)
        figures["inferences"] = inferences.summary()
        return figures
    finally:
        server.terminate()
        server.wait(60)


def _studies(folder: Path, options: argparse.Namespace) -> tuple[list[str], bytes]:
    """One phantom under as many names as could be labelled, and its label."""
    (made,) = write_phantoms(SYSTEM, folder, count=1, seed=5, shape=options.shape, spacing_mm=(1.6, 1.6, 3.0))
    each = 1.5 * options.seconds / (options.think + 0.05) + 10
    most = int(sum(count * each for count in options.annotators)) + 2
    most += options.segments + 3 + options.training + 4
    for number in range(most):
        os.link(made, made.with_name(f"scan_{number:05d}.nii.gz"))
    label = next((folder / "truth").glob("*.nii.gz")).read_bytes()
    made.unlink()
    return [f"scan_{number:05d}" for number in range(most)], label


def _described(port: int) -> None:
    """Have all scans described, which the server does by itself when nobody has asked for anything for a minute."""
    requests.post(f"http://127.0.0.1:{port}/scoring/summary", json={"images_only": True}, timeout=60).raise_for_status()
    while requests.get(f"http://127.0.0.1:{port}/scoring/?check_if_running=true", timeout=60).ok:
        time.sleep(1)


def _with(count: int, port: int, label: bytes, options: argparse.Namespace) -> dict[str, Any]:
    """Latencies while so many annotators work."""
    crew = [Annotator(f"a{count}_{number}", port, label, options.think) for number in range(count)]
    taken: dict[str, list[float]] = {kind: [] for kind in KINDS}
    end = time.perf_counter() + options.seconds
    before = _processor_time()
    for one in crew:
        one.start(end)
    while time.perf_counter() < end:
        taken["info"].append(timed(port, "GET", "/info/")[0])
        time.sleep(0.05)
    for one in crew:
        one.thread.join()
        for kind, values in one.taken.items():
            taken[kind] += values
    stolen, spent = (now - then for now, then in zip(_processor_time(), before, strict=True))
    kept = requests.get(f"http://127.0.0.1:{port}/datastore/?output=all", timeout=600).json()["objects"]
    submitted = [image for one in crew for image in one.submitted]
    lost = [image for image in submitted if "final" not in kept[image]["labels"]]
    failed = [problem for one in crew for problem in one.failed]
    found = {kind: _percentiles(values) for kind, values in taken.items() if values}
    counts = {"labels": len(submitted), "dropped": len(lost) + len(failed), "failed": failed[:3]}
    return {**found, **counts, "stolen_percent": 100 * stolen / max(spent, 1)}


def _processor_time() -> tuple[int, int]:
    """What the host withheld from this machine, and all, in ticks of all cores; zeros where Linux does not say."""
    try:
        ticks = [int(value) for value in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    except OSError:
        return 0, 0
    return ticks[7], sum(ticks)


class Annotator:
    """One who works until the end."""

    def __init__(self, name: str, port: int, label: bytes, think_s: float) -> None:
        self.name, self.port, self.label, self.think_s = name, port, label, think_s
        self.rng = random.Random(name)
        self.taken: dict[str, list[float]] = {"next": [], "download": [], "submit": []}
        self.submitted: list[str] = []
        self.failed: list[str] = []

    def start(self, end: float) -> None:
        """Work on a thread until a time of ``time.perf_counter``."""
        self.thread = threading.Thread(target=self._work, args=(end,), daemon=True)
        self.thread.start()

    def _work(self, end: float) -> None:
        self._think()
        while time.perf_counter() < end:
            seconds, said = timed(self.port, "POST", "/activelearning/random", json.dumps({"client_id": self.name}))
            self.taken["next"].append(seconds)
            image = (said or {}).get("id")
            if image is None:
                self.failed.append(f"next: {said}")
                continue
            self.taken["download"].append(timed(self.port, "GET", f"/datastore/image?image={image}")[0])
            self._think()
            if time.perf_counter() < end:
                self._submit(image)

    def _think(self) -> None:
        if self.think_s:
            time.sleep(self.rng.expovariate(1 / self.think_s))

    def _submit(self, image: str) -> None:
        fields = {"params": json.dumps({"client_id": self.name, "model": SYSTEM})}
        files = {"label": ("label.nii.gz", self.label, "application/octet-stream")}
        started = time.perf_counter()
        url = f"http://127.0.0.1:{self.port}/datastore/label?image={image}"
        answer = requests.put(url, data=fields, files=files, timeout=600)
        self.taken["submit"].append(time.perf_counter() - started)
        (self.submitted if answer.ok else self.failed).append(image if answer.ok else answer.text[:200])


def timed(port: int, method: str, path: str, body: str | None = None) -> tuple[float, Any]:
    """Seconds to the first byte of the body, and the body where it is JSON."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    try:
        started = time.perf_counter()
        connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
        response = connection.getresponse()
        content = response.read(1)
        seconds = time.perf_counter() - started
        content += response.read()
        is_json = (response.getheader("Content-Type") or "").startswith("application/json")
        return seconds, json.loads(content) if is_json and response.status == 200 else None
    finally:
        connection.close()


def show(figures: dict[str, Any]) -> None:
    """Print the figures."""
    title = "Latency beside inferences, {profile} profile, scans of {shape} voxels, {machine}".format(**figures)
    table = Table("annotators", "request", "number", "p50 (ms)", "p95 (ms)", "p99 (ms)", "max (ms)", title=title)
    for count, found in figures["annotators"].items():
        for kind in KINDS:
            if kind in found:
                row = found[kind]
                table.add_row(str(count), kind, str(row["n"]), *(f"{row[k]:.1f}" for k in ("p50", "p95", "p99", "max")))
    Console(width=110).print(table)
    for count, found in figures["annotators"].items():
        print(
            f"{count} annotators: {found['labels']} labels acknowledged, {found['dropped']} dropped {found['failed']}; "
            f"the host kept {found['stolen_percent']:.1f} % of the processors"
        )
    for name in ("segment, predicted ahead", "segment, beside a training"):
        if name in figures:
            said = (
                f"{key} {value if isinstance(value, str) else f'{value:.4g}'}" for key, value in figures[name].items()
            )
            print(f"{name}: {', '.join(said)}")
    for model, row in figures["inferences"].items():
        print(f"meanwhile {row['n']} inferences of {model}, {row['mean_s']:.2f} s each with waiting")


def _percentiles(seconds: list[float]) -> dict[str, float]:
    p50, p95, p99 = np.percentile(np.array(seconds) * 1000, [50, 95, 99])
    return {"n": len(seconds), "p50": p50, "p95": p95, "p99": p99, "max": 1000 * max(seconds)}


if __name__ == "__main__":
    main()
