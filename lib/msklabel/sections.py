"""The sections of a System: what each may hold, checked; the System itself is in ``msklabel.system``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)
from typing_extensions import Self

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
Fraction = Annotated[float, Field(ge=0, le=1)]
Byte = Annotated[int, Field(ge=0, le=255)]
Axis = Annotated[int, Field(ge=0, le=2)]
WindowPlaces = Literal["spread", "from_edge"]
Resampling = Literal["edge_to_edge", "from_first_voxel"]
CoarseningFactor = Annotated[float, Field(ge=1, le=16)]


class Section(BaseModel):
    """A part of a System: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Label(Section):
    """One structure that a system segments.

    Attributes:
        index: Voxel value in label maps, from 1; 0 is background.
        code: ``SCHEME:value``; ``SCT`` for SNOMED CT, ``99MSKLABEL`` for our private scheme.
        color: Red, green, blue, each 0 to 255.
        category: What DICOM calls it where it is stored as a segment.
    """

    index: PositiveInt
    code: Annotated[str, Field(pattern=r"^(SCT:\d+|99MSKLABEL:[A-Z][A-Z0-9_]*)$")]
    color: tuple[Byte, Byte, Byte]
    category: Literal["anatomical_structure", "tissue"] = "anatomical_structure"


class Window(Section):
    """Map [lower, upper] to 0..1 with clipping, then raise to the power gamma. In HU for CT."""

    kind: Literal["window"]
    lower: float
    upper: float
    gamma: PositiveFloat = 1.0

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.lower >= self.upper:
            raise ValueError(f"lower ({self.lower:g}) must be below upper ({self.upper:g})")
        return self


class ZScore(Section):
    """Subtract the mean and divide by the standard deviation over the foreground, per channel."""

    kind: Literal["zscore"]


class Percentile(Section):
    """Map two percentiles of the foreground to 0..1 with clipping, per channel."""

    kind: Literal["percentile"]
    lower_percent: Annotated[float, Field(ge=0, lt=100)] = 0.5
    upper_percent: Annotated[float, Field(gt=0, le=100)] = 99.5


class Network(BaseModel):
    """Name of a registered network and its own parameters, which its builder checks."""

    model_config = ConfigDict(frozen=True, extra="allow")
    name: str

    @property
    def parameters(self) -> dict[str, Any]:
        """Everything but the name."""
        return dict(self.model_extra or {})


class Augment(Section):
    """Random changes of training crops; a value of 0 switches one off.

    Attributes:
        rotate_degrees: Largest rotation in the axial plane, degrees.
        scale_fraction: Largest relative change of size.
        shift_voxels: Largest shift in the axial plane, along each axis.
        deform_voxels: Standard deviation of a smooth bending in the axial plane, along each axis; more than 2 folds.
        noise_sd: Largest standard deviation of Gaussian noise, in units of the normalised image.
        contrast_fraction: Largest relative change of contrast.
        gamma_fraction: By how much a power of the intensity may differ from 1: 0.3 takes powers of 0.7 to 1 / 0.7.
        shading: Largest coefficient of a smooth field (polynomial of degree 3) that the intensity is multiplied by.
        probability: Share of the crops that each change but the mirroring applies to.
        mirror_axes: Axes (0 left-right, 1 front-back, 2 up-down) mirrored with probability 1/2.
    """

    rotate_degrees: NonNegativeFloat = 0
    scale_fraction: Fraction = 0
    shift_voxels: NonNegativeFloat = 0
    deform_voxels: Annotated[float, Field(ge=0, le=2)] = 0
    noise_sd: NonNegativeFloat = 0
    contrast_fraction: Fraction = 0
    gamma_fraction: Annotated[float, Field(ge=0, lt=1)] = 0
    shading: NonNegativeFloat = 0
    probability: Annotated[float, Field(gt=0, le=1)] = 0.5
    mirror_axes: tuple[Axis, ...] = ()


class Finetune(Section):
    """How a trained model goes on learning when some labels are added; the papers do not say, the choices are ours.

    An epoch shows every crop of the new labels and, beside them, crops of older ones.

    Attributes:
        epochs_fraction: Epochs as a share of the recipe's.
        learning_rate_factor: Highest learning rate as a share of the recipe's; it falls to 0 at the end.
        warmup_steps: Optimiser steps over which the learning rate rises.
        replay: Share of crops that come from older labels, balanced over sites and labels.
        average_decay: Of the moving average of the weights, which is what is kept.
        stop_epochs: Stop after so many epochs without a better validation loss.
        older_to_new: Fine-tune once older labels outnumber new ones by this; before, follow the recipe on all labels.
    """

    epochs_fraction: Annotated[float, Field(gt=0, le=1)] = 0.5
    learning_rate_factor: Annotated[float, Field(gt=0, le=1)] = 0.3
    warmup_steps: NonNegativeInt = 20
    replay: Annotated[float, Field(ge=0.5, lt=1)] = 0.5
    average_decay: Annotated[float, Field(ge=0, lt=1)] = 0.98
    stop_epochs: PositiveInt = 5
    older_to_new: PositiveFloat = 2.0


