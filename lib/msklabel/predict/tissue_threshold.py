"""Seven tissues on proximal-hip CT by Hounsfield thresholds and anatomy, without training.

What an annotator starts from before there is a model. The thresholds are those of the manual masks of Imani et al. 2025
(doi:10.1002/jcsm.13728, section 2.3); the anatomy is in `ct_anatomy`. A starting point, never a measurement.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from msklabel.predict.ct_anatomy import find_body, find_bone, find_cavity, find_fascia, find_metal
from msklabel.predict.slice_morphology import (
    Mask,
    block_any,
    block_mean,
    block_step,
    distance_inside_mm,
    fill_enclosed,
    grow_within,
    refine,
    unblock,
)

TISSUES = (
    "cortical_bone",
    "trabecular_bone",
    "haematopoietic_bone_marrow",
    "marrow_adipose_tissue",
    "muscle",
    "intermuscular_adipose_tissue",
    "subcutaneous_adipose_tissue",
)
"""Names of the labels of `segment_tissues` in the order of their indices, from 1; 0 is background."""
CORTICAL, TRABECULAR, HAEMATOPOIETIC, MARROW_FAT, MUSCLE, INTERMUSCULAR, SUBCUTANEOUS = range(1, 8)

ANATOMY_GRID_MM = 1.5
"""In-plane voxel size that anatomy needs, mm: finer scans are averaged towards it, and only outlines refined."""
DENOISE_FROM_SD_HU = 15.0
DENOISE_RANGE_SD = 2.0
# Depths below the surface: skin, and its blur into fat, which is as dense as muscle.
SKIN_MM = 2.0
SKIN_LEAN_MM = 4.0
# How far visceral fat goes on between cavity and wall.
VISCERAL_FAT_MM = 15.0
# Largest gap that refining may leave between shell and marrow.
SHELL_SLIVER_CM2 = 5.0


@dataclass(frozen=True)
class TissueThresholds:
    """Limits in Hounsfield units: the paper's, and three of our own.

    Attributes:
        cortical_lower_hu: Bone from here on is cortical.
        trabecular_lower_hu: Bone from here to the cortical limit is trabecular.
        marrow_lower_hu: Bone from here to the trabecular limit is haematopoietic marrow, below it adipose marrow.
        muscle_lower_hu: Muscle, like all lean tissue, from here on.
        muscle_upper_hu: Muscle up to here.
        fat_upper_hu: Fat below this.
        fat_lower_hu: Fat from here on; below it gas, air and dark streaks, which no tissue gets (not in the paper).
        shell_lower_hu: Dense enough for the shell of a bone: between trabecular and cortical, so that cortex thinner
            than a voxel counts and noise in muscle does not (not in the paper).
        metal_lower_hu: Metal above this: above cortical bone at 80 kVp, below what 12 bits hold (not in the paper).

    Raises:
        ValueError: Limits do not ascend.
    """

    cortical_lower_hu: float = 300.0
    trabecular_lower_hu: float = 150.0
    marrow_lower_hu: float = 50.0
    muscle_lower_hu: float = -30.0
    muscle_upper_hu: float = 500.0
    fat_upper_hu: float = -30.0
    fat_lower_hu: float = -250.0
    shell_lower_hu: float = 180.0
    metal_lower_hu: float = 2200.0

    def __post_init__(self) -> None:
        for names in (
            ("fat_lower_hu", "marrow_lower_hu", "trabecular_lower_hu", "cortical_lower_hu", "metal_lower_hu"),
            ("fat_lower_hu", "fat_upper_hu", "muscle_upper_hu", "metal_lower_hu"),
            ("muscle_lower_hu", "muscle_upper_hu"),
            ("muscle_lower_hu", "shell_lower_hu", "metal_lower_hu"),
        ):
            values = [getattr(self, name) for name in names]
            if not all(low < high for low, high in pairwise(values)):
                raise ValueError(f"expected {' < '.join(names)}, got {values}")


def segment_tissues(
    hu: ArrayLike, spacing_mm: Sequence[float], thresholds: TissueThresholds | None = None
) -> NDArray[np.uint8]:
    """Labels the seven tissues of a CT of the proximal hip.

    Body, metal, filled bone, deep fascia and visceral cavity are found first. Inside bone the four bone tissues follow
    by HU. Inside the fascia and outside bone and cavity, lean tissue is muscle and fat intermuscular (IMAT); fat
    outside the fascia is subcutaneous (SAT). Skin, table, gas, metal, contrast pools, visceral organs and visceral fat
    are background, and so are vessels, nodes and septa in the subcutaneous fat.

    Not handled, left to the annotator:
        - Vessels, nerves and tendons among muscles count as muscle; so do penis and scrotum, and parts of pelvic and
          abdominal organs that lie within a wall's thickness of bone or fascia.
        - The cavity is a rough guess that thins psoas, iliacus and obturator internus where they are thicker than a
          wall; above the iliac crests, muscle and IMAT are not to be relied on.
        - Fat of the ischioanal fossa goes to SAT, IMAT or cavity as the muscles around it close it off or not.
        - Bones whose shell has wide gaps (vertebrae, sacrum, osteopenic heads on thick slices) are filled in part; the
          vertebral canal may be filled too. Cartilage between two shells counts as bone where they blur together.
        - Around metal (some 15 mm, and along streaks) no label is to be trusted.
        - An arm or a pad that is pressed to the body in a broad contact stays part of it; contrast in small bowel loops
          and dense vessel walls as large as a bone may count as bone.

    Args:
        hu: CT in Hounsfield units, shape (X, Y, Z), RAS+: indices grow towards the patient's right, anterior and
            superior. One slice (Z = 1) will do.
        spacing_mm: Voxel size in mm along each axis.
        thresholds: Limits in HU; those of the paper if not given.

    Returns:
        Index into `TISSUES` plus 1, or 0 for background; shape (X, Y, Z).

    Raises:
        ValueError: The image is not three-dimensional, or the spacing is not three positive numbers.
    """
    volume = np.asfortranarray(hu, dtype=np.float32)
    if volume.ndim != 3:
        raise ValueError(f"expected an image of shape (X, Y, Z), got shape {volume.shape}")
    if len(spacing_mm) != 3 or not all(np.isfinite(mm) and mm > 0 for mm in spacing_mm):
        raise ValueError(f"expected spacing_mm as three positive numbers, got {tuple(spacing_mm)}")
    limits = thresholds or TissueThresholds()
    step = block_step(spacing_mm, ANATOMY_GRID_MM)
    coarse_mm = (spacing_mm[0] * step[0], spacing_mm[1] * step[1], spacing_mm[2])
    volume = np.nan_to_num(volume, nan=-1024.0, posinf=3071.0, neginf=-1024.0)
    coarse = block_mean(volume, step)
    body = find_body(coarse, coarse_mm)
    labels = np.zeros_like(volume, dtype=np.uint8)
    if body.any():
        x, y, z = ndimage.find_objects(body.view(np.uint8))[0]
        box = (slice(x.start * step[0], x.stop * step[0]), slice(y.start * step[1], y.stop * step[1]), z)
        parts = np.asfortranarray(volume[box]), coarse[x, y, z].copy("F"), body[x, y, z].copy("F")
        labels[box] = _label_body(*parts, step, spacing_mm, limits)
    return np.ascontiguousarray(labels)


def _label_body(
    fine: NDArray[np.float32],
    coarse: NDArray[np.float32],
    body: Mask,
    step: tuple[int, int],
    spacing_mm: Sequence[float],
    limits: TissueThresholds,
) -> NDArray[np.uint8]:
    """Labels the box around the body: anatomy on the coarse grid, tissues on the fine one; shape as `fine`."""
    coarse_mm = (spacing_mm[0] * step[0], spacing_mm[1] * step[1], spacing_mm[2])
    fine_metal = find_metal(fine, spacing_mm, limits.metal_lower_hu)
    metal = block_any(fine_metal, step) & body
    hu = denoise(coarse, noise_sd_hu(coarse, body))
    bone = find_bone(hu, body, metal, coarse_mm, limits.shell_lower_hu, limits.cortical_lower_hu)
    depth_mm = distance_inside_mm(body, coarse_mm) - 0.5 * max(coarse_mm[:2])
    beneath_skin = body & (depth_mm > SKIN_LEAN_MM)
    fat = body & (hu >= limits.fat_lower_hu) & (hu < limits.fat_upper_hu)
    gas = beneath_skin & (hu < limits.fat_lower_hu)
    lean = beneath_skin & (hu >= limits.muscle_lower_hu)
    fascia = find_fascia(lean | bone | metal | gas, beneath_skin, coarse_mm)
    cavity = find_cavity(fascia, bone | metal, gas, coarse_mm)
    cavity |= grow_within(cavity, fat & fascia, VISCERAL_FAT_MM, coarse_mm)

    inside, not_skin, in_cavity, may_be_lean = (
        unblock(mask, step, fine.shape) for mask in (body, depth_mm > SKIN_MM, cavity, beneath_skin)
    )
    if max(step) > 1:
        hu = denoise(fine, noise_sd_hu(fine, inside))
        bone = refine(bone, step, hu > limits.shell_lower_hu) & ~fine_metal
        bone = fill_enclosed(bone, SHELL_SLIVER_CM2, spacing_mm) & ~fine_metal
        fascia = refine(fascia, step, may_be_lean & (hu >= limits.muscle_lower_hu))
    soft = inside & ~bone & ~fine_metal & ~in_cavity
    fat = soft & (hu >= limits.fat_lower_hu) & (hu < limits.fat_upper_hu)
    labels = np.zeros_like(hu, dtype=np.uint8)
    labels[fat & ~fascia & not_skin] = SUBCUTANEOUS
    labels[fat & fascia] = INTERMUSCULAR
    labels[soft & fascia & (hu >= limits.muscle_lower_hu) & (hu <= limits.muscle_upper_hu)] = MUSCLE
    labels[bone] = _label_bone(hu[bone], limits)
    return labels


def _label_bone(hu: NDArray[np.float32], limits: TissueThresholds) -> NDArray[np.uint8]:
    """Labels of voxels inside filled bone; shape as `hu`, any."""
    ascending = (limits.fat_lower_hu, limits.marrow_lower_hu, limits.trabecular_lower_hu, limits.cortical_lower_hu)
    tissues = np.array([0, MARROW_FAT, HAEMATOPOIETIC, TRABECULAR, CORTICAL], np.uint8)
    return tissues[np.digitize(hu, ascending)]


def noise_sd_hu(hu: NDArray[np.float32], body: Mask) -> float:
    """Noise SD in HU from the median difference between neighbours along X in the body's middle slice.

    Args:
        hu: CT, shape (X, Y, Z), Hounsfield units.
        body: Where to look, shape (X, Y, Z).

    Returns:
        The SD, 0 for an empty slice; too low where noise is correlated.
    """
    middle = hu.shape[2] // 2
    inside = body[1:, :, middle] & body[:-1, :, middle]
    steps = np.diff(hu[:, :, middle], axis=0)[inside]
    return float(1.4826 * np.median(np.abs(steps)) / np.sqrt(2.0)) if steps.size else 0.0


def denoise(hu: NDArray[np.float32], sd_hu: float) -> NDArray[np.float32]:
    """Averages each voxel with those of its eight in-plane neighbours that differ by noise only (Lee's sigma filter).

    Args:
        hu: CT, shape (X, Y, Z), Hounsfield units.
        sd_hu: Noise SD; below `DENOISE_FROM_SD_HU` the image stays as it is.

    Returns:
        Shape (X, Y, Z); edges stronger than `DENOISE_RANGE_SD` times the noise stay.
    """
    if sd_hu < DENOISE_FROM_SD_HU:
        return hu
    denoised = np.empty_like(hu)
    x, y, depth = hu.shape
    for z in range(depth):
        centre = hu[:, :, z]
        padded = np.pad(centre, 1, mode="edge")
        total, count = np.zeros_like(centre), np.zeros_like(centre)
        for dx, dy in np.ndindex(3, 3):
            neighbour = padded[dx : dx + x, dy : dy + y]
            alike = np.abs(neighbour - centre) <= DENOISE_RANGE_SD * sd_hu
            np.add(total, neighbour, out=total, where=alike)
            count += alike
        denoised[:, :, z] = total / count
    return denoised
