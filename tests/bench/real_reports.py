"""Reports of the real scans: ``python tests/bench/real_reports.py OUT`` writes a folder for each; nothing is kept here.

The thighs' automatic labels give volumes for each muscle and side; the calf's water and fat images a map of the fat
fraction; the pelvis CT, segmented by thresholds, areas and mean HU of the reference slice.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import yaml
from bench_real_thigh import muscle_values
from skimage.filters import threshold_otsu
from skimage.morphology import disk, opening
from typer.testing import CliRunner

from msklabel.catalogue import load_catalogue
from msklabel.cli import app
from msklabel.imaging.read import read_labels, read_scan
from msklabel.imaging.scan import LabelMap
from msklabel.imaging.write import write_labels

_CALF = {
    "name": "calf",
    "title": "Calf, muscle by a threshold of the water image",
    "labels": {"muscle": {"index": 1, "code": "SCT:127954009", "color": [192, 104, 88]}},
    "groups": {},
    "quantities": ["volume_cm3", "fat_fraction_percent"],
}


def thigh(data: Path, out: Path) -> None:
    """Volume of each muscle and side; labels say the side themselves in the source, here the plane does."""
    scan = data / "mr_thigh"
    labels = read_labels(scan / "labels.nii.gz")
    indices = load_catalogue(names=["thigh_dixon"])["thigh_dixon"].label_indices
    array = np.zeros_like(labels.array)
    for name, sides in muscle_values(scan / "label_names.txt", labels.array).items():
        array[np.isin(labels.array, sides)] = indices[name]
    _place(out, LabelMap(array, labels.affine), {"scan": scan / "image.nii.gz"})
    _run("quantify", "--labels", out / "labels", "--images", out / "images", "--system", "thigh_dixon", "--out", out)


def calf(data: Path, out: Path) -> None:
    """Fat fraction; muscle is where the water image is bright, which the fat image has no say in."""
    scan = data / "mr_calf_dixon"
    water = read_scan(scan / "water.nii.gz")
    bright = water.array[0] > threshold_otsu(water.array[0])
    array = np.stack([opening(bright[..., z], disk(5)) for z in range(bright.shape[2])], -1).astype(np.uint8)
    files = {"scan_water": scan / "water.nii.gz", "scan_fat": scan / "fat.nii.gz"}
    _place(out, LabelMap(array, water.affine), files)
    base = load_catalogue(names=["thigh_dixon"])["thigh_dixon"].model_dump(mode="json", exclude_unset=True)
    (out / "systems").mkdir(exist_ok=True)
    document = {**{key: base[key] for key in _KEPT if key in base}, **_CALF}
    (out / "systems" / "calf.yaml").write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    given = ["--labels", out / "labels", "--images", out / "images", "--system", "calf", "--configs", out / "systems"]
    _run("quantify", *given, "--out", out, "--maps")


_KEPT = ("source", "modality", "channels", "dimensions", "spacing_mm", "intensity", "patch_voxels", "network", "train")


def pelvis(data: Path, out: Path) -> None:
    """Seven tissues by thresholds; the slice of the thickest right femoral neck, for the left one holds metal."""
    image = data / "ct_pelvis" / "image.nii.gz"
    (out / "labels").mkdir(parents=True, exist_ok=True)
    (out / "images").mkdir(exist_ok=True)
    _link(out / "images" / "scan.nii.gz", image)
    _run("infer", image, "--model", "hip_tissue_ct_threshold", "--output", out / "labels" / "scan.nii.gz")
    given = ["--labels", out / "labels", "--images", out / "images", "--system", "hip_tissue_ct"]
    _run("quantify", *given, "--out", out, "--slice", "neck-right")


REPORTS: dict[str, Callable[[Path, Path], None]] = {"mr_thigh": thigh, "mr_calf_dixon": calf, "ct_pelvis": pelvis}


def _place(out: Path, labels: LabelMap, images: dict[str, Path]) -> None:
    for folder in ("labels", "images"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    write_labels(out / "labels" / "scan.nii.gz", labels)
    for name, file in images.items():
        _link(out / "images" / f"{name}.nii.gz", file)


def _link(file: Path, target: Path) -> None:
    file.unlink(missing_ok=True)
    file.symlink_to(target.resolve())


def _run(*words: object) -> None:
    result = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    print(result.output)
    if result.exit_code:
        raise SystemExit(result.exit_code)


def main() -> None:
    """Write all reports, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="folder outside the repository")
    parser.add_argument("--only", choices=REPORTS, action="append")
    parser.add_argument("--data", type=Path, default=os.environ.get("MSKLABEL_REAL_DATA"))
    options = parser.parse_args()
    if options.data is None:
        parser.error("--data or MSKLABEL_REAL_DATA must name the folder of real scans")
    for name in options.only or REPORTS:
        REPORTS[name](options.data, options.out / name)


if __name__ == "__main__":
    main()
