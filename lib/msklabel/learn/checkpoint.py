"""The checkpoint of a running training: written whole, read without unpickling code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from msklabel.durable import flush
from msklabel.errors import UserError
from msklabel.system import System

_NAME = "checkpoint.pt"


def save_checkpoint(folder: Path, system: System, parts: dict[str, Any]) -> None:
    """Put a checkpoint in place of the one before; on disk when this returns."""
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{_NAME}"
    torch.save({"fingerprint": system.fingerprint, **parts}, temporary)
    flush(temporary)
    temporary.replace(folder / _NAME)


def load_checkpoint(folder: Path, system: System, device: torch.device) -> dict[str, Any] | None:
    """Read the checkpoint of a folder; None where there is none.

    Raises:
        UserError: If it is of another configuration.
    """
    file = folder / _NAME
    if not file.exists():
        return None
    parts: dict[str, Any] = torch.load(file, map_location=device, weights_only=True)
    if parts["fingerprint"] != system.fingerprint:
        raise UserError(f"{system.name}: the checkpoint in {folder.name} is of another configuration")
    return parts
