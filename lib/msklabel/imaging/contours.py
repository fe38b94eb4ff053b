"""What lies between two drawn slices: ITK's morphological contour interpolation, in a process of its own.

Zukić et al. 2016, "ND morphological contour interpolation", Insight Journal. The filter keeps objects for each thread
that are destroyed after ITK itself when a process ends, which aborts it; a child process that leaves at once does not
mind, and takes nobody with it. Only the child imports ITK, which takes seconds.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Gap:
    """Two drawn slices and how many are missing between them.

    Attributes:
        first: Label indices, shape (A, B), uint8.
        last: The same shape.
        missing: Slices between them, from 1.
    """

    first: NDArray[np.uint8]
    last: NDArray[np.uint8]
    missing: int

    def __post_init__(self) -> None:
        if self.first.shape != self.last.shape or self.first.ndim != 2 or self.missing < 1:
            raise ValueError(f"two slices of one shape expected, got {self.first.shape} and {self.last.shape}")


def interpolate_contours(gaps: Sequence[Gap]) -> list[NDArray[np.uint8]]:
    """Interpolate the labels that both slices of a gap have.

    Args:
        gaps: Independent of each other.

    Returns:
        For each gap the missing slices from first to last, shape (missing, A, B).

    Raises:
        RuntimeError: If the process that interpolates fails.
    """
    if not gaps:
        return []
    with tempfile.TemporaryDirectory(prefix="msklabel-contours-") as folder:
        given, made = Path(folder) / "given.npz", Path(folder) / "made.npz"
        np.savez(given, **{str(number): _block(gap) for number, gap in enumerate(gaps)})
        command = [sys.executable, "-m", __name__, str(given), str(made)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode or not made.is_file():
            logger.error("interpolation ended with %d: %s", done.returncode, done.stderr)
            raise RuntimeError(f"the process that interpolates contours ended with code {done.returncode}")
        with np.load(made) as blocks:
            return [blocks[str(number)][1:-1] for number in range(len(gaps))]


def _block(gap: Gap) -> NDArray[np.uint8]:
    """Both slices of a gap with empty ones between them; only labels that both have."""
    block = np.zeros((gap.missing + 2, *gap.first.shape), np.uint8)
    common = np.intersect1d(gap.first, gap.last)
    for place, drawn in ((0, gap.first), (-1, gap.last)):
        block[place] = np.where(np.isin(drawn, common), drawn, 0)
    return block


def _fill(given: Path, made: Path) -> None:
    """Interpolate every block of a file along its first axis, which is ITK's last.

    The wrapped classes are named in full: ``itk.morphological_contour_interpolator`` loads four times as many modules.
    """
    from itk.itkMorphologicalContourInterpolatorPython import itkMorphologicalContourInterpolatorIUC3
    from itk.itkPyBufferPython import itkPyBufferIUC3

    with np.load(given) as blocks:
        filled = {}
        for name, block in blocks.items():
            between = itkMorphologicalContourInterpolatorIUC3.New()
            between.SetInput(itkPyBufferIUC3.GetImageViewFromArray(block))
            between.SetAxis(2)
            between.Update()
            filled[name] = np.array(itkPyBufferIUC3.GetArrayFromImage(between.GetOutput()))
    partial = made.with_name("partial.npz")
    np.savez(partial, **filled)
    partial.replace(made)


if __name__ == "__main__":
    _fill(Path(sys.argv[1]), Path(sys.argv[2]))
    sys.stdout.flush()
    os._exit(0)
