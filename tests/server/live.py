"""A real server on a free port, a folder of small phantoms, and the client that 3D Slicer uses."""

from __future__ import annotations

import hashlib
import importlib.util
import re
import sys
import time
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import ModuleType
from typing import Any

import nibabel as nib
import numpy as np
import requests
from served import start_server

from msklabel_phantoms.phantom import Phantom
from msklabel_phantoms.write import generate

SYSTEM = "hip_tissue_ct"
DRAFT = "hip_tissue_ct_threshold"
_MEASURING = "quantities-"
IMAGES = ("hip_0", "hip_1", "hip_2")
ANNOTATOR_TOKEN, ADMIN_TOKEN, USER_TOKEN = "annotator-token-1234", "admin-token-123456", "user-token-1234567"
TOKENS = f"# our team\nanna:{ANNOTATOR_TOKEN}\nada:{ADMIN_TOKEN}:admin\nuwe:{USER_TOKEN}:user\n"


@dataclass
class Site:
    """A running server.

    Attributes:
        studies: Its folder of images.
        process: The server's process.
        url: Its address.
        token: Of the annotator; None where nobody signs in.
    """

    studies: Path
    process: BaseProcess
    url: str = ""
    token: str | None = None
    phantoms: dict[str, Phantom] = field(default_factory=dict)

    @property
    def state(self) -> Path:
        return self.studies / ".msklabel"

    def headers(self, token: str | None = None) -> dict[str, str]:
        token = token or self.token
        return {"Authorization": f"Bearer {token}"} if token else {}

    def ask(self, method: str, path: str, token: str | None = None, **options: Any) -> requests.Response:
        """One request, with the annotator's token where there is one."""
        headers = {**self.headers(token), **options.pop("headers", {})}
        return requests.request(method, self.url + path, headers=headers, timeout=120, **options)

    def client(self, folder: Path, name: str = "anna") -> Any:
        """A new client that signs in, as 3D Slicer's module makes for each of its requests."""
        client = slicer_client().MONAILabelClient(self.url, str(folder), name)
        if client.auth_enabled():
            client.update_auth(client.auth_token(name, self.token))
            assert client.auth_valid_token()
        return client

    def tree(self) -> dict[str, str]:
        """Digest of every file that is not the database or a log, which may grow; folders as they are."""
        return {
            str(path.relative_to(self.studies)): _digest(path)
            for path in sorted(self.studies.rglob("*"))
            if not path.name.startswith(("msklabel.db", ".open.lock", ".precedence.lock", ".interactive.lock"))
            and "logs" not in path.parts
            and not any(part.startswith(_MEASURING) for part in path.parts)
        }

    def left_over(self) -> list[Path]:
        """Temporary files that are there, but for PyTorch's own, what is predicted ahead and a measuring job's."""
        found = (self.state / "tmp").glob("*/*")
        return [path for path in found if not path.name.startswith((_MEASURING, "torchinductor_", "msklabel-ahead-"))]

    def stop(self) -> None:
        self.process.terminate()
        self.process.join(60)


def write_studies(folder: Path) -> dict[str, Phantom]:
    """Three small hips as int16 NIfTI files."""
    folder.mkdir(parents=True)
    phantoms = {}
    for number, name in enumerate(IMAGES):
        phantom = generate(SYSTEM, 7, number, shape=(48, 36, 4), spacing_mm=(8, 8, 5))
        nib.save(nib.Nifti1Image(phantom.image[0].astype(np.int16), phantom.affine), folder / f"{name}.nii.gz")
        phantoms[name] = phantom
    return phantoms


def start(
    folder: Path,
    tokens: bool = False,
    file_bytes: int = 0,
    pacs: str | None = None,
    conf: dict[str, str] | None = None,
    **settings: Any,
) -> Site:
    """Start a server on ``folder/images`` and wait until it answers.

    Args:
        folder: Where everything is.
        tokens: Ask who it is.
        file_bytes: No file may be larger, as if the disk were full then; 0 for no limit.
        pacs: Address of a DICOMweb server that holds the studies instead.
        conf: Further ``--conf`` keys.
        settings: For ServeSettings.
    """
    studies = folder / "images"
    phantoms = {} if studies.exists() or pacs else write_studies(studies)
    folder.mkdir(parents=True, exist_ok=True)
    if tokens:
        settings["token_file"] = str(folder / "tokens")
        (folder / "tokens").touch(mode=0o600)
        (folder / "tokens").write_text(TOKENS, encoding="utf-8")
    conf = {"models": SYSTEM, "profile": "demo", **(conf or {})}
    said = folder / "said"
    said.unlink(missing_ok=True)
    process = start_server(said, pacs or str(studies), conf, settings, file_bytes)
    site = Site(studies, process, token=ANNOTATOR_TOKEN if tokens else None, phantoms=phantoms)
    for _ in range(900):  # a machine that tests other things, too, takes its time
        words = said.read_text(encoding="utf-8", errors="replace") if said.exists() else ""
        if not process.is_alive():
            raise RuntimeError(f"the server ended:\n{words}")
        if greeting := re.search(r"(http://127\.0\.0\.1:\d+)\s+\d+ scans", words):
            site.url = greeting[1]
            assert site.ask("GET", "/info/").status_code == (401 if "openid_issuer" in settings else 200)
            return site
        time.sleep(0.2)
    raise RuntimeError(f"the server did not start:\n{words}")


def slicer_client() -> ModuleType:
    """The module ``MONAILabelLib/client.py`` of the installed MONAI Label."""
    file = Path(sys.prefix) / "monailabel/plugins/slicer/MONAILabel/MONAILabelLib/client.py"
    spec = importlib.util.spec_from_file_location("slicer_monailabel_client", file)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_label(file: Path, array: np.ndarray, affine: np.ndarray) -> Path:
    """A label map as a client sends it."""
    nib.save(nib.Nifti1Image(array.astype(np.uint8), affine), file)
    return file


def wait_for(condition: Any, seconds: float = 90.0) -> Any:
    """Wait until something is true, and return it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.2)
    raise AssertionError("waited in vain")


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path.is_file() else "folder"
