"""Time the papers' networks at the papers' patches: one forward and backward pass with batch 1.

    python tests/bench/bench_paper_networks.py [--systems thigh_ct,…] [--device cuda] [--json FILE]

Each system runs in a process of its own, so that its peak memory is its own. On a GPU: autocast to bfloat16, the second
pass is the one that is timed, and the memory is the GPU's.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from msklabel.catalogue import load_catalogue
from msklabel.learn.losses import build_loss
from msklabel.networks import build_network

COLUMNS = {
    "patch_voxels": "patch",
    "parameters": "parameters",
    "forward_s": "forward (s)",
    "backward_s": "backward (s)",
    "peak_gib": "peak memory (GiB)",
}


def measure(name: str, device: str) -> dict[str, Any]:
    """One system, in this process."""
    system = load_catalogue(names=[name])[name]
    network = build_network(system).train().to(device)
    loss_of = build_loss(system.train.loss)
    patch = system.patch_voxels[: system.dimensions]
    image = torch.randn(1, len(system.channels), *patch, generator=torch.Generator().manual_seed(0)).to(device)
    labels = torch.randint(0, system.classes, (1, *patch), generator=torch.Generator().manual_seed(1)).to(device)
    seconds = (0.0, 0.0)
    for _ in range(2 if device != "cpu" else 1):
        marks = [_now(device)]
        with torch.autocast("cuda", torch.bfloat16, enabled=device != "cpu"):
            loss = loss_of(network(image), labels)
        marks.append(_now(device))
        loss.backward()
        marks.append(_now(device))
        seconds = marks[1] - marks[0], marks[2] - marks[1]
    on_cpu = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "patch_voxels": "×".join(map(str, patch)),
        "parameters": sum(p.numel() for p in network.parameters()),
        "forward_s": round(seconds[0], 3),
        "backward_s": round(seconds[1], 3),
        "peak_gib": round((on_cpu if device == "cpu" else torch.cuda.max_memory_allocated()) / 2**30, 2),
    }


def _now(device: str) -> float:
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter()


def main() -> None:
    """Measure each system in turn and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--systems", default=",".join(load_catalogue()), help="comma-separated; all by default")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--json", type=Path, help="also write the numbers there")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one, options.device)))
        return
    table = Table("system", *COLUMNS.values(), title=f"one pass, batch 1, {options.device}")
    rows = {}
    for name in options.systems.split(","):
        command = [sys.executable, __file__, "--one", name, "--device", options.device]
        rows[name] = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
        table.add_row(
            name, *(f"{rows[name][key]:,}" if key == "parameters" else str(rows[name][key]) for key in COLUMNS)
        )
    Console().print(table)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
