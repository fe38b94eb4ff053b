"""Show the whole loop on phantoms."""

from __future__ import annotations

import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from msklabel.catalogue import load_catalogue
from msklabel.cli.shared import Profile, console
from msklabel.errors import UserError
from msklabel.system import System


def demo(
    system: Annotated[str, typer.Argument(help="System to demonstrate, or all, one after another.")] = "hip_tissue_ct",
    out: Annotated[Path, typer.Option(help="Folder to fill; what is in it is cleared.")] = Path("demo"),
    rounds: Annotated[str, typer.Option(help="Labels to submit before each training; the profile's by default.")] = "",
    epochs: Annotated[int | None, typer.Option(min=1, help="Epochs of each training; the recipe's by default.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the phantoms.")] = 0,
    slices: Annotated[int, typer.Option(min=0, help="Draw this many slices of each scan, chosen by the server.")] = 0,
    profile: Profile = "demo",
    summary: Annotated[bool, typer.Option("--summary", help="Only show what is in --out, as Markdown.")] = False,
) -> None:
    """Go round the whole loop on phantoms, through 3D Slicer's own client, and draw what came of it."""
    from msklabel.demo.summary import markdown, read_outcomes, summary_table

    if summary:
        print(markdown(read_outcomes(out)))
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # like Ctrl-C, so that the server ends, too
    systems = load_catalogue(names=[] if system == "all" else [system], profile=profile)
    given = _positive_numbers(rounds, "--rounds") if rounds else None
    for chosen in systems.values():
        _demonstrate(chosen, out / chosen.name, given or chosen.demo_labels, epochs, seed, slices)
    if len(systems) > 1:
        console.print(summary_table(read_outcomes(out)))


def _demonstrate(
    chosen: System, folder: Path, labels_per_round: Sequence[int], epochs: int | None, seed: int, slices: int
) -> None:
    from msklabel.demo.loop import run_demo
    from msklabel.demo.picture import draw

    watch = Stopwatch()
    outcome = run_demo(chosen, folder, labels_per_round, epochs or chosen.train.epochs, seed, watch.say, slices)
    draw(outcome, chosen, folder / "demo.png")
    title = f"{chosen.name}, {chosen.profile} profile, synthetic"
    table = Table("labels", "mean Dice (held-out)", "training (s)", title=title)
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
