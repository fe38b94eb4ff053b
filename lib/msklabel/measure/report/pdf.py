"""A report as PDF: matplotlib's own writer, so that no browser and no system library is needed."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

import pandas as pd
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.figure import Figure

from msklabel.measure.report.page import HONEST, Report, Table, heading, places, shown

_A4_INCHES = (11.69, 8.27)
_ROWS, _LINE, _CELL = 46, 165, 60  # lines, and characters of a line and of a cell's line, of a table on a page
_KEYS = 3  # leading columns that are repeated
_WIDTH = 130  # characters of a line of text


def write_pdf(report: Report, file: Path) -> None:
    """Write a report: a page of text for each section, one for each figure, and tables over as many as they need."""
    partial = file.with_name(f".{file.name}-partial")
    try:
        with PdfPages(partial, metadata={"Title": report.title, "Subject": HONEST}) as pages:
            for page in _pages(report):
                pages.savefig(page)
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


def _pages(report: Report) -> Iterator[Figure]:
    yield _text_page(report.title, [HONEST, *report.notes])
    for section in report.sections:
        if section.paragraphs:
            yield _text_page(section.title, section.paragraphs)
        for picture in section.pictures:
            yield picture.figure
        for table in section.tables:
            yield from _table_pages(section.title, table)
    if report.provenance:
        lines = [f"{name}: {value}" for name, value in report.provenance]
        for start in range(0, len(lines), _ROWS // 3):
            yield _text_page("Where this comes from", lines[start : start + _ROWS // 3])


def _text_page(title: str, paragraphs: object) -> Figure:
    figure = Figure(figsize=_A4_INCHES)
    figure.text(0.06, 0.93, title, fontsize=15, weight="bold", va="top", wrap=True)
    wrapped = (textwrap.fill(str(text), _WIDTH) for text in paragraphs)  # type: ignore[attr-defined]
    figure.text(0.06, 0.85, "\n\n".join(wrapped), fontsize=9, va="top", linespacing=1.4)
    return figure


def _table_pages(title: str, table: Table) -> Iterator[Figure]:
    for lines in _blocks(table.frame):
        figure = Figure(figsize=_A4_INCHES)
        figure.text(0.04, 0.96, textwrap.fill(f"{title}: {table.caption}", 110), fontsize=10, weight="bold", va="top")
        figure.text(0.04, 0.9, "\n".join(lines), fontsize=7, family="monospace", va="top", linespacing=1.35)
        yield figure


def _blocks(frame: pd.DataFrame) -> Iterator[list[str]]:
    """Lines of each page: aligned columns, the first three again where a table is too wide for one page."""
    columns = [_column(str(name), frame[name]) for name in frame.columns]
    keys, rest = columns[:_KEYS], columns[_KEYS:]
    while True:
        block = list(keys)
        while rest and (len(block) == len(keys) or sum(len(c[0][0]) + 2 for c in [*block, rest[0]]) <= _LINE):
            block.append(rest.pop(0))
        lines = [line for row in zip(*block, strict=True) for line in _lines(row)]
        width = max(map(len, lines))
        for row in range(1, max(2, len(lines)), _ROWS):
            yield [lines[0], "-" * width, *lines[row : row + _ROWS]]
        if not rest:
            return


def _column(name: str, values: pd.Series) -> list[list[str]]:
    """Heading and cells, each the lines that it takes, all equally wide."""
    after = places(values)
    cells = [[heading(name)], *(textwrap.wrap(shown(value, after), _CELL) or [""] for value in values)]
    width = max(len(line) for cell in cells for line in cell)
    numbers = pd.api.types.is_numeric_dtype(values)
    return [[line.rjust(width) if numbers else line.ljust(width) for line in cell] for cell in cells]


def _lines(row: tuple[list[str], ...]) -> Iterator[str]:
    """The lines that a row of cells takes."""
    widths = [len(cell[0]) for cell in row]
    for parts in zip_longest(*row):
        filled = (" " * width if part is None else part for part, width in zip(parts, widths, strict=True))
        yield "  ".join(filled).rstrip()
