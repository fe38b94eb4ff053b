"""Measure folders of label files with the images under them and what is known about the patients."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
from numpy.typing import NDArray

from msklabel.errors import UserError
from msklabel.imaging.annotated import Annotated
from msklabel.imaging.scan import LabelMap
from msklabel.measure.case_images import find_image, measurable, on_image_grid, read_image
from msklabel.measure.clinical import read_clinical
from msklabel.measure.pairs import image_files
from msklabel.measure.quantify import Quantified, SliceChoice, quantify
from msklabel.measure.quantify_report import case_pictures, quantify_report
from msklabel.measure.quantities import KEYS
from msklabel.measure.reference_slice import NoSlice
from msklabel.measure.report.page import Picture, Report
from msklabel.measure.report.provenance import keep_beside
from msklabel.measure.sarcopenia import with_sarcopenia
from msklabel.measure.sidecars import annotated_for
from msklabel.measure.slab import slabs_in_scans
from msklabel.system import System

_DRAWN = 3  # scans that the report shows


@dataclass(frozen=True)
class Loaded:
    """A scan while it is measured; only what :class:`Case` holds is kept.

    Attributes:
        scan: Its name.
        labels: The label map, on the image's grid.
        images: What quantities are told from, by name.
        image: The image, for pictures; None without one.
    """

    scan: str
    labels: LabelMap
    images: Mapping[str, NDArray[Any]]
    image: NDArray[Any] | None


@dataclass(frozen=True)
class Case:
    """A measured scan.

    Attributes:
        scan: Its name.
        labels_file: Where the labels came from.
        image_file: Where the image came from; None without one.
        found: What was measured.
        no_slice: Why what is of a slice could not be measured; else empty.
    """

    scan: str
    labels_file: Path
    image_file: Path | None
    found: Quantified
    no_slice: str = ""


@dataclass(frozen=True)
class Cohort:
    """What a cohort's measurement found.

    Attributes:
        quantities: A row for each scan, structure and side; units in the column names. Where areas, means and shares
            are of one slice, ``slice`` is its number, counted from the lowest, from 0; where volumes are of a slab
            around it, ``volume_slices`` has its first and last, ``slab_mm`` their height, and ``slab_voxels``
            the voxels in them; ``voxels`` are those of the whole scan. ``note`` says why a scan has none of this, where
            there is such a scan.
        profiles: A row for each scan, structure, side and slice.
        clinical: What was given, with index and class of sarcopenia; None without a table.
        report: The page.
        cases: The scans.
        warnings: What speaks against comparing them.
    """

    quantities: pd.DataFrame
    profiles: pd.DataFrame
    clinical: pd.DataFrame | None
    report: Report
    cases: Sequence[Case] = ()
    warnings: Sequence[str] = ()

    def write(self, out: Path) -> None:
        """Write ``quantities.csv`` and what it was made from, ``profiles.csv`` and, with facts, ``cases.csv``."""
        self.quantities.to_csv(out / "quantities.csv", index=False)
        keep_beside(out / "quantities.csv", self.report.provenance)
        self.profiles.to_csv(out / "profiles.csv", index=False)
        if self.clinical is not None:
            self.clinical.to_csv(out / "cases.csv")


def quantify_folder(
    system: System,
    labels: Path,
    images: Path | None = None,
    clinical: Path | None = None,
    choice: SliceChoice | None = None,
    sides: str = "auto",
    resample: bool = False,
    each: Callable[[Loaded], object] = lambda loaded: None,
    of_store: Mapping[str, Annotated] | None = None,
    model: Path | None = None,
) -> Cohort:
    """Measure every label map of a folder.

    Args:
        system: Names labels and quantities.
        labels: Folder of label maps.
        images: Folder of the scans, of the same names; channels as ``<name>_water``, ``<name>_fat``.
        clinical: CSV with a row for each scan.
        choice: The slice that areas are measured in.
        sides: As for :func:`msklabel.measure.quantify.quantify`.
        resample: Bring labels to the grid of their image where it is another.
        each: Given every scan as it is done.
        of_store: What labels speak of, by checksum, see :mod:`msklabel.measure.sidecars`.
        model: Folder of the model version that made the labels, where one did.

    Raises:
        UserError: If an image or a patient is missing, a grid differs, a value is impossible, or no scan has the slice
            that is measured; a scan without it among others stays empty, and is warned of.
    """
    files = image_files(labels)
    table = with_sarcopenia(read_clinical(clinical)) if clinical else None
    if table is not None and (missing := [scan for scan in files if scan not in table.index]):
        raise UserError(f"{clinical}: no row for {', '.join(missing[:5])}{' …' if len(missing) > 5 else ''}")
    if images is not None and not images.is_dir():
        raise UserError(f"{images}: no such folder")
    cases: list[Case] = []
    pictures: list[Picture] = []
    drawn = set(list(files)[:: max(1, len(files) // _DRAWN)][:_DRAWN])
    for scan, file in files.items():
        height = None if table is None or "height_cm" not in table else float(table["height_cm"][scan])
        case, loaded = _measure(system, scan, file, images, height, choice, sides, resample, of_store)
        each(loaded)
        cases.append(case)
        if scan in drawn:
            pictures += case_pictures(loaded, case.found, system)
    if all(case.no_slice for case in cases):
        raise UserError(cases[0].no_slice)
    warnings = [case.no_slice for case in cases if case.no_slice]
    for case in cases:
        warnings += [f"{case.scan}, {side}: {why}" for side, why in case.found.missing.items() if side != "both"]
    rows = pd.DataFrame([{"note": case.no_slice, **row} for case in cases for row in case.found.rows])
    rows = rows if warnings else rows.drop(columns="note")
    keys = [name for name in KEYS if name in rows]  # in front, also where the first scan has none of some
    rows = rows[[*keys, *rows.columns.difference(keys, sort=False)]]
    if "slice" in rows:
        rows["slice"] = rows["slice"].astype("Int64")  # a whole number where some scans have none, too
    profiles = pd.DataFrame([row for case in cases for row in case.found.profile])
    shown = None if table is None else table.loc[list(files)]
    if apart := slabs_in_scans(rows, [case.scan for case in cases if case.found.volume_slices]):
        warnings.append(f"Volumes are not of slabs of one height in all scans: {apart}")
    report = quantify_report(system, rows, profiles, shown, cases, pictures, model, warnings)
    return Cohort(rows, profiles, shown, report, cases, warnings)


def _measure(
    system: System,
    scan: str,
    file: Path,
    images: Path | None,
    height_cm: float | None,
    choice: SliceChoice | None,
    sides: str,
    resample: bool,
    of_store: Mapping[str, Annotated] | None,
) -> tuple[Case, Loaded]:
    from msklabel.imaging.read import read_labels

    label_map = read_labels(file)
    annotated = annotated_for(file, system, label_map.array.shape, of_store)
    image_file = find_image(images, scan) if images else None
    if images and image_file is None:
        raise UserError(f"{images}: no image of the name {scan}")
    image = read_image(image_file, system) if image_file else None
    values: dict[str, NDArray[Any]] = {}
    if image is not None:
        drawn, label_map = label_map, on_image_grid(label_map, image, scan, resample)
        if label_map is not drawn and annotated.slices is not None:
            raise UserError(f"{scan}: slices that were looked at are not known on another grid; leave out --resample")
        values = measurable(image, system, scan)
    given = (scan, label_map.array, label_map.affine, system, values, height_cm)
    no_slice = ""
    try:
        found = quantify(*given, choice, sides, annotated)
    except NoSlice as error:
        no_slice = f"{scan}: {error}"
        found = quantify(*given, SliceChoice("unknown"), sides, annotated)
        found = replace(found, notes=[no_slice, *found.notes])
    except UserError as error:
        raise UserError(str(error) if str(error).startswith(f"{scan}:") else f"{scan}: {error}") from error
    drawable = None if image is None else image.array[0]
    return Case(scan, file, image_file, found, no_slice), Loaded(scan, label_map, values, drawable)
