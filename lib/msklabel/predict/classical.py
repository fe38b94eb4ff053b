"""Segmentation without training: the methods that a System's ``thresholds`` section can name."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import fields

import numpy as np
from numpy.typing import NDArray

from msklabel.errors import UserError
from msklabel.imaging.scan import LabelMap, Scan
from msklabel.pipeline.grid import turned_grid
from msklabel.predict.engine import Segmentation
from msklabel.predict.tissue_threshold import TISSUES, TissueThresholds, segment_tissues
from msklabel.system import ConfigError, System

_FAT_UPPER_HU = -30
_LEAST_SHARE = 0.01  # of the voxels of a CT; 0.06 in the leanest cubes of 20 x 20 x 8 voxels inside a pelvis
Method = Callable[[NDArray, tuple[float, float, float], Mapping[str, float]], NDArray[np.uint8]]


def _hip_tissues(hu: NDArray, spacing_mm: tuple[float, float, float], limits: Mapping[str, float]) -> NDArray[np.uint8]:
    return segment_tissues(hu, spacing_mm, TissueThresholds(**limits))


_METHODS: dict[str, tuple[Method, tuple[str, ...], tuple[str, ...]]] = {
    "tissue_threshold": (_hip_tissues, TISSUES, tuple(field.name for field in fields(TissueThresholds))),
}


def require_hounsfield(system: System, scan: Scan) -> None:
    """Make sure that a scan whose file need not say what it is can be a CT: every CT shows fat and air.

    Args:
        system: For the sentence.
        scan: Shape (C, X, Y, Z).

    Raises:
        UserError: If hardly any value is as low as those of fat and air in Hounsfield units.
    """
    share = float((scan.array < _FAT_UPPER_HU).mean())
    if share < _LEAST_SHARE:
        raise UserError(
            f"{system.name} goes by Hounsfield units, which this scan's values are not: in a CT, fat and air are below "
            f"{_FAT_UPPER_HU}, here {share:.1%} of the voxels are; is it MR?"
        )


class ClassicalSegmenter:
    """Apply the training-free method of a system.

    Args:
        system: A system with a ``thresholds`` section.

    Raises:
        ConfigError: If the method or one of its limits is not known, or no label of the system is among its tissues.
    """

    def __init__(self, system: System) -> None:
        section = system.thresholds
        if section is None or section.method not in _METHODS:
            method = section.method if section else None
            raise ConfigError(f"{system.name}: thresholds.method: {method!r}; methods: {', '.join(_METHODS)}")
        self.system = system
        self.method, tissues, limits = _METHODS[section.method]
        unknown = [name for name in section.hu if name not in limits]
        if unknown:
            raise ConfigError(f"{system.name}: thresholds.hu.{unknown[0]}: unknown key; keys: {', '.join(limits)}")
        indices = system.label_indices
        if not set(tissues) & set(indices):
            raise ConfigError(f"{system.name}: thresholds.method: {section.method} finds {', '.join(tissues)} only")
        self.limits = section.hu
        self.to_system = np.array([0, *(indices.get(tissue, 0) for tissue in tissues)], np.uint8)

    def __call__(self, scan: Scan) -> Segmentation:
        """Segment a scan of one channel in HU.

        Raises:
            UserError: If the scan has several channels.
        """
        if len(scan.array) != 1:
            raise UserError(f"{self.system.name} needs 1 channel (HU), the scan has {len(scan.array)}")
        started = time.perf_counter()
        grid = turned_grid(scan, "RAS")
        x, y, z = (scan.spacing_mm[axis] for axis in grid.axes)
        tissues = self.method(grid.orient(scan.array[0]), (x, y, z), self.limits)
        labels = LabelMap(grid.deorient(self.to_system[tissues]), scan.affine)
        return Segmentation(labels, {"method": round(time.perf_counter() - started, 4)})
