"""A report as data, and as one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import html
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from jinja2 import Environment, PackageLoader
from matplotlib.figure import Figure

from msklabel.durable import replace_text

HONEST = "Research software. Automatic results, not clinically validated; not for diagnosis or treatment."
_DPI = 110
_LONG = 24  # characters of a name that may be broken
_AFTER = re.compile(r"([:_])(?=\w)")  # and where
_UNITS = {
    "_mm3_per_m2": "mm³/m²",
    "_hu_per_m2": "HU/m²",
    "_kg_per_m2": "kg/m²",
    "_m_per_s": "m/s",
    "_percent": "%",
    "_cm3": "cm³",
    "_cm2": "cm²",
    "_cm": "cm",
    "_mm": "mm",
    "_kg": "kg",
    "_years": "years",
    "_hu": "HU",
}


@dataclass(frozen=True)
class Table:
    """A table with a caption; a column's numbers are shown with as many places after the point, three at most."""

    caption: str
    frame: pd.DataFrame


@dataclass(frozen=True)
class Picture:
    """A figure with a caption, which also stands in for it where it cannot be seen."""

    caption: str
    figure: Figure


@dataclass(frozen=True)
class Section:
    """A heading with what belongs under it, in this order: paragraphs, figures, tables."""

    title: str
    paragraphs: Sequence[str] = ()
    pictures: Sequence[Picture] = ()
    tables: Sequence[Table] = ()


@dataclass(frozen=True)
class Report:
    """What one page holds.

    Attributes:
        title: Heading of the page.
        notes: Said first, beside that nothing here is clinically validated.
        sections: In order.
        provenance: Name and value of what it was made from: versions, checksums, options.
    """

    title: str
    notes: Sequence[str] = ()
    sections: Sequence[Section] = ()
    provenance: Sequence[tuple[str, str]] = field(default=())


def write_html(report: Report, file: Path) -> None:
    """Write one HTML file with all figures inside; no script, nothing is loaded from elsewhere."""
    environment = Environment(loader=PackageLoader("msklabel.measure.report", "templates"), autoescape=True)
    template = environment.get_template("report.html.j2")
    text = template.render(report=report, honest=HONEST, table=table_html, image=_png)
    replace_text(file, text + "\n")


def table_html(frame: pd.DataFrame) -> str:
    """A table as HTML, numbers to the right."""
    head = "".join(f"<th>{_breakable(heading(str(column)))}</th>" for column in frame.columns)
    decimals = [places(frame.iloc[:, at]) for at in range(frame.shape[1])]
    rows = []
    for row in frame.itertuples(index=False):
        cells = (
            f'<td class="{"n" if _is_number(value) else "t"}">{_breakable(shown(value, after))}</td>'
            for value, after in zip(row, decimals, strict=True)
        )
        rows.append(f"<tr>{''.join(cells)}</tr>")
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def places(column: Iterable[object]) -> int:
    """Places after the point that all numbers of a column are shown with: fewer, the larger the largest is."""
    numbers = [abs(float(v)) for v in column if isinstance(v, float | np.floating) and np.isfinite(v)]
    largest = max(numbers, default=0.0)
    return 3 if largest < 10 else 2 if largest < 100 else 1


def heading(column: str) -> str:
    """A column's name as people write it; units stay."""
    for ending, unit in _UNITS.items():
        if column.endswith(ending):
            return f"{column.removesuffix(ending).replace('_', ' ')} ({unit})"
    return column.replace("_", " ")


def shown(value: object, after: int = 3) -> str:
    """A cell's text: a number with so many places after the point, unless nothing were left of it; – for none."""
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, int | np.integer):
        return str(value)
    if isinstance(value, float | np.floating):
        value = float(value)
        if not np.isfinite(value):
            return "–"
        if value == 0:
            return "0"
        return f"{value:.2g}" if abs(value) < 0.5 * 10**-after else f"{value:,.{after}f}"
    return "–" if value is None else str(value)


def with_intervals(values: Iterable[float], lower: Iterable[float], upper: Iterable[float]) -> list[str]:
    """Numbers with their intervals, ``1.20 [0.90, 1.50]``, all with as many places; – for none."""
    rows = list(zip(values, lower, upper, strict=True))
    after = places(float(number) for row in rows for number in row)
    return [
        f"{shown(float(value), after)} [{shown(float(low), after)},\u00a0{shown(float(high), after)}]"
        if np.isfinite([value, low, high]).all()
        else shown(float(value), after)
        for value, low, high in rows
    ]


def _breakable(text: str) -> str:
    """Text as HTML that may be broken within long names."""
    return _AFTER.sub(r"\1<wbr>", html.escape(text)) if len(text) > _LONG else html.escape(text)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


def _png(picture: Picture) -> str:
    stream = io.BytesIO()
    picture.figure.savefig(stream, format="png", dpi=_DPI)
    return base64.b64encode(stream.getvalue()).decode("ascii")
