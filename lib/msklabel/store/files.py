"""Files that are whole or not there: temporary name, flushed, renamed."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy.exc import OperationalError

from msklabel.durable import flush
from msklabel.errors import StorageFull

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FULL_SAID = (  # by SQLite, safetensors and PyTorch, whose errors have no number
    "database or disk is full",
    "disk I/O error",
    "No space left on device",
    "PytorchStreamWriter failed writing file",
)


def is_storage_full(error: BaseException | None) -> bool:
    """Whether an error, or one that it came from, says that the disk or the quota is full."""
    while error is not None:
        if isinstance(error, OSError):
            if error.errno in _FULL or _says_nothing(error):
                return True
        elif any(said in str(error) for said in _FULL_SAID):
            return True
        error = error.__cause__ or error.__context__
    return False


def _says_nothing(error: OSError) -> bool:
    """As the image writer's, which cannot say why it failed; nearly always there was no room."""
    return error.errno is None and type(error) is OSError


@contextmanager
def storage_full_told() -> Iterator[None]:
    """Turn a full disk, met anywhere in the block, into the error that says so.

    Raises:
        StorageFull: If the disk or the quota is full.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _FULL or _says_nothing(error):
            raise StorageFull("the disk is full; nothing was stored") from error
        raise
    except OperationalError as error:
        if "disk is full" in str(error.orig):
            raise StorageFull("the disk is full; nothing was stored") from error
        raise


def copy_whole(source: Path, target: Path, replace: bool, lasting: bool = True) -> None:
    """Copy a file with its time; the copy appears complete, or not at all.

    Args:
        source: The file.
        target: Its copy.
        replace: Whether a file there may be replaced.
        lasting: Whether it is on disk when this returns; if not, a loss of power may leave an empty file.

    Raises:
        FileExistsError: If the target is there and ``replace`` is false.
        OSError: If it cannot be written; nothing is left.
    """
    made = _make_folders(target.parent)
    handle, name = tempfile.mkstemp(prefix=".writing-", dir=target.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        shutil.copyfile(source, temporary)
        temporary.chmod(0o644)
        times = source.stat()
        os.utime(temporary, ns=(times.st_atime_ns, times.st_mtime_ns))
        if lasting:
            flush(temporary)
        if replace:
            temporary.replace(target)
        else:
            _rename_new(temporary, target)
        if lasting:
            flush(target.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        for folder in reversed(made):
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
        raise


def _rename_new(temporary: Path, target: Path) -> None:
    """Rename without overwriting: a link fails where the name is taken; not every file system has links."""
    try:
        os.link(temporary, target)
    except FileExistsError:
        raise
    except OSError:
        if target.exists():
            raise FileExistsError(errno.EEXIST, "exists", str(target)) from None
        temporary.replace(target)
        return
    temporary.unlink()


def _make_folders(folder: Path) -> list[Path]:
    """Make a folder and its parents; returns those that were missing, outermost first."""
    missing = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    for new in reversed(missing):
        new.mkdir(exist_ok=True)
    return missing[::-1]
