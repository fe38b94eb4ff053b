"""What the structures of a label map are called, and which label of a system each one is."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

BONES = ("femur", "ilium", "iliac_bone", "sacrum", "patella", "tibia", "fibula", "hip_bone", "pelvis")
# Other names of the same structure, and wholes that a part belongs to: the first that a system has is taken.
_ALSO = {
    "ilium": ("iliac_bone",),
    "psoas_major": ("psoas",),
    "biceps_femoris_long": ("biceps_femoris_long_head", "biceps_femoris"),
    "biceps_femoris_short": ("biceps_femoris_short_head", "biceps_femoris"),
    "biceps_femoris_long_head": ("biceps_femoris",),
    "biceps_femoris_short_head": ("biceps_femoris",),
    "gemelli_and_quadratus_femoris": ("quadratus_femoris",),
    "thoracolumbar_multifidus": ("multifidus",),
    "satorius": ("sartorius",),
    "tensor_faciae_latae": ("tensor_fasciae_latae",),
}
_SIDES = {"left": -1, "right": 1}


def read_label_names(file: Path) -> dict[int, str]:
    """Read the name of each voxel value.

    Args:
        file: A line for each label: ``Left Psoas Major 5121``, ``5121 Left Psoas Major``, or ITK-SNAP's
            ``55 222 184 135 1 1 1 "Vastus lateralis Left"``. Lines that begin with ``#`` are left out.

    Raises:
        ValueError: A line is none of these, a value comes twice, or there is none; names the line.
    """
    names: dict[int, str] = {}
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        match = (
            re.fullmatch(r'(?P<value>\d+)\s[\d\s.]*"(?P<name>[^"]*)"', text)
            or re.fullmatch(r"(?P<name>.*[^\d\s].*)\s(?P<value>\d+)", text)
            or re.fullmatch(r"(?P<value>\d+)\s+(?P<name>.*[^\d\s].*)", text)
        )
        if match is None:
            raise ValueError(f"{file.name}, line {number}: expected a name and a number, got {text[:60]!r}")
        value = int(match["value"])
        if value in names:
            raise ValueError(f"{file.name}, line {number}: the value {value} has a name already, {names[value]!r}")
        if value:
            names[value] = match["name"].strip()
    if not names:
        raise ValueError(f"{file.name}: no names of labels")
    return names


def structure_of(name: str) -> tuple[str, int]:
    """Return a structure without its side, as systems write it, and the side: -1 left, 1 right, 0 none.

    ``Left Vastus Lateralis`` and ``55 Vastus lateralis Left`` give ``("vastus_lateralis", -1)``.
    """
    words = re.findall(r"[a-z0-9]+", name.lower())
    words = words[1:] if len(words) > 1 and words[0].isdigit() else words
    side = next((_SIDES[word] for word in words if word in _SIDES), 0)
    return "_".join(word for word in words if word not in _SIDES), side


def is_bone(structure: str) -> bool:
    """Whether a structure is a bone; all others are taken for muscles."""
    return structure in BONES


def counterpart(structure: str, labels: Collection[str]) -> str | None:
    """Return the label of a system that a structure is, or is a part of; None if there is none."""
    return next((name for name in (structure, *_ALSO.get(structure, ())) if name in labels), None)


def label_table(names: Mapping[int, str], labels: Mapping[str, int]) -> tuple[dict[int, int], list[str], list[str]]:
    """Match a label map's values with a system's.

    Args:
        names: Name of each value of the label map that occurs.
        labels: Value of each label of the system.

    Returns:
        The system's value for each value that has one; structures without a counterpart; labels without a structure.
    """
    table: dict[int, int] = {}
    for value, name in names.items():
        if (label := counterpart(structure_of(name)[0], labels)) is not None:
            table[value] = labels[label]
    lost = _unique(structure_of(name)[0] for value, name in names.items() if value not in table)
    return table, lost, [name for name, value in labels.items() if value not in table.values()]


def _unique(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))
