"""What the dashboard shows: for each system what is labelled, learned and next; who works on what; what runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import nibabel as nib
import numpy as np

from msklabel.errors import UserError
from msklabel.imaging import same_grid
from msklabel.imaging.geometry import Affine
from msklabel.imaging.preview import UNFIT
from msklabel.measure.slab import volume_unit
from msklabel.serve.context import Context
from msklabel.serve.ohif.viewer import ROOT
from msklabel.store.fit import reasons_against
from msklabel.store.images import Grid
from msklabel.store.jobs import JobRow
from msklabel.store.labels import FINAL
from msklabel.store.quantities import Quantity
from msklabel.store.schema import Image, LabelVersion, now
from msklabel.system import System

_QUEUE, _NEWEST, _VERSIONS, _TRAININGS = 5, 6, 12, 100
_JOBS = ("train", "scoring", "batch_infer", "quantities")
_QUANTITIES = {
    "volume_cm3": "cm³",
    "area_cm2": "cm²",
    "mean_hu": "HU",
    "fat_fraction_percent": "fat %",
    "volume_asymmetry_percent": "left − right, %",
}
_CURVE = (300.0, 90.0, 12.0)  # width, height and margin of the learning curve


def collect(ctx: Context) -> dict[str, Any]:
    """All of it, in plain values; reads the database, so it is no work for the event loop."""
    store, info = ctx.store.store, ctx.app.info()
    images = {image.id: image for image in store.all_images()}
    current = store.labels.current(FINAL)
    unreadable = store.images.unreadable()
    unfit = {name: found for name, image in images.items() if (found := _of_no_system(image, store.systems))}
    failed = _failed(store.jobs.recent("train", _TRAININGS))
    newest = sorted(current, key=lambda pair: pair[0].id, reverse=True)[:_NEWEST]
    return {
        "systems": {
            name: {**_system(ctx, name, info, current), "failed": failed.get(name)} for name in ctx.app.systems
        },
        "scans": len(images) - len(unreadable.keys() | unfit.keys()),
        "busy": [
            {"image": lease.image_id, "title": title(images.get(lease.image_id)), "who": lease.holder}
            | {"until": lease.expires.strftime("%H:%M"), "open": viewer_link(images.get(lease.image_id))}
            for lease in store.leases.running()
        ],
        "newest": [_submission(ctx, version, image) for version, image in newest],
        "jobs": [_job(job.describe(), kind, info) for kind in _JOBS if (job := ctx.jobs.running(kind))],
        "inference": ctx.inferences.lengths(),
        "refused": _refused(ctx),
        "unreadable": [(title(images.get(image_id)), reason) for image_id, reason in unreadable.items()],
        "unfit": [(title(images[image_id]), reason) for image_id, reason in unfit.items()],
        "made": now().strftime("%H:%M:%S UTC"),
    }


def _of_no_system(image: Image, systems: Mapping[str, System]) -> str:
    """Why no system can use a scan; empty where one may."""
    against = reasons_against(image, systems)
    return "; ".join(against.values()) if len(against) == len(systems) else ""


def viewer_link(image: Image | None) -> str:
    """Address that opens a scan in OHIF; empty where it is no series of a PACS."""
    info = image.info if image else {}
    if not info.get("StudyInstanceUID") or not info.get("SeriesInstanceUID"):
        return ""
    asked = {
        "StudyInstanceUIDs": info["StudyInstanceUID"],
        "initialSeriesInstanceUID": info["SeriesInstanceUID"],
    }
    return f"{ROOT}/segmentation?{urlencode(asked)}"


def title(image: Image | None) -> str:
    """A scan for people: patient and date where it is from a PACS, else its id."""
    info = image.info if image else {}
    parts = [str(info.get(key)) for key in ("PatientID", "SeriesDescription", "StudyDate") if info.get(key)]
    return ", ".join(parts) or (image.id if image else "a scan that is gone")


def _system(ctx: Context, name: str, info: dict[str, Any], current: list[tuple[LabelVersion, Image]]) -> dict[str, Any]:
    system, overview = ctx.app.systems[name], ctx.app.versions.overview(name)
    states = [version.state for version, _ in current if version.system == name]
    versions = [_version(version, overview["serving"]) for version in overview["versions"][-_VERSIONS:]]
    return {
        "title": system.title,
        "labels": len(system.labels),
        "done": len(states),
        "states": {state: states.count(state) for state in sorted(set(states))},
        "serving": overview["serving"],
        "profile": system.profile,
        "versions": versions,
        "curve": curve([version["dice"] for version in versions]),
        "queue": _queue(ctx, name),
        "description": (info["models"].get(name) or {}).get("description", ""),
    }


def _failed(trainings: Sequence[JobRow]) -> dict[str, dict[str, str]]:
    """Of the systems whose last training failed: when, and why; one that was stopped says nothing.

    Args:
        trainings: Oldest first.
    """
    last = {str(job.request.get("model")): job for job in trainings if job.status in ("DONE", "ERROR")}
    return {
        system: {"when": _when(job.ended or job.started), "reason": job.detail or "no reason given"}
        for system, job in last.items()
        if job.status == "ERROR"
    }


def _version(version: dict[str, Any], serving: str | None) -> dict[str, Any]:
    return {
        "name": version["version"],
        "dice": version.get("mean_dice"),
        "passed": bool(version.get("passed")),
        "serving": version["version"] == serving,
        "scans": version.get("training_scans"),
        "status": version.get("validation_status") or "",
        "reason": "; ".join(version.get("reasons") or []),
    }


def curve(dices: list[float | None]) -> list[tuple[float, float]]:
    """Points of a learning curve: x by version, y from Dice 0 at the bottom to 1 on top; none where it is unknown."""
    width, height, margin = _CURVE
    step = (width - 2 * margin) / max(1, len(dices) - 1)
    known = [(margin + step * place, dice) for place, dice in enumerate(dices) if dice is not None]
    return [(round(x, 1), round(height - margin - dice * (height - 2 * margin), 1)) for x, dice in known]


def _queue(ctx: Context, system: str) -> list[dict[str, Any]]:
    """The next scans of a system by the default strategy, and why."""
    chooser = ctx.app.choosers(ctx.store.store)
    try:
        pool = chooser.pool(chooser.wanted({"systems": system}))
        ranking = chooser.rank("auto", pool, {"seed": 0})
    except UserError:
        return []
    store = ctx.store.store
    found = [(place, store.images.get(pool.ids[place])) for place in ranking.places[:_QUEUE].tolist()]
    return [{"title": title(image), "why": ranking.reason(place), "open": viewer_link(image)} for place, image in found]


def _submission(ctx: Context, version: LabelVersion, image: Image) -> dict[str, Any]:
    found = ctx.store.store.quantities.of_versions([version.id]).get(version.id)
    measured = (found.measured if found else None) or {}
    table = quantity_table(measured.get("rows", []))
    return {
        "image": version.image_id,
        "title": title(image),
        "system": version.system,
        "version": version.id,
        "author": version.author or "unknown",
        "state": version.state,
        "when": _when(version.created),
        "warnings": version.warnings,
        "quantities": table,
        "unmeasured": "" if table else _why_not(found),
        "unfit": _unfit(ctx, version, image),
        "picture": f"/msk/preview?{urlencode({'image': version.image_id, 'system': version.system})}",
        "open": viewer_link(image),
    }


def _unfit(ctx: Context, version: LabelVersion, image: Image) -> str:
    """Why a label cannot be drawn on its scan; empty where it can."""
    store = ctx.store.store
    try:
        scan = Grid(tuple(image.shape), np.array(image.affine)) if image.shape else store.images.grid(image.id)
        shape, affine = _grid_of(store.labels.file(version))
    except (UserError, OSError) as error:
        return str(error)
    return "" if same_grid(shape, affine, scan.shape, scan.affine) else UNFIT


@lru_cache(maxsize=64)
def _grid_of(label: Path) -> tuple[tuple[int, ...], Affine]:
    """Shape and affine of a label file, which never changes, from its header."""
    file: Any = nib.load(label)
    return file.shape, np.asarray(file.affine, np.float64)


def _why_not(found: Quantity | None) -> str:
    """Why there is no number to show."""
    if found is None:
        return "not measured yet"
    return found.error or "; ".join((found.measured or {}).get("notes", []))


def quantity_table(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """What was measured of one label, for people.

    Args:
        rows: As :func:`msklabel.measure.quantify.quantify` gives them; a structure's sides and groups are left out.

    Returns:
        The header with units, then a row for each structure; empty where nothing was measured.
    """
    whole = [row for row in rows if row.get("kind") == "label" and row.get("side") in ("both", "", None)]
    kept = [key for key in _QUANTITIES if any(isinstance(row.get(key), int | float) for row in whole)]
    if not kept:
        return []
    units = {**_QUANTITIES, "volume_cm3": volume_unit(whole)}
    table = [["structure", *(units[key] for key in kept)]]
    for row in whole:
        values = [row.get(key) for key in kept]
        texts = [f"{value:.1f}" if isinstance(value, int | float) else "" for value in values]
        table.append([str(row["structure"]).replace("_", " "), *texts])
    return table


def _job(job: dict[str, Any], kind: str, info: dict[str, Any]) -> dict[str, Any]:
    model = job["request"].get("model") or job["request"].get("method") or ""
    stats = (info.get("train_stats") or {}).get(model) or {}
    progress = {"done": stats["epoch"], "of": stats["total_epochs"]} if kind == "train" and stats.get("epoch") else {}
    reason = job["request"].get("reason") or job["request"].get("user") or ""
    return {"kind": kind.replace("_", " "), "model": model, "since": job["start_ts"], "reason": reason, **progress}


def _refused(ctx: Context) -> list[str]:
    """Segmentations in the PACS that were not taken in, our own left out."""
    outcomes = ctx.segmentations.outcomes().values() if ctx.segmentations else ()
    refused = [text.removeprefix("refused: ") for text in outcomes if text.startswith("refused: ")]
    return [text for text in refused if "msklabel itself" not in text]


def _when(time: datetime) -> str:
    return time.strftime("%Y-%m-%d %H:%M")
