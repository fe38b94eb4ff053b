"""The command line: ``msklabel COMMAND --help`` explains each."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from msklabel.catalogue import app_folder, load_catalogue
from msklabel.errors import NotFound, UserError
from msklabel.options import describe_keys
from msklabel.system import PAPER, ConfigError, System

app = typer.Typer(
    name="msklabel",
    help="Active-learning annotation server for hip and thigh imaging. Not for clinical use.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
console = Console()
errors = Console(stderr=True)

Configs = Annotated[Path | None, typer.Option(help="Folder with systems of your own, one YAML file each.")]
Profile = Annotated[str, typer.Option(help="Profile of the systems: paper, or demo for small, quick ones.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda or cuda:N; a GPU where there is one by default.")]
Studies = Annotated[Path, typer.Option(help="Folder of images: NIfTI, NRRD, MetaImage or DICOM series.")]


def main() -> None:
    """Run the command line; what a user can mend is one sentence and exit status 2, never a traceback."""
    try:
        sys.argv[1:] = joined_conf(sys.argv[1:])
        app()
    except UserError as error:
        errors.print(f"msklabel: {error}", style="red", highlight=False, markup=False)
        raise SystemExit(2) from error


def joined_conf(arguments: Sequence[str]) -> list[str]:
    """Write ``--conf KEY VALUE``, the form that MONAI Label's users know, as ``--conf KEY=VALUE``."""
    joined: list[str] = []
    rest = list(arguments)
    while rest:
        part = rest.pop(0)
        joined.append(part)
        if part in ("--conf", "-c") and rest:
            key = rest.pop(0)
            if "=" not in key and not rest:
                raise ConfigError(f"--conf {key}: a value is missing")
            joined.append(key if "=" in key else f"{key}={rest.pop(0)}")
    return joined


@app.command()
def systems(configs: Configs = None, profile: Profile = PAPER) -> None:
    """List the segmentation systems."""
    table = Table(title=f"Systems ({profile} profile)")
    table.add_column("name", no_wrap=True)
    for heading in ("what", "images", "labels", "network", "patch (voxels)"):
        table.add_column(heading)
    for system in load_catalogue(configs, profile=profile).values():
        table.add_row(*_row(system))
    console.print(table)


def _row(system: System) -> tuple[str, ...]:
    patch = "×".join(str(n) for n in system.patch_voxels[: system.dimensions])
    return (
        system.name,
        system.title,
        f"{', '.join(system.modality)}: {', '.join(system.channels)}",
        str(len(system.labels)),
        system.network.name,
        patch,
    )


@app.command()
def infer(
    image: Annotated[Path, typer.Argument(help="Scan: a file, or a folder of one DICOM series.")],
    model: Annotated[str, typer.Option(help="System, or SYSTEM_threshold for the draft that needs no training.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Label map to write: .nii.gz, .nrrd, .nii or .mha.")],
    state: Annotated[Path | None, typer.Option(help="State folder that holds the trained versions.")] = None,
    configs: Configs = None,
    profile: Profile = PAPER,
    device: Device = None,
) -> None:
    """Segment one scan and write its label map, with the scan's exact geometry."""
    from msklabel.imaging.names import without_suffix
    from msklabel.imaging.write import write_labels
    from msklabel.learn.versions import Versions
    from msklabel.predict.classical import ClassicalSegmenter
    from msklabel.predict.served import ServedModel
    from msklabel.predict.source import read_for

    if without_suffix(output.name) == output.name:
        raise UserError(f"{output}: cannot write this format; use .nii.gz or .nrrd")
    if not output.parent.is_dir():
        raise NotFound(f"{output.parent}: no such folder")
    catalogue = load_catalogue(configs, profile=profile)
    drafts = {f"{name}_threshold": system for name, system in catalogue.items() if system.thresholds}
    system = drafts.get(model) or catalogue.get(model)
    if system is None:
        raise NotFound(f"there is no model {model!r}; models: {', '.join([*catalogue, *drafts])}")
    scan = read_for(system, image)
    if model in drafts:
        version, result = "training-free", ClassicalSegmenter(system)(scan)
    elif state is None:
        raise UserError("--state: needed for a trained model; the folder is <studies>/.msklabel unless you moved it")
    else:
        version, result = ServedModel(system, Versions(state / "models"), device)(scan)
    write_labels(output, result.labels, system.labels)
    _print_volumes(system, result.labels, f"{model} ({version}) on {image.name}, not clinically validated")
    console.print(f"{output} written in {sum(result.seconds.values()):.1f} s", highlight=False)


