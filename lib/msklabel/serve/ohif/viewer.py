"""Where the files of the viewer lie, and which of them answers a request."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from msklabel.errors import NotFound

ROOT = "/ohif"
OWN = "msklabel/"
_HERE = Path(__file__).resolve().parent
FETCHED = _HERE / "viewer"
_CONFIG = "app-config.js"
_OURS = (".js", ".css")
_NEVER_CHANGES = ".bundle."  # such names hold a digest of the content


@dataclass(frozen=True)
class Viewer:
    """A built OHIF.

    Attributes:
        folder: Holds its ``index.html``.
        bundled: Whether it is the older one that comes with MONAI Label, with its own panel, which cannot submit.
    """

    folder: Path
    bundled: bool = False

    def file(self, path: str) -> Path:
        """The file for a path below ``/ohif/``; the page itself for the viewer's own routes.

        Raises:
            NotFound: If a file is asked for that is not there.
        """
        if not self.bundled and (path == _CONFIG or path.startswith(OWN)):
            folder, path = _HERE, path.removeprefix(OWN)
            fits = Path(path).suffix in _OURS
        else:
            folder, fits = self.folder, True
        file = (folder / path).resolve()
        if fits and file.is_relative_to(folder.resolve()) and file.is_file():
            return file
        if "." in path.rpartition("/")[2]:
            raise NotFound(f"OHIF has no file {path[:200]!r}")
        return self.folder / "index.html"

    def is_lasting(self, file: Path) -> bool:
        """Whether a browser may keep a file for good."""
        return _NEVER_CHANGES in file.name


def find_viewer(fetched: Path = FETCHED) -> Viewer:
    """OHIF 3.13 where it was fetched, else the one that comes with MONAI Label.

    Raises:
        NotFound: If neither is there.
    """
    if (fetched / "index.html").is_file():
        return Viewer(fetched)
    spec = find_spec("monailabel")
    bundled = Path(str(spec.origin)).parent / "endpoints" / "static" / "ohif" if spec and spec.origin else fetched
    if not (bundled / "index.html").is_file():
        raise NotFound("OHIF is not installed: run 'make ohif'")
    return Viewer(bundled, bundled=True)
