"""The schema of a segmentation system: one YAML file under configs/ is one frozen, checked System."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)
from typing_extensions import Self

from msklabel.errors import UserError

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
Fraction = Annotated[float, Field(ge=0, le=1)]
Byte = Annotated[int, Field(ge=0, le=255)]
Axis = Annotated[int, Field(ge=0, le=2)]
PAPER = "paper"


class ConfigError(UserError):
    """A configuration that cannot be used: names the file, the key, the value and what would be right."""


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
        noise_sd: Largest standard deviation of Gaussian noise, in units of the normalised image.
        contrast_fraction: Largest relative change of contrast.
        mirror_axes: Axes (0 left-right, 1 front-back, 2 up-down) mirrored with probability 1/2.
    """

    rotate_degrees: NonNegativeFloat = 0
    scale_fraction: Fraction = 0
    noise_sd: NonNegativeFloat = 0
    contrast_fraction: Fraction = 0
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
    augment: Augment = Augment()
    finetune: Finetune = Finetune()

    @model_validator(mode="after")
    def _plateau_has_epochs(self) -> Self:
        if (self.schedule == "plateau") != (self.plateau_epochs is not None):
            raise ValueError("plateau_epochs belongs to schedule: plateau, and to no other")
        return self


class Predict(Section):
    """Sliding-window prediction.

    Attributes:
        overlap: Share of a window that its neighbour covers again.
        blend: Weight of a voxel by its place in the window.
        mirror_axes: Also predict mirrored along each of these axes and average.
    """

    overlap: Annotated[float, Field(ge=0, lt=1)] = 0.5
    blend: Literal["gaussian", "constant"] = "gaussian"
    mirror_axes: tuple[Axis, ...] = ()
    batch: PositiveInt = 2
    ensemble: Literal["mean", "majority"] = "mean"


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


