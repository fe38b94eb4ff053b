"""Bones of an AP radiograph of the pelvis: outlines in the image plane and how much bone a ray crosses.

Each side has coordinates in mm at the patient: ``u`` from the midline outwards, ``v`` upwards from the height of the
femoral heads. A solid is given by its outline and its half depth along the ray, so that its surface bends away from the
ray at the outline as that of a cylinder does; a shell of cortex then gives the bright rim of a radiograph.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw
from scipy import ndimage

from msklabel_phantoms.random_fields import smooth_step
from msklabel_phantoms.shapes import bent_ellipse, ellipse, smooth_union, tapered_tube

Array = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]

HEAD_U_MM = 90.0  # from the midline to the middle of the femoral head
# One hip bone from the top of the symphysis along the pelvic brim, the sacroiliac joint, the crest, the edge of the
# posterior acetabular wall and the ischium back to the symphysis; u, v in mm.
HIP_BONE = (
    *((3, -20), (12, -15), (28, -13), (43, -8), (53, 3), (59, 20), (61, 38), (57, 54), (47, 62), (39, 73), (34, 95)),
    *((37, 120), (53, 143), (80, 156), (108, 149), (129, 126), (137, 102), (131, 84), (119, 67), (115, 55), (116, 45)),
    *((111, 35), (110, 27), (107, 13), (102, -5), (94, -20), (87, -31), (84, -45), (80, -62), (69, -77), (55, -80)),
    *((41, -71), (26, -60), (12, -54), (3, -50)),
)
OBTURATOR_FORAMEN = ((23, -36), (33, -28), (46, -27), (56, -34), (59, -48), (53, -61), (42, -61), (31, -52), (24, -44))
SACRUM = ((0, 134), (30, 136), (49, 130), (54, 112), (47, 90), (41, 70), (31, 52), (18, 40), (11, 29), (8, 16), (0, 10))
_ILIOISCHIAL_LINE = ((60, 40), (60, 18), (58, -6), (57, -26), (59, -46))
# Middle and widths of a Gaussian along u and v, and its height, mm.
_THICK = ((94, 42, 22, 22, 10), (72, -52, 15, 24, 11), (58, 20, 15, 26, 8), (44, 95, 12, 34, 8), (28, -22, 26, 14, 8))
_ANTERIOR_WALL = ((106, 28), (97, 14), (84, 1), (70, -9), (56, -11))


@dataclass(frozen=True)
class Hip:
    """What differs between joints; lengths in mm, angles in degrees.

    Attributes:
        head_mm: Radius of the femoral head.
        neck_mm: From the middle of the head to the axis of the shaft.
        neck_shaft_degrees: Angle between neck and shaft.
        rotation: How much of the neck's length is seen: 1 without rotation of the femur.
        adduction_degrees: Turns the femur in the image plane, the shaft inwards.
        cortex_mm: Thickness of the shaft's cortex.
        lesser_mm: Half the size of the lesser trochanter.
        gap_mm: Width of the joint space above the head.
        fossa_mm: Width of the space beside the head, at the acetabular floor.
        teardrop: Shift in u and v, half width and half height.
        cover_degrees: From the vertical to the lateral edge of the acetabulum.
        jitter_mm: Shifts of the outline of the hip bone, shape (2, points), u and v.
        widths: Scales of the hip bone along u (rotation of the pelvis) and of its lower part along v (tilt).
    """

    head_mm: float
    neck_mm: float
    neck_shaft_degrees: float
    rotation: float
    adduction_degrees: float
    cortex_mm: float
    lesser_mm: float
    gap_mm: float
    fossa_mm: float
    teardrop: tuple[float, float, float, float]
    cover_degrees: float
    jitter_mm: Array
    widths: tuple[float, float]


@dataclass(frozen=True)
class Bone:
    """Rays through a bone: mm of cortex and of spongy bone, and the signed distance to its outline in mm."""

    cortex_mm: Array
    spongy_mm: Array
    outline_mm: Array


def shell(depth_mm: Array, half_mm: float | Array, cortex_mm: float | Array) -> tuple[Array, Array]:
    """Return mm of cortex and of what is inside it along a ray.

    Args:
        depth_mm: Distance of the ray from the outline, in the image plane; negative outside.
        half_mm: Half depth of the solid along the ray.
        cortex_mm: Thickness of the shell.
    """
    inside = _chord(depth_mm - cortex_mm, np.maximum(half_mm - cortex_mm, 0.3))
    return np.maximum(_chord(depth_mm, half_mm) - inside, 0), inside


def _chord(depth_mm: Array, half_mm: float | Array) -> Array:
    near = np.clip(depth_mm, 0, half_mm)
    return np.asarray(2 * np.sqrt(near * (2 * half_mm - near)), dtype=np.float32)


def ridge(u_mm: Array, v_mm: Array, line_mm: Sequence[Sequence[float]], width_mm: float) -> Array:
    """Return 1 on a line, falling off as a Gaussian of a standard deviation of ``width_mm``."""
    distance = tapered_tube(u_mm, v_mm, np.zeros((), np.float32), [(u, v, 0.0, 0.0) for u, v in line_mm])
    return np.exp(-0.5 * np.square(distance / width_mm)).astype(np.float32)


def outline_distance(
    outlines: Sequence[npt.NDArray[np.floating]],
    holes: Sequence[npt.NDArray[np.floating]],
    shape: tuple[int, int],
    step_mm: Sequence[float],
) -> Array:
    """Return the signed distance in mm to smooth closed outlines, negative inside.

    Args:
        outlines: Corners in pixels, each of shape (points, 2).
        holes: The same, cut out.
        shape: Pixels.
        step_mm: Distance of pixels along both axes.
    """
    canvas = Image.new("L", (shape[1], shape[0]))
    for corners, value in [*((o, 1) for o in outlines), *((h, 0) for h in holes)]:
        ImageDraw.Draw(canvas).polygon([(float(y), float(x)) for x, y in _rounded(corners)], fill=value)
    mask = np.asarray(canvas) > 0
    outside, inside = (ndimage.distance_transform_edt(part, sampling=step_mm) for part in (~mask, mask))
    return ndimage.gaussian_filter((outside - inside).astype(np.float32), [0.6 / mm for mm in step_mm])


def _rounded(corners: npt.NDArray[np.floating], parts: int = 6) -> npt.NDArray[np.floating]:
    """Return a closed Catmull-Rom spline through the corners."""
    before, after, beyond = (np.roll(corners, shift, axis=0) for shift in (1, -1, -2))
    t = (np.arange(parts) / parts)[:, None, None]
    curve = 2 * corners + (after - before) * t + (2 * before - 5 * corners + 4 * after - beyond) * t**2
    curve = curve + (3 * corners - before - 3 * after + beyond) * t**3
    return np.asarray(curve.transpose(1, 0, 2).reshape(-1, 2) / 2)


def hip_bone_corners(hip: Hip) -> tuple[npt.NDArray[np.floating], npt.NDArray[np.floating]]:
    """Return the corners of the hip bone and of its foramen, shape (points, 2), u and v in mm."""
    bone = np.array(HIP_BONE, float) + hip.jitter_mm.T
    both = []
    for corners in (bone, np.array(OBTURATOR_FORAMEN, float)):
        u, v = corners.T
        low = np.where(v < -25, -25 + (v + 25) * hip.widths[1], v)
        both.append(np.stack([HEAD_U_MM + (u - HEAD_U_MM) * hip.widths[0], low], axis=1))
    return both[0], both[1]


@dataclass(frozen=True)
class Socket:
    """The joint around a femoral head: the space (label 4), the teardrop (label 3) and the bright bone beside them."""

    space: Mask
    teardrop: Mask
    hollow: Mask
    cortex_mm: Array


def socket(hip: Hip, u_mm: Array, v_mm: Array) -> Socket:
    """Draw the joint space as a crescent over and beside the head, and the teardrop at its lower end."""
    du, dv = u_mm - HEAD_U_MM, v_mm
    radius, angle = np.hypot(du, dv), np.degrees(np.arctan2(-du, dv))  # 0 upwards, 90 to the midline
    angle = np.where(angle < -120, angle + 360, angle)
    inner = smooth_step(angle.astype(np.float32), 35, 100)
    width = hip.gap_mm + (hip.fossa_mm - hip.gap_mm) * inner
    beyond = radius - hip.head_mm - width
    shift_u, shift_v, half_u, half_v = hip.teardrop
    centre_u = HEAD_U_MM - 0.85 * (hip.head_mm + hip.fossa_mm) - half_u + shift_u
    centre_v = -0.53 * (hip.head_mm + hip.fossa_mm) + shift_v
    narrow = half_u * (1 + 0.3 * np.clip((centre_v - v_mm) / half_v, -1, 1))
    drop = bent_ellipse(u_mm, v_mm, centre_u, centre_v, narrow, half_v, 0.12)
    around = (angle > -hip.cover_degrees) & (angle < 118)
    edge = smooth_step(angle.astype(np.float32), -hip.cover_degrees - 3, -hip.cover_degrees + 6)
    edge = edge * (1 - smooth_step(angle.astype(np.float32), 100, 125))
    roof = edge * (0.35 + 0.65 * np.exp(-np.square((angle - 0.3 * hip.cover_degrees) / 32)))
    bright = 13 * roof * np.exp(-0.5 * np.square((beyond - 1.6) / 1.5)) * (beyond > -1.5)
    bright += 7 * np.exp(-0.5 * np.square(drop / 0.8)) + 4 * (drop < 0)
    return Socket(
        space=around & (beyond < 0) & (radius > hip.head_mm) & (drop > 0),
        teardrop=drop < 0,
        hollow=(beyond < 0),
        cortex_mm=bright.astype(np.float32),
    )


def pelvis_depth(u_mm: Array, v_mm: Array, hollow: Mask) -> Array:
    """Return half the depth in mm of the hip bone along the ray: thick at roof, ischium and sacroiliac joint."""
    half = np.full(u_mm.shape, 4.0, np.float32)
    for u, v, wide, high, mm in _THICK:
        half += mm * np.exp(-np.square((u_mm - u) / wide) - np.square((v_mm - v) / high))
    half += 4.5 * ridge(u_mm, v_mm, ((37, 122), (55, 146), (80, 157), (108, 150), (130, 126), (137, 102)), 7)
    return half * np.where(hollow, np.float32(0.55), np.float32(1))


def pelvis_lines(u_mm: Array, v_mm: Array) -> Array:
    """Return mm of cortex where its surface lies along the ray: ilioischial line and anterior acetabular wall."""
    return 7 * ridge(u_mm, v_mm, _ILIOISCHIAL_LINE, 0.9) + 4 * ridge(u_mm, v_mm, _ANTERIOR_WALL, 1.0)


@dataclass(frozen=True)
class Femur(Bone):
    """The proximal femur with its two labels: 1 head, cavity and greater trochanter; 2 the rest."""

    cavity: Mask
    cortical: Mask


def femur(hip: Hip, u_mm: Array, v_mm: Array) -> Femur:
    """Draw the proximal femur from tubes: neck, shaft, greater trochanter; and ellipses: head, lesser trochanter."""
    turn = np.radians(hip.adduction_degrees)
    du, dv = u_mm - HEAD_U_MM, v_mm
    a, b = du * np.cos(turn) - dv * np.sin(turn), du * np.sin(turn) + dv * np.cos(turn)
    size = hip.head_mm / 24
    slope = np.radians(hip.neck_shaft_degrees - 90)
    base_a, base_b = hip.neck_mm * np.cos(slope) * hip.rotation, -hip.neck_mm * np.sin(slope)
    flat = np.zeros((), np.float32)

    def tube(*nodes: tuple[float, float, float]) -> Array:
        return tapered_tube(a, b, flat, [(base_a + x, base_b + y, 0.0, r * size) for x, y, r in nodes])

    head = ellipse(a, b, hip.head_mm, 0.98 * hip.head_mm)
    neck = tube((-base_a, -base_b, 18.5), (-0.45 * base_a, -0.45 * base_b, 15.5), (0, 0, 18))
    shaft = tube((0, 0, 18.5), (1, -25, 17), (0, -60, 14.5), (-6, -130, 13.8), (-12, -260, 14))
    greater = tube((3, 2, 17), (12, 16, 12), (9, 28, 8))
    lesser = bent_ellipse(a, b, base_a - 14.5 * size, base_b - 27, hip.lesser_mm, 1.7 * hip.lesser_mm, 0.35)
    body = smooth_union(smooth_union(neck, shaft, 10.0), greater, 7.0)
    outline = smooth_union(smooth_union(body, lesser, 5.0), head, 5.0)

    along = base_b - b  # below the end of the neck
    above_neck = (a * -base_b + b * base_a) / np.hypot(base_a, base_b)
    lateral = a - base_a + 0.05 * along
    below_neck, medial = above_neck < 0, lateral < 0
    grown = smooth_step(along, -8, 45)
    calcar = 3.6 * size * smooth_step(-above_neck, -4, 6) * smooth_step(-lateral, -4, 6) * smooth_step(head, -6, 4)
    cortex = 0.7 + (hip.cortex_mm - 0.7) * grown
    inner = np.maximum(cortex, calcar * (1 - 0.6 * smooth_step(along, 20, 50)))
    half = (14.5 + 9.5 * np.exp(-np.square(np.hypot(a, b) / 27)) + 2.5 * np.exp(-np.square(along / 25))) * size
    cortex_mm, spongy_mm = shell(-outline, half, inner)
    cavity_part = spongy_mm * (1 - 0.75 * smooth_step(along, 15, 70))  # the shaft holds marrow instead
    pressed = ridge(a, b, ((-2, 18), (0.3 * base_a, 0.75 * base_b), (base_a - 12, base_b - 12)), 8.0 * size)
    inside = outline < 0
    medial_rim = below_neck & medial & (-outline < np.maximum(cortex, 4.6 * size)) & (head > 0)
    lateral_rim = ~medial & (-outline < hip.cortex_mm * smooth_step(along, 8, 34)) & (along > 8)
    cortical = inside & (medial_rim | lateral_rim | ((lesser < 0) & medial))
    return Femur(
        (cortex_mm + 0.06 * pressed * spongy_mm).astype(np.float32), cavity_part, outline, inside & ~cortical, cortical
    )
