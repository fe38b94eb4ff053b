"""Voxel-based relaxometry."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from msklabel.cli.measure import Out, Pdf, make_folder, write_report
from msklabel.cli.shared import console


def relaxometry(
    maps: Annotated[Path, typer.Option(help="Folder of T1rho or T2 maps in ms; 0 where they say nothing.")],
    reference: Annotated[Path, typer.Option(help="Image in the common space.")],
    mask: Annotated[Path, typer.Option(help="Cartilage, a label map on the reference's grid.")],
    clinical: Annotated[Path, typer.Option(help="CSV with a row for each scan: exposures, covariates, cohort.")],
    exposure: Annotated[
        list[str], typer.Option(help="Column of the CSV, or structure:quantity of --quantities; again for more.")
    ],
    out: Out,
    quantities: Annotated[Path | None, typer.Option(help="quantities.csv of msklabel quantify.")] = None,
    images: Annotated[
        Path | None, typer.Option(help="Folder of images of the same names and grids that are registered.")
    ] = None,
    register: Annotated[str, typer.Option(help="bspline, rigid, or none: the maps lie on the reference.")] = "bspline",
    transforms: Annotated[
        Path | None, typer.Option(help="Folder of ITK transforms, <scan>.tfm, instead of a registration.")
    ] = None,
    adjust: Annotated[str, typer.Option(help="Columns to adjust for, by commas; of numbers, or sex.")] = "",
    cohort: Annotated[str | None, typer.Option(help="Column that parts the patients.")] = None,
    fdr: Annotated[bool, typer.Option(help="Adjust p for the false discovery rate.")] = False,
    pdf: Pdf = False,
) -> None:
    """Where in the cartilage do relaxation times go with a number for each patient: R and p maps, PSV; a report."""
    from msklabel.measure.relaxometry_folder import How, relaxometry_folder

    make_folder(out)
    covariates = [name.strip() for name in adjust.split(",") if name.strip()]
    how = How(register, transforms, images, covariates, cohort, fdr)
    result = relaxometry_folder(maps, reference, mask, clinical, exposure, how, quantities, console.print)
    result.write(out)
    write_report(result.report, out, pdf)