class Train(Section):
    """A paper's training recipe.

    Attributes:
        learning_rate: Initial learning rate.
        batch: Crops per optimiser step.
        epochs: Passes over the training scans.
        crops_per_scan: Crops drawn from a scan in an epoch; left out in 2D: each annotated slice once.
        foreground_fraction: Share of crops centred on a labelled voxel.
        plateau_epochs: With ``plateau``: epochs without a better validation loss before the rate is halved.
        stop_epochs: Stop after so many epochs without a better validation loss; left out: never.
        folds: Cross-validation folds, split by patient.
        mixed_precision: Multiply in half precision where the device has units for it; otherwise all is in float32.
        finetune: What differs when a trained model learns from further labels.
    """

    loss: Literal["cross_entropy", "dice", "dice_cross_entropy"]
    optimizer: Literal["adam", "adamw", "sgd"]
    learning_rate: PositiveFloat
    weight_decay: NonNegativeFloat = 0
    momentum: Fraction = 0
    schedule: Literal["constant", "polynomial", "plateau"] = "constant"
    plateau_epochs: PositiveInt | None = None
    stop_epochs: PositiveInt | None = None
    batch: PositiveInt
    epochs: PositiveInt
    folds: PositiveInt = 1
    crops_per_scan: PositiveInt | None = None
    foreground_fraction: Fraction = 0
    deep_supervision: bool = False
    mixed_precision: bool = True
    augment: Augment = Augment()
    finetune: Finetune = Finetune()

    @model_validator(mode="after")
    def _plateau_has_epochs(self) -> Self:
        if (self.schedule == "plateau") != (self.plateau_epochs is not None):
            raise ValueError("plateau_epochs belongs to schedule: plateau, and to no other")
        return self


class Locate(Section):
    """Coarse to fine: where the labels lie is found on a coarser grid first, by the same network with the same weights.

    Windows then cover the box around all that was found there, with a margin, and the rest is background; where nothing
    was found, windows cover everything. A structure that the network misses on the coarse grid, and that lies outside
    the box, is lost: so validation, which predicts in the same way, has to show that the network bears it.

    Attributes:
        coarsen: How many voxels of the working grid one voxel of the coarse grid takes in, along each axis.
        margin_voxels: Added to the box at both ends of each axis, in voxels of the working grid.
    """

    coarsen: tuple[CoarseningFactor, CoarseningFactor, CoarseningFactor]
    margin_voxels: tuple[NonNegativeInt, NonNegativeInt, NonNegativeInt] = (8, 8, 8)

    @model_validator(mode="after")
    def _coarser(self) -> Self:
        if max(self.coarsen) == 1:
            raise ValueError("coarsen: at least one axis must be coarser (more than 1); leave locate out otherwise")
        return self


class Predict(Section):
    """Sliding-window prediction.

    Attributes:
        overlap: Share of a window that its neighbour covers again.
        windows: ``spread`` lays them evenly over the body, as few as overlap enough; ``from_edge`` in fixed steps from
            the image's edge, the last moved back inside, which is where MONAI's SlidingWindowInferer has them.
        blend: Weight of a voxel by its place in the window.
        mirror_axes: Also predict mirrored along each of these axes and average.
        locate: Find out first, at low resolution, where to predict at all; left out: everywhere in the body.
    """

    overlap: Annotated[float, Field(ge=0, lt=1)] = 0.5
    windows: WindowPlaces = "spread"
    blend: Literal["gaussian", "constant"] = "gaussian"
    mirror_axes: tuple[Axis, ...] = ()
    batch: PositiveInt = 2
    ensemble: Literal["mean", "majority"] = "mean"
    locate: Locate | None = None


class Choose(Section):
    """Whose opinions are compared to judge how sure a prediction is; the members of an ensemble always count.

    Attributes:
        flip_axes: Also predict mirrored along each of these axes (0 left-right), one at a time.
        dropout_passes: Predictions with the network's dropout on, and nothing else of training mode.
        earlier_versions: The last versions before the one in service, as further members.
    """

    flip_axes: tuple[Axis, ...] = ()
    dropout_passes: Annotated[int, Field(ge=0, le=32)] = 0
    earlier_versions: Annotated[int, Field(ge=0, le=8)] = 0


class Postprocess(Section):
    """Clean-up of predicted labels, by label name.

    Attributes:
        largest_component: Keep only the largest connected part of each.
        fill_holes: Fill enclosed background of each, slice by slice in 2D systems.
    """

    largest_component: tuple[str, ...] = ()
    fill_holes: tuple[str, ...] = ()


class Thresholds(Section):
    """A training-free first segmentation by Hounsfield thresholds and anatomy, all in HU.

    Attributes:
        method: Name of the algorithm in ``msklabel.predict.classical``; it gives the labels that it knows by name.
        source: Where the values come from.
        hu: The algorithm's limits by name; those left out keep its own defaults.
    """

    method: str
    source: str
    hu: dict[str, float] = {}


class ReferenceSlice(Section):
    """The axial slice that quantities are measured in, found from the labels.

    Attributes:
        rule: ``thickest_femoral_neck``: where the neck of the femur is thickest.
        side: Whose.
        margin_slices: Volumes are taken over so many slices below and above, too.
        bone: Groups whose labels together are bone with its marrow.
    """

    rule: Literal["thickest_femoral_neck"]
    side: Literal["left", "right"] = "left"
    margin_slices: Annotated[int, Field(ge=0)] = 0
    bone: Annotated[tuple[str, ...], Field(min_length=1)]


class Variant(Section):
    """A second model of a system, fine-tuned for scans that the first was not made for.

    Attributes:
        title: What it is for.
        fat_fraction_from_percent: It takes the scans whose mean fat fraction over the segmented muscles is at least
            this, in training and in prediction.
        train: What differs from the system's recipe.
    """

    title: str
    fat_fraction_from_percent: Annotated[float, Field(ge=0, le=100)]
    train: dict[str, Any] = {}