class System(Section):
    """A segmentation system: what is segmented, in which images, by which network, trained and applied how.

    Attributes:
        channels: Names of the input channels in order.
        dimensions: 2 (axial slices or a radiograph) or 3.
        labels: By name; indices contiguous from 1.
        groups: Named sets of labels.
        orientation: Axis codes of the working grid; ``RAS`` in volumes, where axis 2 runs to superior.
        spacing_mm: Voxel size of the working grid along each axis; null keeps the scan's own.
        patch_voxels: Network input along each axis; the last is 1 in 2D.
        laterality: ``mirror_halves`` splits at the mid-sagittal plane and mirrors the left half.
        variants: Further models with the same network and labels, by name.
        demo_labels: Labels that ``msklabel demo`` submits before each of its trainings.
        profile: The profile that is in force.
        profiles: Other profiles: partial overrides of this file.
    """

    name: Name
    title: str
    source: str
    modality: Annotated[tuple[Literal["CT", "MR", "CR", "DX"], ...], Field(min_length=1)]
    channels: Annotated[tuple[Name, ...], Field(min_length=1)]
    dimensions: Literal[2, 3]
    labels: Annotated[dict[Name, Label], Field(min_length=1)]
    groups: dict[Name, tuple[str, ...]] = {}
    orientation: Annotated[str, Field(pattern=r"^[RL][AP][SI]$")] = "RAS"
    spacing_mm: tuple[PositiveFloat | None, PositiveFloat | None, PositiveFloat | None]
    intensity: Annotated[Window | ZScore | Percentile, Field(discriminator="kind")]
    patch_voxels: tuple[PositiveInt, PositiveInt, PositiveInt]
    laterality: Literal["none", "mirror_halves"] = "none"
    network: Network
    train: Train
    predict: Predict = Predict()
    choose: Choose = Choose()
    postprocess: Postprocess = Postprocess()
    thresholds: Thresholds | None = None
    quantities: tuple[str, ...] = ()
    reference_slice: ReferenceSlice | None = None
    variants: dict[Name, Variant] = {}
    demo_labels: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (2, 2, 4)
    profile: Name = PAPER
    profiles: dict[Name, dict[str, Any]] = {}

    @field_validator("labels")
    @classmethod
    def _indices_contiguous(cls, labels: dict[str, Label]) -> dict[str, Label]:
        indices = sorted(label.index for label in labels.values())
        if indices != list(range(1, len(labels) + 1)):
            raise ValueError(f"indices must be 1 to {len(labels)}, each once, got {indices}")
        if len({label.code for label in labels.values()}) != len(labels):
            raise ValueError("every label needs a code of its own")
        return dict(sorted(labels.items(), key=lambda item: item[1].index))

    @model_validator(mode="after")
    def _names_known(self) -> Self:
        named = {f"groups.{group}": members for group, members in self.groups.items()}
        named["postprocess.largest_component"] = self.postprocess.largest_component
        named["postprocess.fill_holes"] = self.postprocess.fill_holes
        for key, names in named.items():
            unknown = [name for name in names if name not in self.labels]
            if unknown:
                raise ValueError(f"{key}: {unknown} is no label of this system; labels: {', '.join(self.labels)}")
        for group in self.reference_slice.bone if self.reference_slice else ():
            if group not in self.groups:
                raise ValueError(f"reference_slice.bone: no group {group!r}; groups: {', '.join(self.groups)}")
        if (self.patch_voxels[2] == 1) != (self.dimensions == 2):
            raise ValueError(
                f"patch_voxels {list(self.patch_voxels)}: the last must be 1 in 2D and more in 3D (dimensions: "
                f"{self.dimensions})"
            )
        if self.laterality == "mirror_halves" and 0 in self.choose.flip_axes:
            raise ValueError("choose.flip_axes: with mirror_halves both sides are seen as right ones already")
        for name, variant in self.variants.items():
            unknown = [key for key in variant.train if key not in Train.model_fields]
            if unknown:
                raise ValueError(f"variants.{name}.train.{unknown[0]}: unknown key")
        if PAPER in self.profiles:
            raise ValueError(f"profiles.{PAPER}: the file itself is the {PAPER} profile")
        return self

    @property
    def classes(self) -> int:
        """Number of classes, background included."""
        return len(self.labels) + 1

    @property
    def label_indices(self) -> dict[str, int]:
        """Voxel value of each label by name, in order of value."""
        return {name: label.index for name, label in self.labels.items()}

    @property
    def profile_names(self) -> tuple[str, ...]:
        """All profiles that :meth:`with_profile` takes."""
        return (PAPER, *self.profiles)

    @cached_property
    def fingerprint(self) -> str:
        """Twelve hex digits of all that trained weights depend on; weights carry it and fit only their own."""
        keys = ("name", "channels", "dimensions", "orientation", "spacing_mm", "intensity", "patch_voxels")
        data = self.model_dump(mode="json", include={*keys, "laterality", "network"})
        data["labels"] = self.label_indices
        return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:12]

    def with_variant(self, variant: str) -> System:
        """Return this system with the recipe of one of its variants; the same weights fit both.

        Raises:
            ConfigError: If there is no such variant, or its recipe does not fit the schema.
        """
        if variant not in self.variants:
            known = ", ".join(self.variants) or "none"
            raise ConfigError(f"{self.name}: no variant {variant!r}; variants: {known}")
        data = self.model_dump(exclude_unset=True)
        merged = _merge(data, {"train": self.variants[variant].train})
        return _validated(merged, f"{self.name}, variant {variant}")

    def with_profile(self, profile: str) -> System:
        """Return this system with the overrides of a profile in force.

        Raises:
            ConfigError: If there is no such profile, or its overrides do not fit the schema.
        """
        if profile == self.profile:
            return self
        if profile not in self.profile_names or self.profile != PAPER:
            raise ConfigError(f"{self.name}: no profile {profile!r}; profiles: {', '.join(self.profile_names)}")
        data = _merge(self.model_dump(exclude_unset=True), self.profiles[profile])
        return _validated({**data, "profile": profile}, f"{self.name}, profile {profile}")


def load_system(file: Path) -> System:
    """Read and check one YAML file, every profile included.

    Raises:
        ConfigError: Naming the file, the key, the value and what would be right.
    """
    try:
        data = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{file}: cannot be read as YAML: {error}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{file}: expected a mapping of keys, got {type(data).__name__}")
    system = _validated(data, str(file))
    if system.name != file.stem:
        raise ConfigError(f"{file}: name: {system.name!r} must equal the file's name, {file.stem!r}")
    for profile in system.profile_names:
        for variant in system.variants:
            system.with_profile(profile).with_variant(variant)
        system.with_profile(profile)
    return system


def _merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Override keys of nested mappings; a section of another ``name`` or ``kind`` is replaced whole."""
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        if not isinstance(old, Mapping) or not isinstance(value, Mapping):
            merged[key] = value
        elif any(kind in value and value[kind] != old.get(kind) for kind in ("name", "kind")):
            merged[key] = dict(value)
        else:
            merged[key] = _merge(old, value)
    return merged


def _validated(data: dict[str, Any], where: str) -> System:
    try:
        return System.model_validate(data)
    except ValidationError as error:
        raise ConfigError("; ".join(f"{where}: {_describe(problem)}" for problem in error.errors())) from error


def _describe(problem: Any) -> str:
    key = ".".join(str(part) for part in problem["loc"]) or "file"
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        return f"{key}: unknown key; remove it or correct its spelling"
    if problem["type"] == "missing":
        return f"{key}: missing"
    value = problem["input"]
    return f"{key}: {message}" if isinstance(value, dict | BaseModel) else f"{key}: {value!r}: {message}"
