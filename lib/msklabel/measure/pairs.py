"""Pairs of label files: found by name, read, and brought to one grid where that is allowed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from msklabel.errors import NotFound, UserError
from msklabel.imaging.alignment import misfit
from msklabel.imaging.names import is_image, without_suffix
from msklabel.imaging.regrid import labels_on_grid
from msklabel.imaging.scan import LabelMap, Scan

_NAMED = 5  # names given in a message


@dataclass(frozen=True)
class Pair:
    """Two label files of one scan.

    Attributes:
        scan: Their name without suffix.
        truth: File of the true labels.
        predicted: File of the prediction.
    """

    scan: str
    truth: Path
    predicted: Path


def image_files(folder: Path) -> dict[str, Path]:
    """Image files of a folder by their name without suffix, sorted.

    Raises:
        NotFound: If there is no such folder, or no image in it.
        UserError: If two files differ in their suffix only.
    """
    if not folder.is_dir():
        raise NotFound(f"{folder}: no such folder")
    files: dict[str, Path] = {}
    for file in sorted(folder.iterdir()):
        if not file.is_file() or file.name.startswith(".") or not is_image(file):
            continue
        name = without_suffix(file.name)
        if name in files:
            raise UserError(f"{folder}: {files[name].name} and {file.name} are both called {name}")
        files[name] = file
    if not files:
        raise NotFound(f"{folder}: no images in this folder")
    return files


def find_pairs(truth: Path, predicted: Path, paired_only: bool = False) -> tuple[list[Pair], list[str]]:
    """Pair the label files of two folders by name.

    Args:
        truth: Folder of the true labels.
        predicted: Folder of the predictions.
        paired_only: Leave out files without a partner instead of refusing them.

    Returns:
        The pairs, and the names that were left out.

    Raises:
        UserError: If a file has no partner, or none has one.
    """
    first, second = image_files(truth), image_files(predicted)
    lonely = {str(predicted): sorted(first.keys() - second), str(truth): sorted(second.keys() - first)}
    both = [name for name in first if name in second]
    if not both:
        raise UserError(f"no file of {truth} has the name of one in {predicted}")
    for folder, names in lonely.items():
        if names and not paired_only:
            raise UserError(f"{folder} has no labels for {_some(names)}; --paired-only leaves them out")
    return [Pair(name, first[name], second[name]) for name in both], sorted(
        name for names in lonely.values() for name in names
    )


def read_pair(pair: Pair, resample: bool = False) -> tuple[LabelMap, LabelMap]:
    """Truth and prediction on the truth's grid.

    Args:
        pair: The files.
        resample: Bring the prediction to the truth's grid (nearest neighbour) where it is on another.

    Raises:
        UserError: If the grids differ and nothing says to resample, or they do not overlap at all.
        ImageError: If a file cannot be read as a label map.
    """
    from msklabel.imaging.read import read_labels

    truth, predicted = read_labels(pair.truth), read_labels(pair.predicted)
    names = ("the truth", "the prediction")
    difference = misfit(_as_scan(truth), _as_scan(predicted), names)
    if difference is None:
        return truth, predicted
    if not resample:
        raise UserError(f"{pair.scan}: {difference}; --resample brings the prediction to the truth's grid")
    moved = labels_on_grid(predicted, truth.array.shape, truth.affine)
    if predicted.array.any() and not moved.array.any():
        raise UserError(f"{pair.scan}: the prediction lies wholly outside the truth's grid")
    return truth, moved


def _as_scan(labels: LabelMap) -> Scan:
    return Scan(labels.array[None], labels.affine)


def _some(names: list[str]) -> str:
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
