"""Prepared scans on disk, so that a training does not resample what the one before has resampled; bounded."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from msklabel.durable import remove_left
from msklabel.learn.cases import Case, PreparedCase, prepare_case
from msklabel.pipeline.grid import Grid
from msklabel.pipeline.preprocess import Prepared
from msklabel.pipeline.resample import AxisMap
from msklabel.pipeline.sides import Sides
from msklabel.system import System

_SUFFIX = ".safetensors"


class PreparedCache:
    """``<folder>/<key>.safetensors``; what was not used for longest goes first when there is too much.

    The key holds the checksum of the label, the identity of the scan's file, what the label speaks of, and how the
    system prepares scans: whatever the result depends on.

    Args:
        folder: Where they lie.
        most_bytes: Of all files together.
    """

    def __init__(self, folder: Path, most_bytes: int) -> None:
        self._folder = folder
        self._most_bytes = most_bytes

    def __call__(self, system: System, case: Case) -> PreparedCase:
        """A prepared case, from disk where it is there."""
        if not case.label or not case.image:
            return prepare_case(system, case)
        file = self._folder / f"{_key(system, case)}{_SUFFIX}"
        try:
            kept = read_prepared(file, case.site)
            os.utime(file)
            return kept
        except (OSError, SafetensorError, KeyError, ValueError):
            prepared = prepare_case(system, case)
            self._keep(file, prepared)
            return prepared

    def _keep(self, file: Path, case: PreparedCase) -> None:
        """Write a file whole; a disk that is full costs time only."""
        self._folder.mkdir(parents=True, exist_ok=True)
        temporary = file.with_name(f".{os.getpid()}-{file.name}")
        try:
            write_prepared(temporary, case)
            temporary.replace(file)
            self._tidy()
        except (OSError, SafetensorError):  # also where another training has just removed a file
            temporary.unlink(missing_ok=True)

    def _tidy(self) -> None:
        """Remove what killed trainings left half written, and what was not used for longest while there is too much."""
        remove_left(self._folder, f".*{_SUFFIX}")
        files = sorted(
            ((f.stat().st_mtime_ns, f.stat().st_size, f) for f in self._folder.glob(f"[!.]*{_SUFFIX}")), reverse=True
        )
        total = 0
        for _, size, file in files:
            total += size
            if total > self._most_bytes:
                file.unlink(missing_ok=True)


def _key(system: System, case: Case) -> str:
    parts = [system.preparation, case.label, case.image, asdict(case.annotated)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def write_prepared(file: Path, case: PreparedCase) -> None:
    """Write a prepared case."""
    sides = case.prepared.sides
    facts = {"grid": _grid_facts(case.prepared.grid), "sides": asdict(sides) if sides else None}
    tensors = {"image": case.prepared.image, "labels": case.labels, "known": case.known}
    save_file({name: t.contiguous() for name, t in tensors.items()}, file, {"facts": json.dumps(facts)})


def read_prepared(file: Path, site: str | None) -> PreparedCase:
    """Read what :func:`write_prepared` wrote.

    Raises:
        OSError: If there is no such file.
        SafetensorError: If it is damaged.
    """
    with safe_open(file, "pt") as stored:
        tensors: dict[str, torch.Tensor] = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
        facts = json.loads(stored.metadata()["facts"])
    sides = Sides(**facts["sides"]) if facts["sides"] else None
    prepared = Prepared(tensors["image"], _grid(facts["grid"]), sides)
    return PreparedCase(prepared, tensors["labels"], tensors["known"], site)


def _grid_facts(grid: Grid) -> dict[str, Any]:
    return {**asdict(grid), "crop": [[part.start, part.stop] for part in grid.crop]}


def _grid(facts: dict[str, Any]) -> Grid:
    x, y, z = (slice(start, stop) for start, stop in facts["crop"])
    i, j, k = (AxisMap(**axis) for axis in facts["along"])
    plain = {key: tuple(facts[key]) for key in ("native_shape", "axes", "flipped")}
    return Grid(**plain, along=(i, j, k), crop=(x, y, z))
