"""Make a lifelike scan of a real label map."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from msklabel.catalogue import load_catalogue
from msklabel.cli.shared import Configs, console
from msklabel.errors import NotFound, UserError

_NAME_FILES = ("label_ids.txt", "label_names.txt")


def synthesize(
    labelmap: Annotated[Path, typer.Argument(help="Label map of bones and muscles: .nii.gz, .nrrd, .nii or .mha.")],
    modality: Annotated[str, typer.Option(help="ct, or dixon for out-of-phase, in-phase, water and fat images.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for images/ and truth/; made if missing.")],
    names: Annotated[
        Path | None, typer.Option(help="Names of the label map's values; label_ids.txt or label_names.txt beside it.")
    ] = None,
    system: Annotated[str, typer.Option(help="Write the truth in this system's labels; else in the map's own.")] = "",
    shape: Annotated[str, typer.Option(help="Voxels along right, anterior, superior, such as 512x512x250.")] = "",
    spacing: Annotated[str, typer.Option(help="Voxel size in mm, such as 0.9x0.9x2; what covers the map.")] = "",
    fat_percent: Annotated[float, typer.Option(help="Fat's share of muscle, 0.5 to 95.")] = 8.0,
    seed: Annotated[int, typer.Option(min=0, help="Who it is: fat, texture, noise.")] = 0,
    configs: Configs = None,
) -> None:
    """Make a synthetic scan of a real label map, with the true labels on its grid."""
    import numpy as np

    from msklabel.imaging.names import without_suffix
    from msklabel_phantoms.label_anatomy import anatomy_of
    from msklabel_phantoms.label_names import label_table, read_label_names
    from msklabel_phantoms.label_scan import DIXON_CHANNELS, synthesize
    from msklabel_phantoms.write import save_nifti

    labels = load_catalogue(configs, [system])[system].label_indices if system else None
    voxels, spacing_mm, first_mm = _read(labelmap)
    file = names or next((f for name in _NAME_FILES if (f := labelmap.with_name(name)).is_file()), None)
    if file is None or not file.is_file():
        raise NotFound(f"{file or labelmap.name}: no file with the names of the labels; give one with --names")
    try:
        known = read_label_names(file)
        anatomy = anatomy_of(voxels, spacing_mm, first_mm, known)
        sizes = [int(n) for n in _numbers(shape, "--shape")] or None
        steps = _numbers(spacing, "--spacing") or None
        scan = synthesize(anatomy, modality, seed=seed, shape=sizes, spacing_mm=steps, fat_percent=fat_percent)
    except ValueError as error:
        raise error if isinstance(error, UserError) else UserError(str(error)) from error
    stem = f"{without_suffix(labelmap.name)}_{modality}_{seed}"
    for folder in ("images", "truth"):
        (output / folder).mkdir(parents=True, exist_ok=True)
    present = {structure.value: known[structure.value] for structure in anatomy.structures}
    facts: dict[str, Any] = {"synthetic": True, "labels_of": labelmap.name, **scan.facts}
    facts["fat_percent"] = {present[value]: percent for value, percent in scan.facts["fat_percent"].items()}  # type: ignore[union-attr]
    truth = scan.labels.astype(np.int16 if scan.labels.max() < 2**15 else np.int32)
    if labels is not None:
        table, lost, without = label_table(present, labels)
        lookup = np.zeros(max(present) + 1, np.uint8)
        for value, index in table.items():
            lookup[value] = index
        truth = lookup[scan.labels]
        facts |= {"system": system, "not_in_system": lost, "not_in_labelmap": without}
        console.print(f"not in {system}: {', '.join(lost) or 'none'}", highlight=False)
        console.print(f"{system} has, the label map has not: {', '.join(without) or 'none'}", highlight=False)
    save_nifti(truth, scan.affine, output / "truth" / f"{stem}.nii.gz")
    (output / "truth" / f"{stem}.json").write_text(json.dumps(facts, indent=2), encoding="utf-8")
    endings = ("",) if len(scan.image) == 1 else tuple(f"_{name}" for name in DIXON_CHANNELS)
    for channel, ending in zip(scan.image, endings, strict=True):
        save_nifti(channel, scan.affine, output / "images" / f"{stem}{ending}.nii.gz")
    written = ", ".join(f"{stem}{ending}.nii.gz" for ending in endings)
    size = "×".join(str(n) for n in scan.labels.shape)
    console.print(f"{output / 'images'}: {written}; {size} voxels, {len(present)} structures", highlight=False)


def _read(labelmap: Path) -> tuple[Any, tuple[float, float, float], tuple[float, float, float]]:
    """Voxels with axes to right, anterior and superior, their size, and the centre of the first one, mm."""
    import numpy as np

    from msklabel.imaging.read import read_scan
    from msklabel.pipeline.grid import turned_grid

    scan = read_scan(labelmap)
    voxels = np.rint(scan.array[0]).astype(np.int32)
    if len(scan.array) != 1 or voxels.min() < 0 or not np.array_equal(voxels, scan.array[0]):
        raise UserError(f"{labelmap.name}: a label map has one channel of whole numbers from 0")
    grid = turned_grid(scan, "RAS")
    corner = np.ones(4)
    for axis, flip in zip(grid.axes, grid.flipped, strict=True):
        corner[axis] = scan.shape[axis] - 1 if flip else 0
    x, y, z = (scan.spacing_mm[axis] for axis in grid.axes)
    first = scan.affine @ corner
    return grid.orient(voxels), (x, y, z), (float(first[0]), float(first[1]), float(first[2]))


def _numbers(text: str, option: str) -> list[float]:
    try:
        numbers = [float(part) for part in text.split("x")] if text else []
    except ValueError:
        numbers = [0.0]
    if text and (len(numbers) != 3 or min(numbers) <= 0 or (option == "--shape" and any(n % 1 for n in numbers))):
        what = "whole numbers such as 512x512x250" if option == "--shape" else "numbers such as 0.9x0.9x2"
        raise UserError(f"{option}: expected three positive {what}, got {text!r}")
    return numbers
