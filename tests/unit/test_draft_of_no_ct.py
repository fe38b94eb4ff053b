"""The draft by Hounsfield units is refused where a scan's values are none; many files do not say what they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from store_samples import TISSUES
from test_bad_scans import PHASES, WATER_FAT, body, dixon, save, thighs
from typer.testing import CliRunner

from msklabel.cli import app
from msklabel.errors import UserError
from msklabel.imaging.read import read_labels
from msklabel.predict.task import ClassicalTask

MODEL = f"{TISSUES.name}_threshold"


def water(folder: Path) -> Path:
    return dixon(folder, *thighs(), WATER_FAT)


def out_of_phase(folder: Path) -> Path:
    return dixon(folder, *thighs(), PHASES)


def with_ringing(folder: Path) -> Path:
    """A water image of which a few voxels at edges became negative as it was resampled."""
    values, _, affine = thighs()
    values[40:42, 20:30] = -120
    save(folder / "mr.nii.gz", values, affine)
    return folder / "mr.nii.gz"


def z_scores(folder: Path) -> Path:
    hu = body().astype(np.float32)
    save(folder / "z.nii.gz", (hu - hu.mean()) / hu.std(), np.diag([1.5, 1.5, 3, 1]))
    return folder / "z.nii.gz"


def not_rescaled(folder: Path) -> Path:
    save(folder / "stored.nii.gz", (body() + 1024).astype(np.uint16), np.diag([1.5, 1.5, 3, 1]))
    return folder / "stored.nii.gz"


@pytest.mark.parametrize("made", [water, out_of_phase, with_ringing, z_scores, not_rescaled])
def test_a_scan_that_is_no_ct_in_hounsfield_units_is_refused(tmp_path: Path, made: Callable[[Path], Path]) -> None:
    file = made(tmp_path)
    with pytest.raises(UserError, match=r"hip_tissue_ct goes by Hounsfield units, .* here 0\.\d% of the voxels"):
        ClassicalTask(TISSUES)({"image": str(file)})
    out = tmp_path / "out.nii.gz"
    result = CliRunner().invoke(app, ["infer", str(file), "--model", MODEL, "-o", str(out)])
    assert result.exit_code == 1 and not out.exists()


def test_a_ct_is_taken_with_and_without_air_around_it(tmp_path: Path) -> None:
    hu = body().astype(np.int16)
    hu[8:32, 8:10] = -100
    for name, part in (("whole", hu), ("cut", hu[6:34, 8:28])):
        save(tmp_path / f"{name}.nii.gz", part, np.diag([1.5, 1.5, 3, 1]))
        file, _ = ClassicalTask(TISSUES)({"image": str(tmp_path / f"{name}.nii.gz")})
        assert read_labels(file).array.shape == nib.load(tmp_path / f"{name}.nii.gz").shape
        Path(file).unlink()
