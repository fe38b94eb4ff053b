"""What a result was made from: versions of the software, checksums of the files."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msklabel
from msklabel.system import System

_PACKAGES = ("numpy", "scipy", "pandas", "statsmodels", "SimpleITK", "matplotlib")
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
    """Name and SHA-256 of each file."""
    return [(f"{what} {file.name}", f"sha256 {sha256(file)}") for file in files]
