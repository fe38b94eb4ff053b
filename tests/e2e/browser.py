"""A real Chromium that a script drives, by playwright-core of npm; OHIF from npm as well."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from msklabel.serve.ohif.fetch import fetch

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_PLAYWRIGHT = "playwright-core@1.65.1"
_PLAYWRIGHT_SHA256 = "6f5a60be62a4fddfbe7d10c448d8fbd54547da3358f2f8a04211440471ee863e"
_CACHE = Path(tempfile.gettempdir()) / f"msklabel-tests-{os.getuid()}"
needs_browser = pytest.mark.skipif(
    not CHROMIUM or not shutil.which("npm"),
    reason="Chromium or npm is not installed: apt-get install chromium npm",
)


def fetch_playwright() -> Path:
    """Folder of the package; fetched once on a machine."""
    _CACHE.mkdir(mode=0o700, exist_ok=True)
    target = _CACHE / _PLAYWRIGHT_SHA256[:16]
    with FileLock(_CACHE / ".lock"):
        if not target.is_dir():
            with tempfile.TemporaryDirectory(dir=_CACHE) as folder:
                command = [str(shutil.which("npm")), "pack", "--silent", _PLAYWRIGHT]
                subprocess.run(command, cwd=folder, check=True, timeout=300, capture_output=True)
                file = next(Path(folder).glob("*.tgz"))
                assert hashlib.sha256(file.read_bytes()).hexdigest() == _PLAYWRIGHT_SHA256
                with tarfile.open(file) as archive:
                    archive.extractall(Path(folder) / "unpacked", filter="data")
                (Path(folder) / "unpacked" / "package").rename(target)
    return target


def fetch_ohif() -> None:
    """OHIF as ``make ohif`` puts it in place."""
    _CACHE.mkdir(mode=0o700, exist_ok=True)
    with FileLock(_CACHE / ".ohif.lock"):
        fetch()


def drive(script: str, timeout_s: float, answer: Path, **options: Any) -> dict[str, Any]:
    """Run a script of this folder with Chromium; gives the JSON that it leaves in a file."""
    options |= {"playwright": str(fetch_playwright()), "chromium": CHROMIUM, "answer": str(answer)}
    done = subprocess.run(
        [str(shutil.which("node")), str(Path(__file__).with_name(script)), json.dumps(options)],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert answer.is_file(), done.stderr[-3000:]
    said: dict[str, Any] = json.loads(answer.read_text(encoding="utf-8"))
    assert "failed" not in said, f"{said['failed']}\n{said.get('panel', '')}\n{said.get('errors', '')}"
    return said


def pictures(folder: Path) -> Path:
    """Where screenshots are kept: below ``MSKLABEL_PICTURES``, or in a folder of the test's own."""
    kept = os.environ.get("MSKLABEL_PICTURES")
    place = Path(kept) if kept else folder
    place.mkdir(parents=True, exist_ok=True)
    return place
