"""Segment a scan from the command line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import Progress
from rich.table import Table

from msklabel.catalogue import load_catalogue
from msklabel.cli.shared import Configs, Device, Profile, check_output, console
from msklabel.errors import NotFound, UserError
from msklabel.options import check_device
from msklabel.system import PAPER, System


def infer(
    image: Annotated[Path, typer.Argument(help="Scan: a file, or a folder of one DICOM series.")],
    model: Annotated[str, typer.Option(help="System, or SYSTEM_threshold for the draft that needs no training.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Label map to write: .nii.gz, .nrrd, .nii or .mha.")],
    state: Annotated[Path | None, typer.Option(help="State folder that holds the trained versions.")] = None,
    configs: Configs = None,
    profile: Profile = PAPER,
    device: Device = None,
    backend: Annotated[
        str, typer.Option(help="What runs the network: auto for the fastest, or eager, openvino, openvino_f16, ….")
    ] = "auto",
) -> None:
    """Segment one scan and write its label map, with the scan's exact geometry."""
    from msklabel.imaging.write import write_labels
    from msklabel.learn.versions import Versions
    from msklabel.predict.backends import BACKENDS
    from msklabel.predict.classical import ClassicalSegmenter, require_hounsfield
    from msklabel.predict.selection import AUTO, Selection
    from msklabel.predict.served import ServedModel
    from msklabel.predict.source import read_for

    check_output(output, image)
    check_device(device, "--device")
    if backend not in (AUTO, *BACKENDS):
        raise UserError(f"--backend: {backend!r}; one of {AUTO}, {', '.join(BACKENDS)}")
    catalogue = load_catalogue(configs, profile=profile)
    drafts = {f"{name}_threshold": system for name, system in catalogue.items() if system.thresholds}
    system = drafts.get(model) or catalogue.get(model)
    if system is None:
        raise NotFound(f"there is no model {model!r}; models: {', '.join([*catalogue, *drafts])}")
    scan = read_for(system, image)
    if model in drafts:
        require_hounsfield(system, scan)
        version, result = "training-free", ClassicalSegmenter(system)(scan)
    elif state is None:
        raise UserError("--state: needed for a trained model; the folder is <studies>/.msklabel unless you moved it")
    else:
        with _shown_progress():
            version, result = ServedModel(system, Versions(_models_of(state)), device, Selection(state, backend))(scan)
    write_labels(output, result.labels, system.labels)
    _print_sizes(system, result.labels, f"{model} ({version}) on {image.name}, not clinically validated")
    for warning in result.facts.get("warnings", ()):
        console.print(f"warning: {warning}", style="yellow", highlight=False, markup=False)
    console.print(f"{output} written in {sum(result.seconds.values()):.1f} s", highlight=False)


def _models_of(state: Path) -> Path:
    """The folder of trained versions.

    Raises:
        NotFound: If there is none.
    """
    if not state.is_dir():
        raise NotFound(f"--state: {state}: no such folder; it is <studies>/.msklabel unless you moved it")
    if (state / "models").is_dir():
        return state / "models"
    inside = state / ".msklabel"
    meant = f"; is {inside} meant?" if inside.is_dir() else ", or nothing is trained yet"
    raise NotFound(f"--state: {state} holds no models: it is no state folder{meant}")


@contextmanager
def _shown_progress() -> Iterator[None]:
    """A bar of the windows; before the first one, which on a new machine takes a while, it says so."""
    from msklabel.predict.progress import reported

    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("getting ready", total=None)

        def told(done: int, windows: int) -> None:
            if done:
                bar.update(task, description="segmenting", completed=done, total=windows)

        with reported(told):
            yield


def _print_sizes(system: System, labels: Any, title: str) -> None:
    """Volumes, or the areas of a radiograph, whose normal is 1 mm."""
    import numpy as np

    voxel_mm3 = abs(float(np.linalg.det(labels.affine[:3, :3])))
    size, name_of_size = (
        (voxel_mm3 / 100, "area (cm²)") if system.of_projections else (voxel_mm3 / 1000, "volume (cm³)")
    )
    counts = np.bincount(labels.array.ravel(), minlength=system.classes)
    table = Table(title=title)
    table.add_column("label")
    table.add_column(name_of_size, justify="right")
    for name, index in system.label_indices.items():
        table.add_row(name, f"{counts[index] * size:.1f}")
    console.print(table)
