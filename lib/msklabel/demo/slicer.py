"""3D Slicer's own client of MONAI Label, as the monailabel package ships it."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

from msklabel.errors import NotFound

_INSIDE = Path("monailabel") / "plugins" / "slicer" / "MONAILabel" / "MONAILabelLib" / "client.py"


def slicer_client(server: str, folder: Path, user: str) -> Any:
    """The real ``MONAILabelClient``, which 3D Slicer's module uses for everything.

    Args:
        server: Address of the server.
        folder: Where it puts what it downloads.
        user: Name under which labels are submitted.

    Raises:
        NotFound: If the installed monailabel package does not have the file.
    """
    file = Path(sys.prefix) / _INSIDE
    if not file.is_file():
        raise NotFound(f"{file}: 3D Slicer's client is not there; is monailabel installed in this environment?")
    spec = importlib.util.spec_from_file_location("slicer_monailabel_client", file)
    assert spec and spec.loader  # a file that exists has both
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.MONAILabelClient(server, tmpdir=str(folder), client_id=user)
