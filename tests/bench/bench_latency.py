"""How long ``GET /info/`` takes while the server computes: ``python tests/bench/bench_latency.py --seconds 20``.

Starts a server on phantoms, measures it idle, then beside an endless row of inferences (the training-free draft and
the network, with fresh weights of the chosen profile). Every request opens a connection of its own, as 3D Slicer does.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from rich.console import Console
from rich.table import Table

from msklabel_phantoms.write import write_phantoms

SYSTEM = "hip_tissue_ct"
SERVER = """
import json, sys
from msklabel.catalogue import app_folder
from msklabel.serve.run import serve
from msklabel.serve.settings import ServeSettings
studies, conf, port = json.loads(sys.argv[1])
serve(str(app_folder()), studies, conf, ServeSettings(port=port))
"""


def main() -> None:
    """Measure, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=20.0, help="length of each measurement")
    parser.add_argument("--profile", default="demo", help="profile of the system: demo or paper")
    parser.add_argument("--shape", type=int, nargs=3, default=(256, 192, 24), help="voxels of a phantom")
    parser.add_argument("--spacing", type=float, nargs=3, default=(1.6, 1.6, 3.0), help="mm")
    parser.add_argument("--json", type=Path, help="file for the figures")
    in_a_folder(measure, show, parser.parse_args())


def in_a_folder(
    measure: Callable[[Path, argparse.Namespace], dict[str, Any]],
    show: Callable[[dict[str, Any]], None],
    options: argparse.Namespace,
) -> None:
    """Measure in a folder that goes afterwards, print the table, and write JSON where ``options.json`` says."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # like Ctrl-C, so that the server ends, too
    with tempfile.TemporaryDirectory(prefix="msklabel-bench-", ignore_cleanup_errors=True) as folder:
        figures = measure(Path(folder), options)
    show(figures)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def measure(folder: Path, options: argparse.Namespace) -> dict:
    """Prepare a studies folder, run a server on it and measure."""
    studies = folder / "images"
    images = [
        path.name.removesuffix(".nii.gz")
        for path in write_phantoms(SYSTEM, folder, count=2, seed=5, shape=options.shape, spacing_mm=options.spacing)
    ]
    conf = {"models": SYSTEM, "profile": options.profile}
    publish_fresh_weights(studies, options.profile)
    port = free_port()
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER, json.dumps([str(studies), conf, port])], stdout=subprocess.DEVNULL
    )
    try:
        wait_for(port)
        figures = {"machine": f"{platform.machine()}, {os.cpu_count()} cores", "profile": options.profile}
        figures |= {"shape": list(options.shape), "seconds": options.seconds}
        figures["idle"] = latencies_ms(port, options.seconds)
        with Inferences(port, images) as inferences:
            figures["during inference"] = latencies_ms(port, options.seconds)
        figures["inferences"] = inferences.summary()
        return figures
    finally:
        server.terminate()
        server.wait(60)


def latencies_ms(port: int, seconds: float) -> dict[str, float]:
    """Percentiles of the time for ``GET /info/``, ms, asked 20 times a second."""
    taken: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        status, _ = ask(port, "GET", "/info/")
        taken.append(1000 * (time.perf_counter() - start))
        assert status == 200
        time.sleep(0.05)
    values = np.array(taken)
    p50, p95, p99 = np.percentile(values, [50, 95, 99])
    return {"n": len(taken), "p50": p50, "p95": p95, "p99": p99, "max": float(values.max())}


class Inferences:
    """Two clients that ask for one inference after the other, so that one always runs and one waits."""

    def __init__(self, port: int, images: list[str]) -> None:
        self.port = port
        self.images = images
        self.taken_s: dict[str, list[float]] = {}
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._loop, args=(n,), daemon=True) for n in range(2)]

    def __enter__(self) -> Inferences:
        for thread in self._threads:
            thread.start()
        time.sleep(1.0)
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def summary(self) -> dict[str, dict[str, float]]:
        """Number and mean seconds of the inferences of each model, waiting included."""
        return {model: {"n": len(s), "mean_s": float(np.mean(s))} for model, s in self.taken_s.items()}

    def _loop(self, number: int) -> None:
        model = (SYSTEM, f"{SYSTEM}_threshold")[number]
        while not self._stop.is_set():
            start = time.perf_counter()
            path = f"/infer/{model}?image={quote(self.images[number])}&output=image"
            status, body = ask(self.port, "POST", path)
            if status != 200:
                raise SystemExit(f"inference failed: {status} {body[:300]!r}")
            self.taken_s.setdefault(model, []).append(time.perf_counter() - start)


def show(figures: dict) -> None:
    """Print the figures."""
    table = Table(title=f"GET /info/ on {figures['machine']}; {figures['profile']} profile, {figures['shape']} voxels")
    for heading in ("", "requests", "p50 ms", "p95 ms", "p99 ms", "max ms"):
        table.add_column(heading, justify="right" if heading else "left")
    for name in ("idle", "during inference"):
        row = figures[name]
        table.add_row(name, str(row["n"]), *(f"{row[key]:.1f}" for key in ("p50", "p95", "p99", "max")))
    Console().print(table)
    for model, row in figures["inferences"].items():
        print(f"meanwhile {row['n']} inferences of {model}, {row['mean_s']:.2f} s each with waiting")


def publish_fresh_weights(studies: Path, profile: str) -> None:
    """Put untrained weights in service."""
    from msklabel.catalogue import load_catalogue
    from msklabel.learn.versions import Versions
    from msklabel.networks import build_network, weights_of

    system = load_catalogue(names=(SYSTEM,), profile=profile)[SYSTEM]
    versions = Versions(studies / ".msklabel" / "models")
    version = versions.add(system, [weights_of(build_network(system))], {"fingerprint": system.fingerprint})
    versions.publish(system.name, version.name)


def ask(port: int, method: str, path: str) -> tuple[int, bytes]:
    """One request over a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def free_port() -> int:
    """A port that nobody listens on."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(port: int) -> None:
    """Wait until a server answers."""
    for _ in range(600):
        try:
            if ask(port, "GET", "/info/")[0] == 200:
                return
        except OSError:
            time.sleep(0.2)
    raise SystemExit("the server did not start")


if __name__ == "__main__":
    main()
