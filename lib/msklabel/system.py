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
    Field,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)
from typing_extensions import Self

from msklabel.errors import UserError
from msklabel.sections import (
    Choose,
    Label,
    Name,
    Network,
    Percentile,
    Postprocess,
    Predict,
    ReferenceSlice,
    Resampling,
    Section,
    Thresholds,
    Train,
    Variant,
    Window,
    ZScore,
)

PAPER = "paper"


class ConfigError(UserError):
    """A configuration that cannot be used: names the file, the key, the value and what would be right."""


class System(Section):
    """A segmentation system: what is segmented, in which images, by which network, trained and applied how.

    Attributes:
        channels: Names of the input channels in order.
        dimensions: 2 (axial slices or a radiograph) or 3.
        labels: By name; indices contiguous from 1.
        groups: Named sets of labels.
        orientation: Axis codes of the working grid; ``RAS`` in volumes, where axis 2 runs to superior.
        spacing_mm: Voxel size of the working grid along each axis; null keeps the scan's own.
        resampling: ``edge_to_edge`` covers the scan exactly, with voxels of nearly that size, and averages where they
            are coarser; ``from_first_voxel`` counts exact steps from the centre of the scan's first voxel and
            interpolates between neighbours, as MONAI's Spacing does.
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
    groups: dict[Name, tuple[str, ...]] = Field(default_factory=dict)
    orientation: Annotated[str, Field(pattern=r"^[RL][AP][SI]$")] = "RAS"
    spacing_mm: tuple[PositiveFloat | None, PositiveFloat | None, PositiveFloat | None]
    resampling: Resampling = "edge_to_edge"
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
    variants: dict[Name, Variant] = Field(default_factory=dict)
    demo_labels: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (2, 2, 4)
    profile: Name = PAPER
    profiles: dict[Name, dict[str, Any]] = Field(default_factory=dict)

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
        for group, members in self.groups.items():  # tables name both alike, as ``structure``
            if group in self.labels and set(members) != {group}:
                raise ValueError(f"groups.{group}: is the name of a label, too; give the group another")
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
    def of_projections(self) -> bool:
        """Whether its images are radiographs, which have areas and no volumes."""
        return set(self.modality) <= {"CR", "DX"}

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
        if self.resampling != "edge_to_edge":  # there were weights before it could be chosen
            data["resampling"] = self.resampling
        return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def preparation(self) -> str:
        """All that a prepared scan depends on: the fingerprint, and how far windows from the edge reach."""
        if self.predict.windows == "spread":
            return self.fingerprint
        return f"{self.fingerprint}-{self.predict.windows}-{self.predict.overlap}"

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