def _print_volumes(system: System, labels: Any, title: str) -> None:
    import numpy as np

    voxel_cm3 = abs(float(np.linalg.det(labels.affine[:3, :3]))) / 1000
    counts = np.bincount(labels.array.ravel(), minlength=system.classes)
    table = Table(title=title)
    table.add_column("label")
    table.add_column("volume (cm³)", justify="right")
    for name, index in system.label_indices.items():
        table.add_row(name, f"{counts[index] * voxel_cm3:.1f}")
    console.print(table)


@app.command()
def train(
    system: Annotated[str, typer.Argument(help="System to train.")],
    studies: Studies,
    epochs: Annotated[int | None, typer.Option(help="Instead of the recipe's number.")] = None,
    folds: Annotated[int, typer.Option(help="Train so many members by cross-validation, split by patient.")] = 1,
    on_all: Annotated[
        bool, typer.Option(help="Keep no scan for validation; the version counts as not validated.")
    ] = False,
    from_version: Annotated[str, typer.Option("--from", help="Version to start from; the served one by default.")] = "",
    from_scratch: Annotated[bool, typer.Option(help="Start from fresh weights.")] = False,
    variant: Annotated[str, typer.Option(help="Train a variant of the system, on the scans that it is for.")] = "",
    configs: Configs = None,
    profile: Profile = PAPER,
    device: Device = None,
    state: Annotated[Path | None, typer.Option(help="State folder; <studies>/.msklabel by default.")] = None,
) -> None:
    """Train a system on the labels submitted so far; goes on where a stopped training was."""
    from msklabel.app import MskLabelApp

    conf = _conf(models=system, configs=configs, profile=profile, device=device, state=state)
    server_app = MskLabelApp(str(app_folder()), str(studies), conf)
    request: dict[str, Any] = {
        "model": system,
        "folds": folds,
        "on_all": on_all,
        "from_version": from_version,
        "from_scratch": from_scratch,
        "variant": variant,
    }
    if epochs is not None:
        request["max_epochs"] = epochs
    _log_to_console()
    stats = server_app.train(request)
    console.print(stats)


@app.command()
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


@app.command("import-nnunet")
def import_nnunet(
    system: Annotated[str, typer.Argument(help="System that the model is to serve.")],
    folder: Annotated[Path, typer.Argument(help="Trained nnU-Net v2 model: plans.json, dataset.json, fold_*.")],
    studies: Studies,
    folds: Annotated[str, typer.Option(help="Folds to take, comma-separated: 0 to 4, or all.")] = "all",
    orientation: Annotated[str | None, typer.Option(help="Axis codes of its training images, such as RAS.")] = None,
    publish: Annotated[bool, typer.Option(help="Serve it at once, without validation.")] = False,
    configs: Configs = None,
    profile: Profile = PAPER,
    state: Annotated[Path | None, typer.Option(help="State folder; <studies>/.msklabel by default.")] = None,
) -> None:
    """Store a trained nnU-Net model as a version of a system whose network it fits."""
    from msklabel.learn.nnunet_import import import_nnunet as read_members
    from msklabel.learn.versions import Versions

    chosen = load_catalogue(configs, [system], profile)[system]
    names = [name.strip() for name in folds.split(",")]
    members = [read_members(folder, chosen, name, orientation) for name in names]
    store = Versions((state or studies / ".msklabel") / "models")
    metrics = {"imported_from": folder.name, "members": len(members), "validated": False, "mean_dice": None}
    version = store.add(chosen, members, {**metrics, "fingerprint": chosen.fingerprint, "profile": chosen.profile})
    if publish:
        store.publish(system, version.name)
    console.print(f"{system}: version {version.name} stored, {'served' if publish else 'not served'}, not validated")


