"""Make scans out of scans."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from msklabel.cli.shared import console


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
