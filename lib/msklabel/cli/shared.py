"""What the commands share: options that mean the same everywhere, and the console."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from msklabel.errors import NotFound, UserError

console = Console()
errors = Console(stderr=True)

Configs = Annotated[Path | None, typer.Option(help="Folder with systems of your own, one YAML file each.")]
Profile = Annotated[str, typer.Option(help="Profile of the systems: paper, or demo for small, quick ones.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda or cuda:N; a GPU where there is one by default.")]
Studies = Annotated[Path, typer.Option(help="Folder of images: NIfTI, NRRD, MetaImage or DICOM series.")]
State = Annotated[Path | None, typer.Option(help="State folder; <studies>/.msklabel by default.")]


def conf_of(**values: Any) -> dict[str, str]:
    """The app's configuration from the options that were given."""
    return {key: str(value) for key, value in values.items() if value not in (None, "")}


def state_folder(studies: Path, state: Path | None) -> Path:
    """Where labels and models are kept.

    Raises:
        NotFound: If there is no such folder of images, or no such state folder where one is named.
    """
    if not (state or studies).is_dir():
        raise NotFound(f"{state or studies}: no such folder")
    return state or studies / ".msklabel"


def check_output(output: Path, source: Path) -> None:
    """Refuse, before any work, a label map that could not be written, or would take the place of what it is made from.

    Raises:
        UserError: If its suffix is none that can be written, its folder does not exist, or it is the source itself.
    """
    if not output.name.lower().endswith((".nii.gz", ".nii", ".nrrd", ".mha")):
        raise UserError(f"{output}: cannot write this format; use .nii.gz or .nrrd")
    if not output.parent.is_dir():
        raise NotFound(f"{output.parent}: no such folder")
    if output.exists() and source.exists() and output.samefile(source):
        raise UserError(f"{output} is what is read; give the label map another name")