@app.command()
def versions(
    studies: Studies,
    configs: Configs = None,
    state: Annotated[Path | None, typer.Option(help="State folder; <studies>/.msklabel by default.")] = None,
) -> None:
    """List the trained versions of every system; the served one is marked."""
    from msklabel.learn.versions import Versions

    store = Versions((state or studies / ".msklabel") / "models")
    table = Table("system", "version", "served", "Dice (validation)", "scans (training + validation)", "time")
    for name in load_catalogue(configs):
        for version in store.names(name):
            metrics = store.get(name, version).metrics
            table.add_row(
                name,
                version,
                "yes" if version == store.serving(name) else "",
                f"{metrics['mean_dice']:.3f}" if metrics.get("mean_dice") is not None else "not validated",
                f"{metrics.get('training_scans')} + {metrics.get('validation_scans')}",
                str(metrics.get("time", "")),
            )
    console.print(table)


@app.command()
def serve(
    studies: Studies,
    models: Annotated[str, typer.Option(help="Systems to serve, comma-separated; all by default.")] = "",
    host: Annotated[str, typer.Option(help="Address to listen on; any but loopback needs --token-file.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 8000,
    token_file: Annotated[Path | None, typer.Option(help="One user:token[:role] a line, readable by you only.")] = None,
    conf: Annotated[list[str] | None, typer.Option("--conf", metavar="KEY VALUE", help=f"{describe_keys()}.")] = None,
) -> None:
    """Start the server on a folder of images."""
    from msklabel.serve.run import serve as run
    from msklabel.serve.settings import ServeSettings

    settings = ServeSettings(host=host, port=port, token_file=token_file)
    given = dict(pair.split("=", 1) for pair in conf or ())
    run(str(app_folder()), str(studies), {**given, **({"models": models} if models else {})}, settings)


@app.command()
def demo(
    system: Annotated[str, typer.Argument(help="System to demonstrate; it needs phantoms.")] = "hip_tissue_ct",
    out: Annotated[Path, typer.Option(help="Folder to fill; what is in it is cleared.")] = Path("demo"),
    rounds: Annotated[str, typer.Option(help="Labels to submit before each training.")] = "2,2,4",
    epochs: Annotated[int | None, typer.Option(help="Epochs of each training; the recipe's by default.")] = None,
    seed: Annotated[int, typer.Option(help="Of the phantoms.")] = 0,
    profile: Profile = "demo",
) -> None:
    """Go round the whole loop on phantoms, through 3D Slicer's own client, and draw what came of it."""
    from msklabel.demo.loop import run_demo
    from msklabel.demo.picture import draw

    chosen = load_catalogue(names=[system], profile=profile)[system]
    folder = out / system
    labels_per_round = _positive_numbers(rounds, "--rounds")
    watch = Stopwatch()
    outcome = run_demo(chosen, folder, labels_per_round, epochs or chosen.train.epochs, seed, watch.say)
    draw(outcome, chosen, folder / "demo.png")
    table = Table("labels", "mean Dice (held-out)", "training (s)", title=f"{system}, {profile} profile, synthetic")
    if outcome.draft:
        table.add_row("0 (draft without training)", f"{outcome.draft.dice:.3f}", "")
    for row in outcome.rounds:
        labels = str(row.labels) if row.labels else "0 (fresh weights)"
        table.add_row(labels, f"{row.dice:.3f}", f"{row.training_seconds:.0f}" if row.labels else "")
    console.print(table)
    console.print(f"{folder / 'demo.png'} drawn; {outcome.seconds:.0f} s in all", highlight=False)


class Stopwatch:
    """Prints lines with the seconds since the start."""

    def __init__(self) -> None:
        self.started = time.monotonic()

    def say(self, line: str) -> None:
        """Print one line."""
        console.print(f"{time.monotonic() - self.started:6.0f} s  {line}", highlight=False, markup=False)


def _positive_numbers(text: str, option: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdigit() and int(part) > 0 for part in parts):
        raise UserError(f"{option}: expected whole numbers from 1, comma-separated, got {text!r}")
    return [int(part) for part in parts]


def _conf(**values: Any) -> dict[str, str]:
    return {key: str(value) for key, value in values.items() if value not in (None, "")}


def _log_to_console() -> None:
    import logging

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("msklabel").setLevel(logging.INFO)
