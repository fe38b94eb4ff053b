"""``/msk/quantities``: what was measured of submitted labels."""

from __future__ import annotations

import csv
import io
from enum import Enum
from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse, PlainTextResponse, Response

from msklabel.serve.context import AsUser, Ctx
from msklabel.serve.options import check_known
from msklabel.store.labels import FINAL
from msklabel.store.quantities import describe, flat_rows

router = APIRouter(prefix="/msk/quantities", tags=["Labels"])


class Form(str, Enum):
    """How the answer is written."""

    json = "json"
    csv = "csv"


@router.get("", summary="Volumes, areas, means of the newest finished labels, or of one label version")
def list_quantities(
    ctx: Ctx,
    user: AsUser,
    image: str | None = None,
    system: str | None = None,
    version: int | None = None,
    format: Form = Form.json,
) -> Response:
    store = ctx.store.store
    if system is not None:
        check_known(system, ctx.app.systems, "system")
    if version is not None:
        versions = [store.labels.get(version)]
    else:
        image_id = store.images.get(image).id if image is not None else None
        versions = store.labels.newest_of_each(FINAL, system, image_id)
    found = store.quantities.of(versions)
    if format is Form.json:
        return JSONResponse([describe(known) for known in found])
    return PlainTextResponse(_csv(flat_rows(found)), media_type="text/csv; charset=utf-8")


def _csv(rows: list[dict[str, Any]]) -> str:
    """A table with all columns that any row has, units in their names; nothing where there is no number."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    table = csv.DictWriter(text, columns or ["image"], restval="", lineterminator="\n")
    table.writeheader()
    for row in rows:
        table.writerow({key: _plain_text(value) for key, value in row.items()})
    return text.getvalue()


def _plain_text(value: Any) -> Any:
    """A cell that no spreadsheet takes for a formula."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@") else value
