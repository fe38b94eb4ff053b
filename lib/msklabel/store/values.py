"""What the voxel values of a submitted label mean, and which system it belongs to.

Three things can say what a value means, and they are taken in this order:

1. The file itself: ``.seg.nrrd`` names the segment of each value.
2. ``label_info`` of the request, a list of ``{name, idx}``. 3D Slicer's MONAI Label module lists the segments that it
   exports, and Slicer gives the n-th exported segment the value n; ``idx`` is the segment's place among *all* segments,
   "background" included, so it need not equal the value. Other clients mean the value by ``idx``. So both readings are
   tried on the values that occur: one that leaves a value without a name is out; if both remain and differ, nobody
   can know, and the label is refused.
3. Nothing: the values are the indices of the system.

A name decides, never a number: voxels get the index that the system gives to that name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from msklabel.errors import UserError
from msklabel.store.headers import NOT_A_LABEL
from msklabel.system import System


@dataclass(frozen=True)
class Stated:
    """What a request says about its label: names in their order, and an ``idx`` for each or for none."""

    names: tuple[str, ...] = ()
    indices: tuple[int, ...] | None = None

    def by_place(self) -> dict[int, str]:
        """Name of each value if the n-th name has the value n."""
        return dict(enumerate(self.names, start=1))

    def by_idx(self) -> dict[int, str]:
        """Name of each value if ``idx`` is the value; empty if an ``idx`` is missing or used twice."""
        if self.indices is None or len(set(self.indices)) < len(self.indices):
            return {}
        return dict(zip(self.indices, self.names, strict=True))

    def agrees_with(self, system: System) -> bool:
        """Whether each ``idx`` is the index that the system gives to the name."""
        by_idx = self.by_idx()
        return bool(by_idx) and all(system.label_indices.get(name) == idx for idx, name in by_idx.items())


def stated(label_info: Any) -> Stated:
    """Read ``label_info``; entries for background are no labels and left out.

    Raises:
        UserError: If it is no list of ``{name, idx}``.
    """
    entries = [] if label_info is None else label_info
    if not isinstance(entries, list) or not all(
        isinstance(entry, dict) and isinstance(entry.get("name"), str) for entry in entries
    ):
        raise UserError('label_info: expected a list of {"name": …, "idx": …}')
    entries = [entry for entry in entries if entry["name"] not in NOT_A_LABEL]
    indices = [entry.get("idx") for entry in entries]
    complete = all(isinstance(idx, int) and not isinstance(idx, bool) for idx in indices)
    return Stated(tuple(entry["name"] for entry in entries), tuple(indices) if complete else None)


def value_names(present: Sequence[int], said: Stated, header: Mapping[int, str] | None) -> dict[int, str] | None:
    """Name of each value that occurs.

    Args:
        present: Values of the voxels, without 0.
        said: From the request.
        header: From the file.

    Returns:
        None if nothing names all of them.

    Raises:
        UserError: If the file names some values only, or the two readings of ``label_info`` differ.
    """
    if header and (nameless := [value for value in present if value not in header]):
        raise UserError(f"the file names its segments, but none for the voxel values {nameless}")
    readings = [header] if header else [said.by_place(), said.by_idx()]
    named = [{v: names[v] for v in present} for names in readings if all(v in names for v in present)]
    if len(named) == 2 and named[0] != named[1]:
        value = next(v for v in present if named[0][v] != named[1][v])
        raise UserError(
            f"label_info: the value {value} is {named[1][value]!r} by idx but {named[0][value]!r} by its place in the "
            "list; remove the segment 'background' in 3D Slicer, or list every label with its value as idx, in order"
        )
    return named[0] if named else None


def indices_in(
    system: System, present: Sequence[int], said: Stated, header: Mapping[int, str] | None
) -> dict[int, int]:
    """The system's index for each value that occurs.

    Raises:
        UserError: If a value is no label of the system, or its meaning is in doubt; names the values.
    """
    names = value_names(present, said, header)
    wanted = system.label_indices
    known = ", ".join(f"{index} {name}" for name, index in wanted.items())
    if names is not None:
        foreign = {v: name for v, name in names.items() if name not in wanted and name not in NOT_A_LABEL}
        if foreign:
            listed = ", ".join(f"{value} ({name!r})" for value, name in foreign.items())
            raise UserError(f"voxel values {listed} are no labels of {system.name}; its labels are {known}")
        missing = [] if header else [value for value in present if value not in said.by_idx()]
        if missing and said.agrees_with(system):  # its idx are values; so the place in the list is not
            raise UserError(f"label_info gives the indices of {system.name}, but none for the voxel values {missing}")
        return {value: wanted.get(name, 0) for value, name in names.items()}
    if said.names and not said.agrees_with(system):
        raise UserError(
            f"label_info names {', '.join(said.names)}, which does not say what the voxel values {list(present)} are"
        )
    foreign_values = [value for value in present if value not in wanted.values()]
    if foreign_values:
        raise UserError(f"voxel values {foreign_values} are no labels of {system.name}; its labels are {known}")
    return {value: value for value in present}


@dataclass(frozen=True)
class Hints:
    """What may tell systems apart that share label names.

    Attributes:
        modality: Of the scan, as far as known.
        proposed: System of the automatic label that the annotator was offered for this scan.
    """

    modality: str | None = None
    proposed: str | None = None


def system_of(
    info: Mapping[str, Any],
    names: Mapping[int, str] | None,
    systems: Mapping[str, System],
    models: Mapping[str, str],
    hints: Hints,
) -> System:
    """The system that a submitted label belongs to.

    The request's ``system`` or ``model`` decides; else the names of the labels that occur, then all names listed, then
    the scan's modality, then the system whose automatic label was offered; else the only system that is served.

    Raises:
        UserError: If it stays open, or the request names what is not served.
    """
    for key, known in (("system", {name: name for name in systems}), ("model", models)):
        if (asked := info.get(key)) is not None and asked != "":
            if not isinstance(asked, str) or known.get(asked) not in systems:
                raise UserError(f"{key} {str(asked)[:80]!r} is not served here; there are {', '.join(known)}")
            return systems[known[asked]]
    if len(systems) == 1:
        return next(iter(systems.values()))
    if names is None:
        raise UserError(f"which system is this label of? send model, one of {', '.join(models)}, or the label names")
    used = {name for name in names.values() if name not in NOT_A_LABEL}
    fitting = [system for system in systems.values() if used <= system.labels.keys()]
    if not fitting:
        raise UserError(f"no system has all of the labels {', '.join(sorted(used))}; there are {', '.join(systems)}")
    listed = set(stated(info.get("label_info")).names)
    for narrowed in (
        [system for system in fitting if listed and listed <= system.labels.keys()],
        [system for system in fitting if hints.modality in system.modality],
        [system for system in fitting if system.name == hints.proposed],
    ):
        fitting = narrowed or fitting
    if len(fitting) > 1:
        raise UserError(
            f"the labels {', '.join(sorted(used))} fit {', '.join(s.name for s in fitting)}; send model to say which"
        )
    return fitting[0]
