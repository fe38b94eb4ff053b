"""Compare strategies by playing annotation through on scans whose labels are known."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from msklabel.catalogue import load_catalogue
from msklabel.cli.shared import Configs, console
from msklabel.errors import UserError
from msklabel.system import System

# Shape and spacing of the phantoms of a system with slices of its own, and of volumes.
_PHANTOMS = {2: ((72, 54, 10), (5.6, 5.6, 5.0)), 3: ((44, 40, 24), (6.0, 6.0, 8.0))}


def simulate(
    out: Annotated[
        Path,
        typer.Argument(
            help="Folder for results; what is there already is not played again, if the options are the same."
        ),
    ],
    system: Annotated[list[str], typer.Option(help="System; may be given again.")] = ["hip_tissue_ct"],  # noqa: B006
    strategy: Annotated[list[str] | None, typer.Option(help="Strategy; all by default.")] = None,
    seeds: Annotated[int, typer.Option(help="Seeds 0 to N - 1; at least 8 for a claim.")] = 8,
    rounds: Annotated[int, typer.Option(help="Queries after the start.")] = 5,
    scans: Annotated[int, typer.Option(help="Scans of a query.")] = 2,
    per_scan: Annotated[int, typer.Option(help="Slices drawn in each.")] = 2,
    steps: Annotated[int, typer.Option(help="Optimiser steps of every training.")] = 600,
    pool: Annotated[
        Path | None, typer.Option(help="Folder with images/, truth/ and facts.csv; phantoms by default.")
    ] = None,
    patients: Annotated[int, typer.Option(help="Patients of a pool of phantoms.")] = 36,
    profile: Annotated[str, typer.Option(help="Profile of the systems.")] = "simulation",
    workers: Annotated[int, typer.Option(help="Processes, each with one thread.")] = 2,
    configs: Configs = None,
) -> None:
    """Play active learning through: strategies x seeds x rounds; tables, CSV and figures."""
    from msklabel.choose.simulate.queries import QUERIES
    from msklabel.choose.simulate.run import FULL, Cell, Setting, missing_cells, progress_of, run_cells

    if pool and len(system) > 1:
        raise UserError("a folder of scans is for one system")
    if min(seeds, rounds, scans, per_scan, steps, workers) < 1:
        raise UserError("seeds, rounds, scans, per-scan, steps and workers must be 1 or more")
    strategies = list(strategy or QUERIES)
    unknown = [name for name in strategies if name not in QUERIES]
    if unknown:
        raise UserError(f"there is no strategy {unknown[0]!r} to simulate; strategies: {', '.join(QUERIES)}")
    systems = load_catalogue(configs, system, profile)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{out}: cannot be a folder for results ({error.strerror})") from error
    files = {name: prepared_cases(known, out, pool, patients) for name, known in systems.items()}
    cells = [Cell(name, one, seed) for seed in range(seeds) for name in systems for one in [*strategies, FULL]]
    setting = Setting(rounds, scans, per_scan, steps)
    missing = missing_cells(cells, systems, files, setting, out / "cells")
    console.print(f"{len(cells) - len(missing)} of {len(cells)} cells are there already")
    progress_of(run_cells(missing, systems, files, setting, out / "cells", workers), console.print, len(missing))
    report(out, seeds)


def report(out: Path, seeds: int) -> None:
    """Write tables and figures from the cells of a folder."""
    from msklabel.choose.simulate.figures import draw_curves, draw_matrix
    from msklabel.choose.simulate.statistics import (
        comparisons,
        penalty_matrix,
        read_points,
        record_of,
        summary_table,
    )

    points = read_points(out / "cells")
    points = points[points.seed < seeds]  # of more seeds, played before, there may be some strategies only
    table, compared = summary_table(points), comparisons(points)
    points.to_csv(out / "points.csv", index=False)
    table.to_csv(out / "strategies.csv", index=False)
    compared.to_csv(out / "comparisons.csv", index=False)
    draw_curves(points, out / "curves.png")
    if len(compared):
        matrix = penalty_matrix(compared)
        matrix.to_csv(out / "penalty.csv")
        draw_matrix(matrix, out / "penalty.png")
    record = record_of(compared, "auto")
    for system, rows in table.groupby("system", sort=False):
        shown = _table(f"{system}", "strategy", "area", "final Dice", "worst label", "of full", "slices", "minutes")
        for row in rows.to_dict("records"):
            figures = [f"{row[name]:.3f}" for name in ("area", "final", "worst", "of_full")]
            shown.add_row(str(row["strategy"]), *figures, f"{row['slices']:.0f}", f"{row['minutes']:.0f}")
        console.print(shown)
        against = _table(f"{system}", "auto against", "won", "lost", "of", "mean difference in Dice")
        for row in record[record.system == system].to_dict("records"):
            counts = [str(row[name]) for name in ("won", "lost", "of")]
            against.add_row(str(row["rival"]), *counts, f"{row['difference']:+.3f}")
        if against.row_count:
            console.print(against)
    if len(record):
        console.print("won and lost: paired t-test at each budget of each system, Holm over all pairs of strategies")
    console.print(f"oracle_foreground looks at true labels; minutes are an assumption; {seeds} seed(s)")
    if seeds < 8:
        console.print("fewer than 8 seeds: this shows that it works, and nothing else")


def _table(system: str, name: str, *numbers: str) -> Table:
    table = Table(title=system, title_justify="left", box=None, pad_edge=False)
    table.add_column(name, no_wrap=True, overflow="fold")  # a name that is cut off names nothing
    for title in numbers:
        table.add_column(title, justify="right", min_width=max(map(len, title.split())))
    return table


def prepared_cases(system: System, out: Path, pool: Path | None, patients: int) -> Path:
    """The file of a system's prepared cases, made if missing."""
    from msklabel.choose.simulate.run import save_cases
    from msklabel.choose.simulate.scans import LabelledScan, folder_key, prepare, read_folder
    from msklabel.imaging.scan import Scan

    file = out / f"cases-{system.name}-{system.preparation}-{folder_key(system, pool) if pool else patients}.pt"
    if file.exists():
        return file
    if pool:
        labelled = read_folder(system, pool)
    else:
        from msklabel_phantoms.pool import PoolOptions, generate_pool

        shape, spacing_mm = _PHANTOMS[system.dimensions]
        rare = PoolOptions(rare_label=len(system.labels) // 2 + 1)
        labelled = (
            LabelledScan(
                f"{phantom.facts['patient']}_{int(bool(phantom.facts['duplicate']))}",
                str(phantom.facts["patient"]),
                str(phantom.facts["site"]),
                Scan(phantom.image, phantom.affine, {key: str(value) for key, value in phantom.facts.items()}),
                phantom.labels,
            )
            for phantom in generate_pool(system.name, patients, 0, rare, shape, spacing_mm)
        )
    save_cases(file, [prepare(system, one) for one in labelled])
    console.print(f"{system.name}: {file.name} made")
    return file
