"""One synthetic scan with its true labels."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Fact: TypeAlias = str | int | float | bool


@dataclass(frozen=True)
class Phantom:
    """A synthetic scan, its true label map and what the generator put into it.

    Attributes:
        image: Intensities (HU for CT), float32, shape (C, X, Y, Z).
        labels: True label of every voxel, 0 is background, uint8, shape (X, Y, Z).
        affine: Voxel index to RAS+ mm (nibabel's convention, voxel centres), float64, shape (4, 4).
        facts: What is known about the scan because it was made: one row of ``facts.csv``.

    Raises:
        ValueError: A shape or type is not as above.
    """

    image: npt.NDArray[np.float32]
    labels: npt.NDArray[np.uint8]
    affine: npt.NDArray[np.float64]
    facts: dict[str, Fact] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.image.ndim != 4 or self.image.shape[1:] != self.labels.shape:
            raise ValueError(f"expected image (C, X, Y, Z) over labels {self.labels.shape}, got {self.image.shape}")
        for name, dtype in (("image", np.float32), ("labels", np.uint8), ("affine", np.float64)):
            if getattr(self, name).dtype != dtype:
                raise ValueError(f"expected {name} as {np.dtype(dtype)}, got {getattr(self, name).dtype}")
        if self.affine.shape != (4, 4):
            raise ValueError(f"expected affine of shape (4, 4), got {self.affine.shape}")

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Voxel size along X, Y and Z in mm."""
        x_mm, y_mm, z_mm = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(x_mm), float(y_mm), float(z_mm)
