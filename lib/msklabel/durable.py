"""Files that survive a loss of power: on disk before anybody is told that they are there."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import stat
import time
from contextlib import suppress
from pathlib import Path

_LEFT_S = 3600.0  # nobody takes so long to write anything


def flush(path: Path) -> None:
    """Wait until a file, or the entries of a folder, are on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def new_beside(file: Path, suffix: str = "") -> Path:
    """An empty file to be put in place of another: hidden, beside it, with its rights, or with those of any new file.

    Those of :func:`tempfile.mkstemp` would shut out all but who runs the program.
    """
    while True:
        temporary = file.with_name(f".writing-{secrets.token_hex(6)}{suffix}")
        try:
            temporary.touch(exist_ok=False)
        except FileExistsError:
            continue
        if file.exists():
            temporary.chmod(stat.S_IMODE(file.stat().st_mode))
        return temporary


def replace_text(file: Path, text: str) -> None:
    """Write a text file whole or not at all, in place of what was there; on disk when this returns."""
    temporary = new_beside(file)
    try:
        temporary.write_text(text, encoding="utf-8")
        flush(temporary)
        temporary.replace(file)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    flush(file.parent)


def remove_left(folder: Path, pattern: str) -> None:
    """Remove files and folders that killed processes left half written: those that nobody has changed for an hour."""
    for left in folder.glob(pattern):
        with suppress(FileNotFoundError):  # gone meanwhile
            if time.time() - left.stat().st_mtime < _LEFT_S:
                continue
            if left.is_dir():
                shutil.rmtree(left)
            else:
                left.unlink()


def sha256_of(file: Path) -> str:
    """SHA-256 of a file, 64 hex digits."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
