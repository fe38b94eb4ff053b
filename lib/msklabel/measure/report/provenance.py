"""What a result was made from: versions of the software, checksums of the files."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msklabel
from msklabel.durable import replace_text
from msklabel.errors import NotFound
from msklabel.system import System

_PACKAGES = ("numpy", "scipy", "pandas", "statsmodels", "SimpleITK", "itk-elastix", "matplotlib")
_CHUNK_BYTES = 2**20


def sha256(file: Path) -> str:
    """Checksum of a file, hex."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def software() -> list[tuple[str, str]]:
    """Names and versions of what computes."""
    rows = [("msklabel", msklabel.__version__), ("Python", platform.python_version())]
    for package in _PACKAGES:
        try:
            rows.append((package, version(package)))
        except PackageNotFoundError:
            rows.append((package, "not installed"))
    return rows


def of_system(system: System) -> list[tuple[str, str]]:
    """Name, source and fingerprint of a system."""
    return [
        ("system", f"{system.name}, {system.profile} profile, fingerprint {system.fingerprint}"),
        ("system's source", system.source),
    ]


def of_files(what: str, files: Iterable[Path]) -> list[tuple[str, str]]:
    """Name and SHA-256 of each file; of a folder that of the checksums of its files, by name."""
    return [(f"{what} {file.name}", _checksum(file)) for file in files]


def of_model(folder: Path | None) -> list[tuple[str, str]]:
    """The model version that made some labels: name, and checksum of its weights.

    Args:
        folder: ``models/<system>/<version>``; None where no model is named.

    Raises:
        NotFound: If there are no weights in it.
    """
    if folder is None:
        return [("model", "none was named")]
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise NotFound(f"{folder}: no weights; give the folder of a version, models/<system>/<version>")
    name = f"{folder.resolve().parent.name} version {folder.resolve().name}"
    return [("model", name), *of_files("model's", files)]


def keep_beside(table: Path, rows: Iterable[tuple[str, str]]) -> None:
    """Keep what a table was made from beside it, for the reports of what is made from the table."""
    kept = {"sha256": sha256(table), "made_from": [list(row) for row in rows]}
    replace_text(_beside(table), json.dumps(kept, indent=1, ensure_ascii=False))


def of_table(what: str, table: Path) -> list[tuple[str, str]]:
    """Checksum of a table, and what it was made from where that lies beside it and is of this very table."""
    rows = of_files(what, [table])
    try:
        kept = json.loads(_beside(table).read_text(encoding="utf-8"))
        made_from = [(f"{what} from {name}", str(value)) for name, value in kept["made_from"]]
    except (OSError, ValueError, KeyError, TypeError):
        return [*rows, (f"{what} from", "not known: there is nothing beside the table")]
    if kept.get("sha256") != sha256(table):
        return [*rows, (f"{what} from", "not known: the table was changed after it was made")]
    return [*rows, *made_from]


def _beside(table: Path) -> Path:
    return table.with_name(f"{table.name}.made_from.json")


def _checksum(path: Path) -> str:
    if path.is_file():
        return f"sha256 {sha256(path)}"
    files = sorted(file for file in path.iterdir() if file.is_file())
    joined = hashlib.sha256("".join(f"{file.name} {sha256(file)}\n" for file in files).encode())
    return f"sha256 {joined.hexdigest()} of the list of {len(files)} files"
