"""Fetch OHIF's released viewer and make it fit for ``/ohif/``: ``python -m msklabel.serve.ohif.fetch [FILE]``.

The package ``@ohif/app`` holds a viewer that is built already, but for the root of a server: the addresses in its page,
its style sheets and its bundles are turned into ours. What msklabel has no use for, 160 MB of it, is left out.
"""

from __future__ import annotations

import gzip
import hashlib
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from msklabel.errors import UserError
from msklabel.serve.ohif.viewer import FETCHED, ROOT

PACKAGE, VERSION = "@ohif/app", "3.13.2"
SHA256 = "b189d3963bfc58e9394a9db8c7be75d07beb029ec211dbb126d47b62969dd3f1"
_LEFT_OUT = ("ort/", "dicom-microscopy-viewer/", "customizations/", "sw.js", "init-service-worker.js", "google.js")
_PUBLIC_PATH = '__webpack_require__.p = "/";'
_COMPRESSED = (".js", ".css", ".wasm", ".svg", ".html")
_TIMEOUT_S = 600


def fetch(target: Path = FETCHED, package: Path | None = None) -> bool:
    """Put the viewer into a folder, whole or not at all.

    Args:
        target: Replaced, unless it holds this version already.
        package: The package as ``npm pack`` leaves it; npm fetches it by default.

    Returns:
        Whether anything had to be fetched.

    Raises:
        UserError: If npm is missing, the package cannot be had, or it is not the one that is known.
    """
    marker = target / ".version"
    if marker.is_file() and marker.read_text(encoding="utf-8") == SHA256:
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".ohif-", dir=target.parent) as folder:
        building = Path(folder) / "viewer"
        _unpack(_checked(package or _packed(Path(folder))), building)
        _move_below_root(building)
        _compress(building)
        (building / ".version").write_text(SHA256, encoding="utf-8")
        shutil.rmtree(target, ignore_errors=True)
        building.rename(target)
    return True


def _packed(folder: Path) -> Path:
    npm = shutil.which("npm")
    if npm is None:
        raise UserError(
            "npm is not installed (Debian: apt-get install npm); MONAI Label's older OHIF is served instead"
        )
    command = [npm, "pack", "--silent", f"{PACKAGE}@{VERSION}"]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise UserError(f"npm did not fetch {PACKAGE} within {_TIMEOUT_S} s") from error
    file = next(folder.glob("*.tgz"), None)
    if done.returncode or file is None:
        raise UserError(f"npm could not fetch {PACKAGE}@{VERSION}: {(done.stderr or done.stdout).strip()[-300:]}")
    return file


def _checked(file: Path) -> Path:
    if hashlib.sha256(file.read_bytes()).hexdigest() != SHA256:
        raise UserError(f"{file.name} is not the release of {PACKAGE} {VERSION} that is known; nothing was installed")
    return file


def _unpack(file: Path, target: Path) -> None:
    """The built viewer of the package; regular files only, none outside the folder."""
    with tarfile.open(file) as archive:
        for member in archive:
            name = member.name.removeprefix("package/dist/")
            if not member.isfile() or name == member.name or name.startswith(_LEFT_OUT) or ".." in name:
                continue
            place, stream = target / name, archive.extractfile(member)
            place.parent.mkdir(parents=True, exist_ok=True)
            if stream is not None:
                with place.open("wb") as out:
                    shutil.copyfileobj(stream, out)


def _move_below_root(folder: Path) -> None:
    """Turn addresses at the root of a server into addresses below ours.

    Raises:
        UserError: If the files are not built as they were known to be.
    """
    page = folder / "index.html"
    text = page.read_text(encoding="utf-8")
    text = re.sub(r'((?:href|src)=")/(?!/)', rf"\1{ROOT}/", text).replace('PUBLIC_URL="/"', f'PUBLIC_URL="{ROOT}/"')
    text = re.sub(r'<script[^>]*init-service-worker\.js"[^>]*></script>', "", text)
    text = text.replace("</head>", f'<link href="{ROOT}/msklabel/panel.css" rel="stylesheet"></head>')
    page.write_text(text, encoding="utf-8")
    bundles = [
        file for file in folder.glob("*.js") if _replace(file, _PUBLIC_PATH, f'__webpack_require__.p = "{ROOT}/";')
    ]
    for file in folder.glob("*.css"):
        _replace(file, "url(/", f"url({ROOT}/")
    if f'src="{ROOT}/app.bundle' not in text or not any(file.name.startswith("app.bundle") for file in bundles):
        raise UserError(f"{PACKAGE} {VERSION} is not built as expected; nothing was installed")


def _replace(file: Path, old: str, new: str) -> bool:
    text = file.read_text(encoding="utf-8")
    if old not in text:
        return False
    file.write_text(text.replace(old, new), encoding="utf-8")
    return True


def _compress(folder: Path) -> None:
    """Keep a compressed copy beside each large text: the viewer's 40 MB travel as 9."""
    for file in folder.rglob("*"):
        if file.suffix in _COMPRESSED and file.stat().st_size > 4096:
            file.with_name(f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes(), 5, mtime=0))


if __name__ == "__main__":
    try:
        new = fetch(package=Path(sys.argv[1]) if len(sys.argv) > 1 else None)
    except (UserError, OSError) as problem:
        sys.exit(f"error: {problem}")
    print(f"OHIF {VERSION} {'is in place' if new else 'was there already'}: {FETCHED}")
