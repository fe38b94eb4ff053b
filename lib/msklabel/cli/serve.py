"""Start the server, or show what it does."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from msklabel.catalogue import app_folder, load_catalogue
from msklabel.cli.shared import Profile, Studies, console
from msklabel.errors import UserError
from msklabel.options import describe_keys


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
