"""What an anatomy out of a label map is made of, slab by slab: layers of tissue to paint, and the true labels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from msklabel_phantoms.label_anatomy import Anatomy
from msklabel_phantoms.random_fields import SmoothField, sheets, smooth_step
from msklabel_phantoms.sections import Grid
from msklabel_phantoms.thigh_tissues import SKIN_MM, Layer, coverage

Array = npt.NDArray[np.float32]
# Node distance along x, y, z in mm.
_FIELD_SCALES_MM = {
    "skin_fat": (45, 45, 70),
    "septa": (18, 18, 30),
    "fat_planes": (15, 15, 26),
    "patches": (15, 15, 34),
    "streaks": (5, 5, 24),
    "texture": (5, 5, 10),
    "trabeculae": (3, 3, 3),
    "bowel": (12, 12, 14),
}
_PATCHES, _STREAKS = 0.7, 0.35  # of the log-odds of fat within muscle
_WALL_MM = 7.0  # of the pelvis, to either side of its muscles and bones


@dataclass(frozen=True)
class Person:
    """What is drawn about a person before a voxel is made.

    Attributes:
        fat_fraction: Fat's share of muscle tissue, mean over all muscles, 0 to 1.
        muscle_logit: Log-odds of fat in each structure, by its voxel value.
        subcutaneous_mm: Mean thickness of the fat under the skin.
        septum: Thickness of the fat between two muscles, in units of the difference of their blurred masks.
        fields: Smooth random fields in the scanner's frame.
    """

    fat_fraction: float
    muscle_logit: dict[int, float]
    subcutaneous_mm: float
    septum: float
    fields: dict[str, SmoothField]


def draw_person(rng: np.random.Generator, anatomy: Anatomy, fat_fraction: float) -> Person:
    """Draw a person of a given fat infiltration; nothing depends on the voxel grid."""
    fields = {name: SmoothField(rng, scale) for name, scale in _FIELD_SCALES_MM.items()}
    muscles = [structure.value for structure in anatomy.structures if not structure.bone]
    own = rng.normal(0, 0.35, len(muscles))
    # The mean of a logistic of normal numbers is that of a weaker slope (MacKay 1992).
    spread = np.sqrt(1 + np.pi / 8 * (_PATCHES**2 + _STREAKS**2 + 0.35**2))
    middle = spread * np.log(fat_fraction / (1 - fat_fraction))
    return Person(
        fat_fraction=fat_fraction,
        muscle_logit={value: float(middle + part) for value, part in zip(muscles, own, strict=True)},
        subcutaneous_mm=float(rng.uniform(9, 20)),
        septum=float(rng.uniform(0.1, 0.2) + 0.25 * fat_fraction),
        fields=fields,
    )


@dataclass(frozen=True)
class Slab:
    """Some slices of a person.

    Attributes:
        labels: Voxel value of the structure at each voxel's centre, shape (X, Y, Z); 0 for none.
        layers: Tissues from the skin inward; before the first there is air.
        spongy: How much of the space within bone is trabecular, shape (X, Y, Z).
    """

    labels: npt.NDArray[np.int32]
    layers: tuple[Layer, ...]
    spongy: Array


def slab_of(anatomy: Anatomy, person: Person, grid: Grid, voxel_mm: float) -> Slab:
    """Fill a slab with tissue.

    Args:
        anatomy: Where everything is.
        person: What it is made of.
        grid: The slab's voxels.
        voxel_mm: Edge of a voxel in-plane: partial volume blends tissues over this distance.
    """
    field = {name: field.on_grid(grid.x_mm, grid.y_mm, grid.z_mm) for name, field in person.fields.items()}
    found = _Found(anatomy, grid)
    h = np.float32(voxel_mm)
    inward_mm = anatomy.fascia_mm.on(grid)
    skin_mm = -inward_mm - np.float32(person.subcutaneous_mm) * (1 + 0.22 * field["skin_fat"])
    skin_mm = np.asarray(np.minimum(skin_mm, -inward_mm - 4), np.float32)
    lean = found.bones + found.muscles
    apart = np.maximum(found.best_muscle - found.second_muscle, 0)
    width = np.float32(person.septum) * np.clip(1 + 0.5 * field["fat_planes"], 0.3, 2.5)
    body = smooth_step(found.muscles, 0.3, 0.7) * smooth_step(np.asarray(apart / width, np.float32), 0.3, 1.3)
    fat = 1 / (1 + np.exp(-(found.logit(person) + _PATCHES * field["patches"] + _STREAKS * field["streaks"])))
    bone = smooth_step(found.bones - np.maximum(found.muscles, 1 - lean), -0.35, 0.35)
    layers = [
        Layer("skin", coverage(skin_mm, h)),
        Layer("fat", coverage(skin_mm + SKIN_MM, h)),
        Layer("septum", coverage(skin_mm + np.float32(3), h) * sheets(field["septa"], 0.05) * 0.5),
        Layer("fat", coverage(-inward_mm, h)),
        *_organs(anatomy, grid, inward_mm, lean, field["bowel"]),
        Layer("muscle", body * (1 - fat).astype(np.float32)),
        Layer("cortex", bone),
        Layer("marrow", bone * coverage(found.cortex_mm - found.depth_mm, h)),
    ]
    return Slab(found.labels(), tuple(layers), found.spongy)


class _Found:
    """What of an anatomy lies in a slab, every array of shape (X, Y, Z).

    ``bones`` and ``muscles`` are how much of a voxel each covers; ``best_muscle`` and ``second_muscle`` the shares of
    the two muscles with the most.
    """

    def __init__(self, anatomy: Anatomy, grid: Grid) -> None:
        names = ("bones", "muscles", "best_bone", "best_muscle", "second_muscle", "cortex_mm", "depth_mm", "spongy")
        for name in names:
            setattr(self, name, np.zeros(grid.shape, np.float32))
        self.bone = np.zeros(grid.shape, np.int32)
        self.muscle = np.zeros(grid.shape, np.int32)
        for structure in anatomy.structures:
            place = structure.share.part_of(grid)
            if place is None:
                continue
            part = Grid(*(axis[where] for axis, where in zip((grid.x_mm, grid.y_mm, grid.z_mm), place, strict=True)))
            share = structure.share.on(part) / 255
            if structure.bone and structure.depth_mm is not None:
                nearer = share > self.best_bone[place]
                self.bones[place] += share
                self._take(place, nearer, "best_bone", share)
                self.bone[place][nearer] = structure.value
                self._take(place, nearer, "depth_mm", structure.depth_mm.on(part) / 10)
                for name, profile in (("cortex_mm", structure.cortex_mm), ("spongy", structure.spongy)):
                    self._take(place, nearer, name, np.broadcast_to(profile(part.z_mm), share.shape))
            else:
                nearer = share > self.best_muscle[place]
                self.muscles[place] += share
                second = np.where(nearer, self.best_muscle[place], np.maximum(self.second_muscle[place], share))
                self.second_muscle[place] = second
                self._take(place, nearer, "best_muscle", share)
                self.muscle[place][nearer] = structure.value

    bones: Array
    muscles: Array
    best_bone: Array
    best_muscle: Array
    second_muscle: Array
    cortex_mm: Array
    depth_mm: Array
    spongy: Array

    def _take(self, place: tuple[slice, slice, slice], where: npt.NDArray[np.bool_], name: str, values: Array) -> None:
        np.copyto(getattr(self, name)[place], values, where=where)

    def labels(self) -> npt.NDArray[np.int32]:
        """Return the value of the structure with the largest share, 0 where most is nothing."""
        nothing = 1 - self.bones - self.muscles
        best = np.maximum(self.best_bone, self.best_muscle)
        values = np.where(self.best_bone > self.best_muscle, self.bone, self.muscle)
        return np.where(best > nothing, values, 0)

    def logit(self, person: Person) -> Array:
        """Return the log-odds of fat in the muscle that is there."""
        table = np.zeros(int(self.muscle.max()) + 1, np.float32)
        for value, logit in person.muscle_logit.items():
            if value < len(table):
                table[value] = logit
        return table[self.muscle]


def _organs(anatomy: Anatomy, grid: Grid, inward_mm: Array, lean: Array, bowel: Array) -> Iterator[Layer]:
    """Yield organs and gas within the pelvis, away from its wall."""
    if anatomy.pelvis_mm is None:
        return
    low, high = anatomy.pelvis_mm
    middle, half = (low + high) / 2, (high - low) / 2
    height = smooth_step(grid.z_mm, low[2] + 10, low[2] + 35) * (grid.z_mm <= high[2] + 60)
    across = np.square((grid.x_mm - middle[0]) / (0.62 * half[0]))[:, None] + np.square(
        (grid.y_mm - middle[1]) / (0.9 * half[1])
    )
    cavity = 1 - smooth_step(across, 0.5, 1.1)
    inside = smooth_step(inward_mm, _WALL_MM, 3 * _WALL_MM) * (1 - smooth_step(lean, 0.02, 0.3))
    inside = inside * cavity[..., None] * height[None, None, :]
    yield Layer("organ", inside * np.clip(0.8 + 0.5 * bowel, 0.2, 1))
    yield Layer("gas", inside * np.clip(4 * (bowel - 1.8), 0, 1))
