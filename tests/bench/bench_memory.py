"""Time and memory of segmenting one scan of full size, stage by stage.

``python tests/bench/bench_memory.py --labelmap pelvis_to_knee_labels.nii.gz`` makes a synthetic CT of 512 x 512 x 250
voxels out of a real label map (``msklabel synthesize``) and segments it with the network of a system's paper profile
and random weights: what it finds means nothing, what it costs is what a trained one costs. Peaks are of resident
memory, counted anew for each stage (Linux).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table


def main() -> None:
    """Make the scan, segment it in a process of its own, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--labelmap", type=Path, help="label map to make a CT of")
    parser.add_argument("--scan", type=Path, help="instead: a scan that is there")
    parser.add_argument("--shape", default="512x512x250", help="voxels of the CT")
    parser.add_argument("--system", default="thigh_ct")
    parser.add_argument("--profile", default="paper")
    parser.add_argument("--members", type=int, default=1, help="networks of an ensemble")
    parser.add_argument("--windows", type=int, default=0, help="predict so many windows only: same memory, less time")
    parser.add_argument("--limit-gib", type=float, default=6.0, help="fail above this")
    options = parser.parse_args()
    if (options.labelmap is None) == (options.scan is None):
        parser.error("give --labelmap or --scan")
    with tempfile.TemporaryDirectory(prefix="msklabel-bench-") as folder:
        scan = options.scan or _synthetic(options.labelmap, options.shape, Path(folder))
        numbers = [str(options.members), str(options.windows)]
        job = [str(scan), options.system, options.profile, *numbers, str(Path(folder) / "result.nii.gz")]
        done = subprocess.run([sys.executable, __file__, "--measure", *job], stdout=subprocess.PIPE, check=True)
        figures = json.loads(done.stdout)
    peak_gib = max(stage["peak_gib"] for stage in figures["stages"].values())
    table = Table("stage", "s", "peak (GiB)", title=f"{options.system}, {options.profile} profile, {figures['shape']}")
    for name, stage in figures["stages"].items():
        table.add_row(name, f"{stage['seconds']:.1f}", f"{stage['peak_gib']:.2f}")
    table.add_row("all", f"{sum(s['seconds'] for s in figures['stages'].values()):.1f}", f"{peak_gib:.2f}")
    Console().print(table)
    print("{windows} of {all_windows} windows, {threads} threads, {labels} labels found".format(**figures))
    if peak_gib > options.limit_gib:
        sys.exit(f"peak of {peak_gib:.2f} GiB is above {options.limit_gib} GiB")


def _synthetic(labelmap: Path, shape: str, folder: Path) -> Path:
    command = [sys.executable, "-m", "msklabel", "synthesize", str(labelmap), "--modality", "ct", "--shape", shape]
    subprocess.run([*command, "-o", str(folder)], check=True)
    return next((folder / "images").glob("*.nii.gz"))


def measure(scan_file: Path, system_name: str, profile: str, members: int, most_windows: int, result: Path) -> dict:
    """Segment a scan as the server does; seconds and peak of each stage.

    As many slices of scores as a window is deep are held from the first window on, so that a few windows have the peak
    of all.
    """
    stages: dict[str, dict[str, float]] = {}

    @contextmanager
    def stage(name: str) -> Iterator[None]:
        Path("/proc/self/clear_refs").write_text("5")  # forgets the peak
        started = time.perf_counter()
        yield
        lines = Path("/proc/self/status").read_text().splitlines()
        peak_kib = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
        stages[name] = {"seconds": time.perf_counter() - started, "peak_gib": peak_kib / 2**20}

    with stage("start"):
        from msklabel.catalogue import load_catalogue
        from msklabel.imaging.scan import LabelMap
        from msklabel.imaging.write import write_labels
        from msklabel.networks import build_network
        from msklabel.predict import engine as engine_module
        from msklabel.predict.engine import Engine
        from msklabel.predict.source import read_for

        system = load_catalogue(names=[system_name], profile=profile)[system_name]
        planned: list[int] = []
        plan = engine_module.plan_windows

        def some_windows(*arguments: Any) -> list:
            windows = plan(*arguments)
            planned.append(len(windows))
            return windows[:: max(1, len(windows) // most_windows)][:most_windows] if most_windows else windows

        engine_module.plan_windows = some_windows
        torch.manual_seed(0)
        engine = Engine(system, [build_network(system) for _ in range(members)])
    with stage("read"):
        scan = read_for(system, scan_file)
    counted = [0]
    with stage("segment"):
        labels = engine(scan, lambda done, windows: counted.append(_told(done, windows))).labels.array
    with stage("write"):
        write_labels(result, LabelMap(labels, scan.affine), system.labels)
    return {
        "stages": stages,
        "shape": " x ".join(str(n) for n in scan.shape),
        "windows": counted[-1],
        "all_windows": sum(planned) * members,
        "threads": torch.get_num_threads(),
        "labels": len(np.unique(labels)) - 1,
    }


def _told(done: int, windows: int) -> int:
    if done % 20 < 2 or windows < 20:
        print(f"{time.strftime('%H:%M:%S')} {done} of {windows} windows", file=sys.stderr, flush=True)
    return windows


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        file, name, which, networks, most, out = sys.argv[2:]
        print(json.dumps(measure(Path(file), name, which, int(networks), int(most), Path(out))))
    else:
        main()
