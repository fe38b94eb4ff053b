"""MetaImage and NRRD files whose compressed voxels were damaged on their way."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from msklabel.imaging import ImageError
from msklabel.imaging.read import read_labels, read_scan

VOXELS = np.random.default_rng(0).integers(0, 30, (20, 30, 40)).astype(np.uint8)
FILES = {"a.mha": "a.mha", "a.mhd": "a.zraw", "a.nrrd": "a.nrrd", "a.nhdr": "a.raw.gz"}
"""What is opened, and where its voxels are."""


def written(folder: Path, name: str) -> Path:
    sitk.WriteImage(sitk.GetImageFromArray(VOXELS), str(folder / name), useCompression=True)
    return folder / FILES[name]


@pytest.mark.parametrize("name", FILES)
def test_compressed_voxels_are_read(tmp_path: Path, name: str) -> None:
    assert written(tmp_path, name).stat().st_size < VOXELS.size
    np.testing.assert_array_equal(read_scan(tmp_path / name).array[0], VOXELS.transpose(2, 1, 0))
    np.testing.assert_array_equal(read_labels(tmp_path / name).array, VOXELS.transpose(2, 1, 0))


@pytest.mark.parametrize("where", [0.5, 0.8, 0.98])
@pytest.mark.parametrize("name", FILES)
def test_a_byte_that_is_not_what_was_written_is_found(tmp_path: Path, name: str, where: float) -> None:
    file = written(tmp_path, name)
    data = bytearray(file.read_bytes())
    data[int(where * len(data))] ^= 0x10
    file.write_bytes(data)
    for reader in (read_scan, read_labels):
        with pytest.raises(ImageError, match=f"{name}: cannot be read as an image"):
            reader(tmp_path / name)


@pytest.mark.parametrize("name", FILES)
def test_voxels_that_are_cut_off_are_found(tmp_path: Path, name: str) -> None:
    file = written(tmp_path, name)
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(ImageError, match=f"{name}: cannot be read as an image; .* damaged"):
        read_scan(tmp_path / name)


@pytest.mark.parametrize("name", ["a.mha", "a.nrrd", "a.mhd", "a.nhdr"])
def test_voxels_that_are_not_compressed_have_no_checksum(tmp_path: Path, name: str) -> None:
    sitk.WriteImage(sitk.GetImageFromArray(VOXELS), str(tmp_path / name), useCompression=False)
    np.testing.assert_array_equal(read_scan(tmp_path / name).array[0], VOXELS.transpose(2, 1, 0))
