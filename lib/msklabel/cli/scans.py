"""Make scans out of scans."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from msklabel.cli.shared import check_output, console
from msklabel.errors import UserError


def stitch(
    stacks: Annotated[list[Path], typer.Argument(help="Overlapping stacks: files, channel groups or DICOM folders.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Scan to write: .nii.gz or .nii.")],
    match_intensity: Annotated[bool, typer.Option(help="Scale the stacks to agree where they overlap.")] = True,
) -> None:
    """Join overlapping stacks of one scan, blended where they overlap; refused where they do not line up."""
    from msklabel.imaging.stitch import stitch_files

    scan = stitch_files(stacks, output, match_intensity)
    scales = scan.facts.get("stitched_scales", "none")
    console.print(f"{output}: {'×'.join(map(str, scan.shape))} voxels, intensity factors {scales}", highlight=False)


def interpolate(
    label: Annotated[Path, typer.Argument(help="Label map of which some slices were drawn.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Label map to write: .nii.gz, .nrrd, .nii or .mha.")],
    axis: Annotated[
        int | None, typer.Option(min=0, max=2, help="Of the file, across the slices; found by default.")
    ] = None,
    slices: Annotated[
        str, typer.Option(help="Drawn slices, comma-separated from 0; those that hold labels by default.")
    ] = "",
) -> None:
    """Fill a label map between the slices that were drawn; drawn slices stay as they are."""
    from msklabel.imaging.write import write_labels
    from msklabel.predict.interpolate import fill, read_drawn

    check_output(output, label)
    wanted = [part.strip() for part in slices.split(",") if part.strip()]
    if not all(part.isdigit() for part in wanted):
        raise UserError(f"--slices: expected whole numbers from 0, comma-separated, got {slices!r}")
    filled, facts = fill(read_drawn(label, {}, request={"axis": axis, "slices": [int(part) for part in wanted]}))
    write_labels(output, filled)
    console.print(
        f"{output}: {facts['filled_slices']} slices filled between {len(facts['drawn_slices'])} drawn ones along axis "
        f"{facts['axis']}",
        highlight=False,
    )
