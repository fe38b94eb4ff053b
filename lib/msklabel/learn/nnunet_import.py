"""Weights of a trained nnU-Net v2 model for one of our systems, or the first reason why they do not fit.

nnU-Net holds volumes as (z, y, x), reordered by the plans' ``transpose_forward``; ours are (x, y, z), so that every
kernel is transposed. What fits then computes the same scores from the same voxels. What comes before remains our own
pre-processing: linear resampling, over the scan from edge to edge as there, and a z-score over the foreground where
nnU-Net takes the whole crop (the network's first instance norm makes up for both scale and offset, but for the
outermost voxels).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from torch import nn

from msklabel.errors import UserError
from msklabel.imaging.channels import channel_of
from msklabel.learn.nnunet_folder import FILE, NnunetModel, Unfit, read_nnunet, require
from msklabel.networks import Weights, build_network, weights_of
from msklabel.sections import Window, ZScore
from msklabel.system import System

_SPACING_TOLERANCE_FRACTION = 0.01
_INPUT = "encoder.stages.0.0.convs.0.conv.weight"
_HEADS = "decoder.seg_layers."
_REORIENTING = "WithReorient"  # readers that turn images to RAS
_LEAKY_RELU = {"inplace": True, "negative_slope": 0.01}
_CONVOLUTION = {2: nn.Conv2d, 3: nn.Conv3d}
_NORM = {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}


def import_nnunet(folder: Path, system: System, fold: str | int, orientation: str | None = None) -> Weights:
    """Read the weights of one fold of a trained nnU-Net v2 model as weights of a System.

    Labels and channels are put into the System's order by their names. For a System whose window begins at 0, without
    gamma (thigh_dixon, whose paper does not normalise), a model without normalisation is taken: its first kernel is
    multiplied by the window's width.

    Args:
        folder: Holds ``plans.json``, ``dataset.json`` and the folds.
        system: In the profile that the model is to serve.
        fold: 0 to 4, or ``all``.
        orientation: Axis codes of the images that it was trained on, as they are stored, such as ``RAS``. Needed only
            where the plans do not say and training did not mirror along every axis.

    Returns:
        As :func:`msklabel.networks.load_weights` takes them, float32.

    Raises:
        UserError: If a file is missing or damaged, the checkpoint holds more than weights and numbers, or the model
            does not fit: the first reason, with what the model has and what the System needs.
    """
    folder = Path(folder)
    where = f"{folder.name}/fold_{fold}"
    try:
        network = build_network(system)
        if not isinstance(network, PlainConvUNet):
            raise Unfit.differing("network", "nnU-Net's U-Net", system.network.name)
        model = read_nnunet(folder, fold, system.dimensions)
        _check_network(model, network)
        _check_images(model, system, orientation)
        return _mapped(model, system, network)
    except Unfit as reason:
        raise UserError(f"{where} does not fit {system.name} (profile {system.profile}): {reason}") from None
    except UserError:
        raise
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise UserError(f"{where}: plans, dataset or {FILE} are not as nnU-Net v2 writes them: {error!r}") from error


def _check_network(model: NnunetModel, network: PlainConvUNet) -> None:
    """Compare the architecture in the plans with the network as built."""
    architecture = model.configuration["architecture"]
    require("network", architecture["network_class_name"].rsplit(".", 1)[-1], PlainConvUNet.__name__)
    theirs, encoder, decoder = architecture["arch_kwargs"], network.encoder, network.decoder
    stages, dimensions = int(theirs["n_stages"]), len(model.axes)
    down, up = (_per_stage(theirs, f"n_conv_per_stage{key}", n) for key, n in (("", stages), ("_decoder", stages - 1)))
    strides, kernels = (
        [model.turned(n) for n in _per_stage(theirs, key, stages)] for key in ("strides", "kernel_sizes")
    )
    activation = {**_LEAKY_RELU, **(theirs.get("nonlin_kwargs") or {})}
    require("stages", stages, len(encoder.stages))
    require("features of each stage", _per_stage(theirs, "features_per_stage", stages), list(encoder.output_channels))
    require("strides (x, y, z)", strides, [list(stride) for stride in encoder.strides])
    require("kernels (x, y, z)", kernels, [list(kernel) for kernel in encoder.kernel_sizes])
    require("convolutions on the way down", down, [len(stage[-1].convs) for stage in encoder.stages])
    require("convolutions on the way up", up, [len(stage.convs) for stage in decoder.stages])
    require("convolution", theirs["conv_op"], _path(_CONVOLUTION[dimensions]))
    require("bias of convolutions", theirs["conv_bias"], encoder.conv_bias)
    require("normalisation layer", theirs["norm_op"], _path(_NORM[dimensions]))
    require("parameters of the normalisation layer", theirs["norm_op_kwargs"], encoder.norm_op_kwargs)
    require("dropout", theirs.get("dropout_op"), None)
    require("activation", str(theirs["nonlin"]).rsplit(".", 1)[-1], nn.LeakyReLU.__name__)
    require("parameters of the activation", activation, {**_LEAKY_RELU, "inplace": activation["inplace"]})
    require("activation before normalisation", bool(theirs.get("nonlin_first")), False)


def _check_images(model: NnunetModel, system: System, orientation: str | None) -> None:
    """Compare patch, spacing, normalisation and orientation of the images."""
    dimensions = system.dimensions
    require("patch (x, y, z)", model.turned(model.configuration["patch_size"]), list(system.patch_voxels[:dimensions]))
    spacing, wanted = model.turned(model.configuration["spacing"]), list(system.spacing_mm[:dimensions])
    for theirs, ours in zip(spacing, wanted, strict=True):
        if ours is None or abs(theirs / ours - 1) > _SPACING_TOLERANCE_FRACTION:
            raise Unfit.differing("spacing (x, y, z) in mm", spacing, wanted)
    require("resampling", "edge_to_edge", system.resampling)
    _input_scale(model, system)
    said = "RAS" if str(model.plans.get("image_reader_writer")).endswith(_REORIENTING) else orientation
    if said:
        require("orientation", said[:dimensions], system.orientation[:dimensions])
    elif not set(range(dimensions)) <= set(model.mirrored):
        raise Unfit(
            "orientation: the plans do not say that of the training images, and training did not mirror along every "
            f"axis; the system needs {system.orientation}: say so if it was"
        )


def _input_scale(model: NnunetModel, system: System) -> float:
    """Factor of the first kernel that makes up for the difference of normalisations."""
    schemes, intensity = sorted(set(model.configuration["normalization_schemes"])), system.intensity
    if isinstance(intensity, ZScore):
        require("normalisation", schemes, ["ZScoreNormalization"])
        require("z-score within a mask", any(model.configuration.get("use_mask_for_norm") or ()), False)
        return 1.0
    if isinstance(intensity, Window) and (intensity.lower, intensity.gamma) == (0, 1):
        require("normalisation", schemes, ["NoNormalization"])  # x / upper here: scale and no offset, also at borders
        return intensity.upper
    raise Unfit.differing("normalisation", schemes, f"{intensity.kind}, which nnU-Net does not have")


def _mapped(model: NnunetModel, system: System, network: nn.Module) -> Weights:
    labels, channels = _label_order(model.dataset["labels"], system), _channel_order(model.dataset, system)
    needed = weights_of(network)
    foreign = sorted((model.weights.keys() - network.state_dict().keys()) | (needed.keys() - model.weights.keys()))
    if foreign:
        raise Unfit(f"weights: {len(foreign)} tensors are not in both networks, the first is {foreign[0]}")
    made: Weights = {}
    for name, own in needed.items():
        tensor = model.weights[name].float()
        require(f"dimensions of {name}", tensor.ndim, own.ndim)
        if tensor.ndim > 1:
            tensor = tensor.permute(0, 1, *(2 + axis for axis in model.axes))
        if name == _INPUT:
            require("input channels", tensor.shape[1], len(channels))
            tensor = tensor[:, channels] * _input_scale(model, system)
        if name.startswith(_HEADS):
            require("classes, background included", len(tensor), len(labels))
            tensor = tensor[labels]
        require(f"shape of {name}", list(tensor.shape), list(own.shape))
        if not torch.isfinite(tensor).all():
            raise Unfit(f"weights: {name} holds values that are not finite numbers")
        made[name] = tensor.clone(memory_format=torch.contiguous_format)
    return made


def _label_order(labels: Mapping[str, Any], system: System) -> list[int]:
    """For each of our classes, background first, that of the model."""
    theirs = {_plain(name): value for name, value in labels.items() if name not in ("background", "ignore")}
    regions = [name for name, value in theirs.items() if not isinstance(value, int)]
    if regions:
        raise Unfit(f"labels: {regions[0]} is a region of several values; the system needs one value for each label")
    require(
        "labels that only one has",
        sorted(theirs.keys() - system.labels.keys()),
        sorted(system.labels.keys() - theirs.keys()),
    )
    require("label values", sorted(theirs.values()), list(range(1, system.classes)))
    return [0, *(theirs[name] for name in system.labels)]


def _channel_order(dataset: Mapping[str, Any], system: System) -> list[int]:
    """For each of our channels that of the model; a single one need not have the same name."""
    names = dataset.get("channel_names") or dataset["modality"]
    theirs = [str(names[key]) for key in sorted(names, key=int)]
    require("number of channels", len(theirs), len(system.channels))
    if len(theirs) == 1:
        return [0]
    split = [channel_of(_plain(name), system.channels) for name in theirs]
    said = [known[1] if known and not known[0] else name for known, name in zip(split, theirs, strict=True)]
    require("channels", sorted(said), sorted(system.channels))
    return [said.index(name) for name in system.channels]


def _per_stage(theirs: Mapping[str, Any], key: str, stages: int) -> list[Any]:
    value = theirs[key]
    return list(value) if isinstance(value, list) else [value] * stages


def _path(kind: type) -> str:
    return f"{kind.__module__}.{kind.__name__}"


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
