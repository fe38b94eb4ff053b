"""NIfTI files of a kind that is rare, or that are not what their names say."""

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from store_samples import scan, store, write

from msklabel.imaging import ImageError
from msklabel.imaging.read import read_labels, read_scan

VOXELS = np.arange(6 * 5 * 4, dtype=np.int16).reshape(6, 5, 4)
AFFINE = np.array([[-1.5, 0, 0, 10], [0, 1.5, 0, -20], [0, 0, 3, 5], [0, 0, 0, 1]])


def nifti_1() -> bytes:
    return bytes(nib.Nifti1Image(VOXELS, AFFINE).to_bytes())


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".NII"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_nifti_2_is_refused_by_name(tmp_path: Path, suffix: str, order: str) -> None:
    data = nib.Nifti2Image(VOXELS, AFFINE, nib.Nifti2Header(endianness=order)).to_bytes()
    file = tmp_path / f"a{suffix}"
    file.write_bytes(gzip.compress(data) if suffix == ".nii.gz" else data)
    for reader in (read_scan, read_labels):
        with pytest.raises(ImageError, match=f"a{suffix}: is NIfTI-2, .* save it as NIfTI-1"):
            reader(file)


def test_a_compressed_file_whose_name_does_not_say_so_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.nii").write_bytes(gzip.compress(nifti_1()))
    with pytest.raises(ImageError, match=r"a\.nii: is compressed, so that its name must end in \.nii\.gz"):
        read_scan(tmp_path / "a.nii")


def test_a_file_that_is_not_compressed_is_read_though_its_name_says_it_was(tmp_path: Path) -> None:
    (tmp_path / "a.nii.gz").write_bytes(nifti_1())
    found = read_scan(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(found.array[0], VOXELS)
    np.testing.assert_allclose(found.affine, AFFINE)
    (tmp_path / "half.nii.gz").write_bytes(nifti_1()[:-9])
    with pytest.raises(ImageError, match="the file is cut off"):
        read_scan(tmp_path / "half.nii.gz")


@pytest.mark.parametrize("offset", [np.nan, np.inf])
def test_a_damaged_place_of_the_voxels_is_refused_in_one_sentence(tmp_path: Path, offset: float) -> None:
    data = bytearray(nifti_1())
    data[108:112] = np.float32(offset).tobytes()
    (tmp_path / "a.nii").write_bytes(data)
    with pytest.raises(ImageError, match=r"a\.nii: cannot be read as an image; the file is damaged or cut off"):
        read_scan(tmp_path / "a.nii")


def test_a_header_without_voxels_is_not_read_as_voxels(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Pair(VOXELS, AFFINE), tmp_path / "a.hdr")
    (tmp_path / "a.hdr").rename(tmp_path / "a.nii")
    with pytest.raises(ImageError, match=r"a\.nii: cannot be read as an image; the file is cut off"):
        read_scan(tmp_path / "a.nii")


def test_a_place_that_is_no_number_is_refused_and_passed_over(tmp_path: Path) -> None:
    image = nib.Nifti1Image(VOXELS, AFFINE)
    image.header["srow_x"], image.header["qform_code"] = np.nan, 0
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "a.nii").write_bytes(image.header.binaryblock + bytes(4) + VOXELS.tobytes("F"))
    for reader in (read_scan, read_labels):
        with pytest.raises(ImageError, match=r"a\.nii: its header does not give a size and a place of its voxels"):
            reader(tmp_path / "s" / "a.nii")
    scan(tmp_path / "s" / "b.nii.gz")
    assert store(tmp_path / "s").take_next(["a", "b"], "anna") == "b"


def test_labels_of_no_size_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.nrrd", np.ones((4, 3, 2), np.uint8), spacing_mm=(1e-5, 1e-5, 1e-5))
    with pytest.raises(ImageError, match=r"a\.nrrd: its header does not give a size"):
        read_labels(tmp_path / "a.nrrd")


def test_complex_voxels_are_refused_in_scans_and_in_labels(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(VOXELS.astype(np.complex64), AFFINE), tmp_path / "a.nii.gz")
    for reader in (read_scan, read_labels):
        with pytest.raises(ImageError, match=r"a\.nii\.gz: its voxels are complex numbers; save their magnitude"):
            reader(tmp_path / "a.nii.gz")
