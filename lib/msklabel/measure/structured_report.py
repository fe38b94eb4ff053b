"""The DICOM Structured Reports of a cohort's quantities, one for each scan that is DICOM."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msklabel.errors import UserError
from msklabel.measure.quantify import Quantified
from msklabel.measure.slab import is_volume
from msklabel.system import System

if TYPE_CHECKING:
    from msklabel.imaging.sr_write import Group
    from msklabel.measure.quantify_folder import Case


def write_reports(cases: Sequence[Case], system: System, out: Path) -> list[Path]:
    """Write ``<scan>_sr.dcm`` for each scan of which anything was measured.

    Raises:
        UserError: If a scan is no DICOM image; no report is written then.
    """
    from msklabel.imaging.sr_write import read_evidence, save_sr, write_sr

    documents = {}
    for case in cases:
        if case.no_slice and system.reference_slice is not None:
            continue
        if case.image_file is None:
            raise UserError("--sr: a report refers to the scans that were measured; give them by --images")
        evidence = read_evidence(case.image_file)
        documents[case.scan] = write_sr(groups_of(case.found, system), evidence, system.name)
    files = []
    for scan, document in documents.items():
        files.append(out / f"{scan}_sr.dcm")
        save_sr(document, files[-1])
    return files


def groups_of(found: Quantified, system: System) -> list[Group]:
    """What was measured, by structure and side; structures that are not there are left out."""
    from msklabel.imaging.sr_write import Group

    heights: dict[tuple[str, ...], list[float]] = {}
    low, high = _span(found)
    for row in found.profile:
        if low <= row["slice"] <= high:
            heights.setdefault(_key(row), []).append(row["z_mm"])
    groups = []
    for row in found.rows:
        if row["voxels"]:
            code = _code(str(row["structure"]), str(row["kind"]), str(row["side"]), system)
            numbers = {name: float(value) for name, value in row.items() if isinstance(value, int | float)}
            groups.append(Group(str(row["structure"]), code, str(row["side"]), numbers, heights.get(_key(row), ())))
    return groups


def _span(found: Quantified) -> tuple[float, float]:
    """First and last slice that something was measured in: those of volumes; without volumes, of areas."""
    if found.volume_slices is not None:
        return found.volume_slices
    volumes = (value for row in found.rows for name, value in row.items() if is_volume(name))
    if found.slices and all(math.isnan(value) for value in volumes):
        return min(found.slices.values()), max(found.slices.values())
    return 0, math.inf


def _key(row: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(str(row[name]) for name in ("structure", "kind", "side"))


def _code(structure: str, kind: str, side: str, system: System) -> str:
    """Code of a label; of one with a side in its name that label's code; private for a group."""
    if kind != "label":
        return ""
    label = system.labels.get(structure) or system.labels.get(f"{structure}_{side}")
    return label.code if label else ""
