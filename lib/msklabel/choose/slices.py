"""Which slices of a scan to draw: uncertain ones, spread so that the others are near to one of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from msklabel.choose.summary import Summary

_EVEN_SHARE = 0.5  # of the weight, the rest follows the uncertainty


@dataclass(frozen=True)
class Plan:
    """Slices to draw.

    Attributes:
        axis: Axis of the scan as stored that they count along.
        indices: From 0, ascending.
        reason: ``uncertain and spread`` or ``strided``.
    """

    axis: int
    indices: tuple[int, ...]
    reason: str


def strided(first: int, stop: int, count: int) -> list[int]:
    """Slices in the middle of equal parts of a range, ascending."""
    count = min(count, stop - first)
    return [int(first + (part + 0.5) * (stop - first) / count) for part in range(count)]


def slice_weights(summary: Summary, label: int | None = None) -> NDArray[np.float64]:
    """How much each entry of a summary is worth drawing, summing to 1.

    Half is even over the entries where something is expected, so that no part is left out; half is the uncertainty, to
    which each label contributes alike: a small one counts as much as a large one.

    Args:
        summary: Of a prediction.
        label: Only this one counts, by its place among the labels from 0, found or not; None for all that were found.
    """
    uncertain, area = summary.uncertain_cm2.astype(float), summary.area_cm2.astype(float)
    found = summary.volume_cm3.sum(axis=0) > 0
    if label is not None:
        uncertain, area, found = uncertain[[label]], area[[label]], np.ones(1, bool)
    totals = uncertain.sum(axis=1, keepdims=True)
    found = found[:, None] & (totals > 0)
    shares = np.where(found, uncertain / np.where(totals > 0, totals, 1), 0).sum(axis=0)
    expected = area.sum(axis=0)
    there = expected > 0.02 * expected.max(initial=0)
    if not there.any() or shares.sum() == 0:
        return np.full(len(shares), 1 / len(shares))
    even: NDArray[np.float64] = there / there.sum()
    return _EVEN_SHARE * even + (1 - _EVEN_SHARE) * shares / shares.sum()


def share_left(weights: NDArray[np.float64], count: int, drawn: Sequence[int]) -> float:
    """Which share of what is worth drawing in a scan is not covered yet by the slices that are drawn, 0 to 1.

    A drawn slice stands for its neighbours as in :func:`spread`, as far as ``count`` slices would reach.

    Args:
        weights: Worth of each slice, summing to 1.
        count: Slices that are drawn at once.
        drawn: Slices that are drawn already.
    """
    return 1 - float(weights @ _near(len(weights), _reach(weights, count), drawn).max(axis=1, initial=0))


def spread(weights: NDArray[np.float64], count: int, drawn: Sequence[int] = ()) -> list[int]:
    """Greedily cover weighted slices: each one stands for its neighbours, less the farther they are.

    Maximises sum_z w[z] max_s exp(-(z - s)^2 / 2 sigma^2), a submodular cover (facility location); sigma is a quarter
    of the mean distance of evenly spread slices.

    Args:
        weights: Worth of each slice, 0 or more.
        count: How many to choose.
        drawn: Slices that are drawn already; what lies beyond the scan, as after it was replaced, does not count.

    Returns:
        Indices, ascending.
    """
    length = len(weights)
    drawn = sorted({place for place in drawn if place < length})
    count = min(count, length - len(drawn))
    near = _near(length, _reach(weights, count + len(drawn)), range(length))
    covered = near[:, drawn].max(axis=1, initial=0)
    chosen: list[int] = []
    for _ in range(count):
        gain = (weights[:, None] * np.maximum(near - covered[:, None], 0)).sum(axis=0)
        gain[[*chosen, *drawn]] = -1
        best = int(np.argmax(gain))
        chosen.append(best)
        covered = np.maximum(covered, near[:, best])
    return sorted(chosen)


def plan_slices(summary: Summary, count: int, drawn: Sequence[int] = (), label: int | None = None) -> Plan:
    """Choose slices of a judged scan.

    Args:
        summary: Of a model that is in service.
        count: How many.
        drawn: Slices of the scan as stored that are drawn already.
        label: For which they are drawn, see :func:`slice_weights`.
    """
    where = summary.slices
    if not summary.finite:
        return plan_strided(where.axis, where.native, count, drawn)
    indices = spread(native_weights(summary, [label])[0], count, drawn)
    return Plan(where.axis, tuple(indices), "uncertain and spread")


def native_weights(summary: Summary, labels: Sequence[int | None]) -> NDArray[np.float64]:
    """:func:`slice_weights` of each slice of the scan as stored, shape (len(labels), slices), each row summing to 1.

    A slice that the working crop does not reach, as there is no body in it, is worth nothing.

    Args:
        summary: Of a prediction.
        labels: For each row the label that counts, None for all alike.
    """
    where, entries = summary.slices, summary.area_cm2.shape[1]
    places = np.arange(where.native)
    inside = where.inside(places, entries)
    entry = where.to_entry(places, entries)
    weights = np.stack([slice_weights(summary, label)[entry] * inside for label in labels])
    scaled: NDArray[np.float64] = weights / np.maximum(weights.sum(axis=1, keepdims=True), 1e-12)
    return scaled


def plan_strided(axis: int, slices: int, count: int, drawn: Sequence[int] = ()) -> Plan:
    """Evenly spread slices, for a scan of which no model knows anything; those drawn already are left out."""
    if drawn:
        return Plan(axis, tuple(spread(np.full(slices, 1 / slices), count, drawn)), "strided")
    return Plan(axis, tuple(strided(0, slices, count)), "strided")


def _reach(weights: NDArray[np.float64], count: int) -> float:
    """For how many slices around it one of evenly spread slices stands: sigma."""
    return max(0.5, max(1, int((weights > 0).sum())) / (4 * max(1, count)))


def _near(length: int, sigma: float, slices: Sequence[int]) -> NDArray[np.float64]:
    """How well some slices stand for each, shape (length, len(slices)), 0 to 1."""
    away = np.arange(length)[:, None] - np.asarray(slices, int)[None]
    near: NDArray[np.float64] = np.exp(-(away**2) / (2 * sigma**2))
    return near
