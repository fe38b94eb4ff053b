"""Voxel-based relaxometry of a cohort: maps to one grid, correlations in the cartilage, tables, maps, a page."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import ndimage

from msklabel.errors import NotFound, UserError
from msklabel.imaging.alignment import misfit
from msklabel.imaging.geometry import Affine
from msklabel.imaging.registration import KINDS, SUFFIXES, Moved, Moving, register, transformed
from msklabel.imaging.scan import Scan
from msklabel.measure.associations import wide
from msklabel.measure.clinical import number_columns, read_clinical, read_table
from msklabel.measure.pairs import image_files
from msklabel.measure.relaxometry import Relaxometry, voxel_correlation
from msklabel.measure.relaxometry_report import relaxometry_report
from msklabel.measure.report.page import Report
from msklabel.measure.report.provenance import of_files, of_table, software

EVERYBODY = "all"
_BATCH = 8  # patients in one process
_AROUND_MM = 10.0  # about the mask, where the likeness to the reference is told
_DOUBTFUL = 0.5


@dataclass(frozen=True)
class Space:
    """The common space.

    Attributes:
        reference: The image that others are registered to, shape (X, Y, Z).
        mask: Cartilage, likewise.
        affine: Voxel index to RAS mm.
    """

    reference: NDArray[Any]
    mask: NDArray[np.bool_]
    affine: Affine


@dataclass(frozen=True)
class How:
    """What is asked for.

    Attributes:
        register: ``rigid``, ``bspline``, or ``none`` where all maps lie on the reference's grid.
        transforms: Folder of transforms, ``<scan>.tfm``, instead of a registration.
        images: Folder of the images that are registered; None: the maps themselves.
        adjust: Columns to adjust for.
        cohort: Column that parts the patients; None: all together only.
        fdr: Adjust p for the false discovery rate.
    """

    register: str = "bspline"
    transforms: Path | None = None
    images: Path | None = None
    adjust: Sequence[str] = ()
    cohort: str | None = None
    fdr: bool = False


@dataclass(frozen=True)
class Result:
    """What was found.

    Attributes:
        table: A row for each cohort and exposure; ``maps`` is what the names of its maps begin with.
        likeness: A row for each patient: correlation with the reference about the mask, after registration.
        maps: R and p of each cohort and exposure, by file name without suffix.
        affine: Of these maps.
        report: The page.
    """

    table: pd.DataFrame
    likeness: pd.DataFrame
    maps: Mapping[str, NDArray[np.float64]]
    affine: Affine
    report: Report = field(repr=False)

    def write(self, out: Path) -> None:
        """Write ``relaxometry.csv``, ``registration.csv`` and the maps as NIfTI."""
        from msklabel.imaging.maps import write_map

        self.table.to_csv(out / "relaxometry.csv", index=False)
        self.likeness.to_csv(out / "registration.csv", index=False)
        for name, values in self.maps.items():
            write_map(out / f"{name}.nii.gz", values, self.affine)


def relaxometry_folder(
    maps: Path,
    reference: Path,
    mask: Path,
    clinical: Path,
    exposures: Sequence[str],
    how: How,
    quantities: Path | None = None,
    say: Callable[[str], object] = lambda line: None,
) -> Result:
    """Correlate the relaxation times of a cohort with exposures, voxel by voxel.

    Args:
        maps: Folder of T1rho or T2 maps in ms, ``<scan>.nii.gz``; 0 or NaN where they say nothing.
        reference: Image in the common space.
        mask: Cartilage on the grid of the reference.
        clinical: CSV with a row for each scan.
        exposures: Columns of the clinical table, or ``<structure>:<quantity>`` of ``quantities``.
        how: The rest.
        quantities: ``quantities.csv`` of ``msklabel quantify``.
        say: Told of the progress.

    Raises:
        UserError: If files or columns are missing or do not fit, or there are too few patients in all.
    """
    files = image_files(maps)
    space = read_space(reference, mask)
    facts = _facts(clinical, quantities, exposures, how, list(files))
    moved = _moved(space, files, how, say)
    likeness = pd.DataFrame([_likeness(scan, one, space) for scan, one in moved.items()])
    stack = np.stack([one.values for one in moved.values()])
    rows: list[dict[str, object]] = []
    found: dict[tuple[str, str], Relaxometry] = {}
    for cohort, members in _cohorts(facts, how.cohort).items():
        for exposure in exposures:
            row, result = _correlate(stack[members], space.mask, facts[members], exposure, how)
            rows.append({"cohort": cohort, "exposure": exposure, "adjusted_for": ", ".join(how.adjust), **row})
            if result:
                found[cohort, exposure] = result
    if not found:
        raise UserError(str(rows[0]["note"]))
    stems = _file_stems(found)
    table = pd.DataFrame([row | {"maps": stems.get((str(row["cohort"]), str(row["exposure"])), "")} for row in rows])
    notes = [f"{scan}: little like the reference after registration" for scan in _doubtful(likeness)]
    if how.cohort and (unsaid := facts["cohort"].isna()).any():
        notes.append(f"no {how.cohort} is known of {', '.join(facts.index[unsaid])}: with all, and in no cohort")
    provenance = [*software(), *of_files("file", [reference, mask, clinical]), *of_files("map", files.values())]
    provenance += of_table("quantities", quantities) if quantities else []
    report = relaxometry_report(space, found, table, likeness, notes, _words(how), provenance)
    named = {f"{stems[key]}_{what}": getattr(one, what) for key, one in found.items() for what in ("r", "p")}
    return Result(table, likeness, named, space.affine, report)


def read_space(reference: Path, mask: Path) -> Space:
    """Read the common space.

    Raises:
        UserError: If the mask is empty or lies on another grid.
    """
    from msklabel.imaging.read import read_labels, read_scan

    image, labels = read_scan(reference), read_labels(mask)
    differs = misfit(image, Scan(labels.array[None], labels.affine), ("the reference", "the mask"))
    if differs:
        raise UserError(differs)
    if not labels.array.any():
        raise UserError(f"{mask.name}: the mask is empty")
    return Space(image.array[0], labels.array > 0, image.affine)


def _facts(
    clinical: Path, quantities: Path | None, exposures: Sequence[str], how: How, scans: list[str]
) -> pd.DataFrame:
    """Exposures, covariates and cohort of each scan, in the order of the scans."""
    table = read_clinical(clinical, [*how.adjust, *([how.cohort] if how.cohort else [])])
    measured = wide(read_table(quantities)) if quantities else pd.DataFrame()
    own = [name for name in exposures if name not in measured]
    unknown = [name for name in own if name not in table]
    if unknown:
        there = ", ".join([*table.columns, *measured.columns][:12])
        raise UserError(f"there is no exposure {unknown[0]!r} in the tables; there are {there} …")
    missing = [scan for scan in scans if scan not in table.index]
    if missing:
        raise UserError(f"{clinical.name}: no row for {', '.join(missing[:5])}{' …' if len(missing) > 5 else ''}")
    facts = number_columns(clinical, table, [*how.adjust, *own]).loc[scans]
    for name in exposures:
        if name in measured:
            facts[name] = measured[name].reindex(scans)
    if how.cohort:
        said = table.loc[scans, how.cohort]
        facts["cohort"] = said.astype(str).where(said.notna())
        if EVERYBODY in set(facts["cohort"]):
            raise UserError(
                f"{clinical.name}, {how.cohort}: no cohort can be {EVERYBODY!r}, as all together are called"
            )
    return facts


def _moved(space: Space, files: Mapping[str, Path], how: How, say: Callable[[str], object]) -> dict[str, Moved]:
    """Every patient in the common space."""
    from msklabel.imaging.read import read_scan

    if how.register not in (*KINDS, "none"):
        raise UserError(f"--register: expected one of {', '.join((*KINDS, 'none'))}, got {how.register!r}")
    images = image_files(how.images) if how.images else files
    lacking = [scan for scan in files if scan not in images]
    if lacking:
        raise UserError(f"{how.images}: no image of {lacking[0]}")
    moved: dict[str, Moved] = {}
    waiting: dict[str, Moving] = {}
    for number, (scan, file) in enumerate(files.items(), start=1):
        values, image = read_scan(file), read_scan(images[scan])
        if differs := misfit(values, image, ("the map", "the image")):
            raise UserError(f"{scan}: {differs}")
        one = Moving(image.array[0], values.array[0], values.affine)
        if how.transforms:
            moved[scan] = transformed(space.mask.shape, space.affine, one, _transform(how.transforms, scan))
        elif how.register == "none":
            moved[scan] = _as_it_lies(scan, one, space)
        else:
            waiting[scan] = one
        if waiting and (len(waiting) == _BATCH or number == len(files)):
            kind = next(known for known in KINDS if known == how.register)
            done = register(space.reference, space.affine, list(waiting.values()), kind, names=list(waiting))
            moved |= dict(zip(waiting, done, strict=True))
            waiting = {}
        say(f"{len(moved)} of {len(files)} maps are in the common space")
    return moved


def _as_it_lies(scan: str, one: Moving, space: Space) -> Moved:
    fixed, own = Scan(space.reference[None], space.affine), Scan(one.values[None], one.affine)
    if differs := misfit(fixed, own, ("the reference", "the map")):
        raise UserError(f"{scan}: {differs}; --register bspline brings it to the reference")
    speaks = np.isfinite(one.values) & (one.values > 0)
    return Moved(np.asarray(one.image, np.float32), np.where(speaks, one.values, np.nan).astype(np.float32))


def _transform(folder: Path, scan: str) -> Path:
    found = [folder / f"{scan}{suffix}" for suffix in SUFFIXES if (folder / f"{scan}{suffix}").is_file()]
    if not found:
        raise NotFound(f"{folder}: no transform of {scan}, such as {scan}{SUFFIXES[0]}")
    return found[0]


def _likeness(scan: str, one: Moved, space: Space) -> dict[str, object]:
    """Correlation of a registered image with the reference about the mask, and how much of the mask has a value."""
    spacing = np.linalg.norm(space.affine[:3, :3], axis=0)
    near = ndimage.distance_transform_edt(~space.mask, sampling=spacing) <= _AROUND_MM
    a, b = space.reference[near].astype(float), one.image[near].astype(float)
    r = float(np.corrcoef(a, b)[0, 1]) if a.std() and b.std() else float("nan")
    told = 100 * float(np.isfinite(one.values[space.mask]).mean())
    return {"scan": scan, "correlation_with_reference": r, "mask_told_percent": told}


def _doubtful(likeness: pd.DataFrame) -> list[str]:
    alike = likeness["correlation_with_reference"] >= _DOUBTFUL
    return [str(scan) for scan in likeness["scan"][~alike]]


def _cohorts(facts: pd.DataFrame, column: str | None) -> dict[str, NDArray[np.bool_]]:
    """Who belongs to which cohort; everybody first, and of whom none is said nowhere else."""
    found = {EVERYBODY: np.ones(len(facts), bool)}
    if column:
        found |= {name: (facts["cohort"] == name).to_numpy() for name in sorted(set(facts["cohort"].dropna()))}
    return found


def _correlate(
    stack: NDArray[Any], mask: NDArray[np.bool_], facts: pd.DataFrame, exposure: str, how: How
) -> tuple[dict[str, object], Relaxometry | None]:
    """A row of the table, and the maps; too few patients, or one without a number, are said."""
    whole = facts[[exposure, *how.adjust]].notna().all(axis=1).to_numpy()
    told = facts[whole]
    covariates = told[list(how.adjust)].to_numpy(float) if how.adjust else None
    try:
        found = voxel_correlation(stack[whole], mask, told[exposure].to_numpy(float), covariates, how.fdr)
    except UserError as error:
        return {"cases": int(whole.sum()), "note": str(error)}, None
    row: dict[str, object] = {"cases": found.cases, "voxels": found.voxels, "psv_percent": found.psv_percent}
    row |= {"mean_r": found.mean_r, "mean_p": found.mean_p, "p_adjusted": found.fdr}
    left_out = int((~whole).sum())
    return {**row, "note": f"{left_out} left out for want of a number" if left_out else ""}, found


def _words(how: How) -> list[str]:
    """How it was computed."""
    place = {
        "rigid": "registered to the reference rigidly (elastix, mutual information)",
        "bspline": "registered to the reference rigidly, then by a B-spline of 12 mm (elastix, mutual information)",
        "none": "taken as they lie on the grid of the reference",
    }[how.register]
    place = "brought to the reference by the given transforms" if how.transforms else place
    adjusted = f", adjusted for {', '.join(how.adjust)}" if how.adjust else ", not adjusted"
    p = "adjusted for the false discovery rate (Benjamini and Hochberg)" if how.fdr else "not corrected for many voxels"
    return [
        f"Maps were {place}. At each voxel of the mask: partial Pearson correlation{adjusted}; p two-sided, {p}.",
        "A voxel counts where every patient of the cohort has a relaxation time. PSV is the share of these voxels with "
        "p < 0.05; by chance alone it would be about 5 % where p is not corrected.",
    ]


def _file_stems(keys: Iterable[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """What the names of each one's files begin with: plain letters, and a number where <60 and >60 were the same."""
    found: dict[tuple[str, str], str] = {}
    for cohort, exposure in keys:
        stem = f"{_plain(cohort)}_{_plain(exposure)}"
        names = (stem if number == 1 else f"{stem}_{number}" for number in count(1))
        found[cohort, exposure] = next(name for name in names if name not in found.values())
    return found


def _plain(text: str) -> str:
    return "".join(character if character.isalnum() or character in "-_" else "_" for character in text)
