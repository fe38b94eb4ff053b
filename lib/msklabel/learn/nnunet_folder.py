"""Read the folder of a trained nnU-Net v2 model: plans, dataset and one fold's weights, without running code from it.

The folder is what nnU-Net v2 (Isensee et al. 2021, github.com/MIC-DKFZ/nnUNet) leaves under ``nnUNet_results``:
``plans.json``, ``dataset.json`` and ``fold_X/checkpoint_final.pth``.
"""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from msklabel.errors import UserError

FILE = "checkpoint_final.pth"
_SCALAR = np.float64(0).__reduce__()[0]
_SAFE: list[Any] = [  # the numbers that nnU-Net logs; else only tensors and plain containers are ever built
    (_SCALAR, "numpy.core.multiarray.scalar"),
    (_SCALAR, "numpy._core.multiarray.scalar"),
    np.dtype,
    *{type(np.dtype(code)) for code in ("f2", "f4", "f8", "i4", "i8", "u1", "?")},
]


class Unfit(Exception):
    """Why a model does not fit a System, as the end of a sentence."""

    @classmethod
    def differing(cls, what: str, theirs: Any, ours: Any) -> Unfit:
        """A property in which the two differ, with both values."""
        return cls(f"{what}: the model has {theirs}, the system needs {ours}")


def require(what: str, theirs: Any, ours: Any) -> None:
    """Raise Unfit unless both are equal."""
    if theirs != ours:
        raise Unfit.differing(what, theirs, ours)


@dataclass(frozen=True)
class NnunetModel:
    """What was read from a folder.

    Attributes:
        plans: ``plans.json``.
        dataset: ``dataset.json``.
        configuration: The trained configuration of the plans, with what it inherits and with its ``architecture``.
        mirrored: Axes of nnU-Net's arrays along which training mirrored.
        axes: For each of our spatial axes (x, y, z) that of nnU-Net's arrays, batch and channels not counted.
        weights: State dict, as nnU-Net names and orders it.
    """

    plans: dict[str, Any]
    dataset: dict[str, Any]
    configuration: dict[str, Any]
    mirrored: tuple[int, ...]
    axes: tuple[int, ...]
    weights: dict[str, torch.Tensor]

    def turned(self, value: Any) -> list[Any]:
        """Numbers for each of nnU-Net's axes, or one for all, in the order of ours."""
        return [value[axis] if isinstance(value, Sequence) else value for axis in self.axes]


def read_nnunet(folder: Path, fold: str | int, dimensions: int) -> NnunetModel:
    """Read one fold.

    Args:
        folder: Holds ``plans.json``, ``dataset.json`` and the folds.
        fold: 0 to 4, or ``all``.
        dimensions: 2 or 3, as the System has.

    Raises:
        UserError: If a file is missing or damaged, or the checkpoint holds more than weights and numbers.
        Unfit: If the model has other dimensions.
    """
    plans, dataset = _json(folder / "plans.json"), _json(folder / "dataset.json")
    if not re.fullmatch(r"\d+|all", str(fold)) or not (folder / f"fold_{fold}" / FILE).is_file():
        there = sorted(file.parent.name.removeprefix("fold_") for file in folder.glob(f"fold_*/{FILE}"))
        remedy = f"; take them by --folds {','.join(there)}" if there else ""
        raise UserError(f"{folder.name}: no fold_{fold}/{FILE}; folds: {', '.join(there) or 'none'}{remedy}")
    checkpoint = _checkpoint(folder / f"fold_{fold}" / FILE)
    configuration = _configuration(plans["configurations"], checkpoint["init_args"]["configuration"])
    require("dimensions", len(configuration["patch_size"]), dimensions)
    require("lower resolution in a cascade", configuration.get("previous_stage"), None)
    order = [int(axis) for axis in plans["transpose_forward"]]
    if dimensions == 2:
        require("axis across the slices (z, y, x are 0, 1, 2)", order[0], 0)
        order = [axis - 1 for axis in order[1:]]
    return NnunetModel(
        plans=plans,
        dataset=dataset,
        configuration={**configuration, "architecture": configuration.get("architecture") or _older(configuration)},
        mirrored=tuple(checkpoint.get("inference_allowed_mirroring_axes") or ()),
        axes=tuple(order.index(dimensions - 1 - axis) for axis in range(dimensions)),
        weights={re.sub(r"^(module\.|_orig_mod\.)+", "", k): v for k, v in checkpoint["network_weights"].items()},
    )


def _json(file: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise UserError(
            f"{file.parent.name}: no {file.name}; expected the folder of a trained nnU-Net v2 model"
        ) from None
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{file.parent.name}: {file.name} cannot be read: {error}") from error


def _checkpoint(file: Path) -> dict[str, Any]:
    try:
        with torch.serialization.safe_globals(_SAFE):
            return dict(torch.load(file, map_location="cpu", weights_only=True))
    except pickle.UnpicklingError as error:
        found = re.search(r"(?:GLOBAL|global) ([\w.]*\w)", str(error))
        raise UserError(
            f"{file.name}: not opened, because it holds {found[1] if found else 'other things'} beside weights and "
            "numbers, which could run code"
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError, TypeError) as error:
        raise UserError(f"{file.name}: cannot be read as a checkpoint; the file may be damaged or cut off") from error


def _configuration(configurations: Mapping[str, Any], name: str, heirs: tuple[str, ...] = ()) -> dict[str, Any]:
    """A configuration with what it inherits."""
    if name in heirs:
        raise ValueError(f"configuration {name} inherits from itself")
    own = dict(configurations[name])
    parent = own.pop("inherits_from", None)
    return {**_configuration(configurations, parent, (*heirs, name)), **own} if parent else own


def _older(configuration: Mapping[str, Any]) -> dict[str, Any]:
    """The architecture of plans before nnU-Net wrote it out, as its own ConfigurationManager reads them."""
    dimensions = len(configuration["patch_size"])
    down = list(configuration["n_conv_per_stage_encoder"])
    width, widest = configuration["UNet_base_num_features"], configuration["unet_max_num_features"]
    return {
        "network_class_name": configuration["UNet_class_name"],
        "arch_kwargs": {
            "n_stages": len(down),
            "features_per_stage": [min(width * 2**stage, widest) for stage in range(len(down))],
            "conv_op": f"torch.nn.modules.conv.Conv{dimensions}d",
            "kernel_sizes": configuration["conv_kernel_sizes"],
            "strides": configuration["pool_op_kernel_sizes"],
            "n_conv_per_stage": down,
            "n_conv_per_stage_decoder": configuration["n_conv_per_stage_decoder"],
            "conv_bias": True,
            "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dimensions}d",
            "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "nonlin": "torch.nn.LeakyReLU",
        },
    }
