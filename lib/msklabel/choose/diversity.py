"""Which scans stand for others: typicality and coverage in the space of their embeddings.

Embeddings have shape (scans, features), rows of length 1 or all NaN where there is none; distances are Euclidean, so
from 0 to 2. What compares all with all looks at a sample of at most a few hundred, or a thousand or two of those that
are taken: thousands of scans cost milliseconds.
"""

from __future__ import annotations

import numpy as np

from msklabel.choose.pool import Flags, Floats, Indices, Vectors

_SAMPLE = 512
_NEIGHBOURS = 20
_FEATURES = 32
_TAKEN = 1000  # of the scans that are taken, evenly over their names, where they are twice as many and more
_ROWS = 1024  # compared at once


def unit_rows(vectors: Floats) -> Vectors:
    """Bring raw embeddings to the leading principal components, rows to length 1; unknown rows (NaN) stay."""
    known = ~np.isnan(vectors).any(axis=1)
    if known.sum() < 2 or not vectors.shape[1]:
        return np.full((len(vectors), 1), np.nan, np.float32)
    rows = vectors[known]
    spread = rows.std(axis=0)
    scaled = (rows - rows.mean(axis=0)) / np.where(spread > 0, spread, 1)
    _, _, axes = np.linalg.svd(scaled[:: max(1, len(scaled) // _SAMPLE)], full_matrices=False)
    leading = scaled @ axes[:_FEATURES].T
    length = np.linalg.norm(leading, axis=1, keepdims=True)
    result = np.full((len(vectors), leading.shape[1]), np.nan, np.float32)
    result[known] = leading / np.where(length > 0, length, 1)
    return result


def embedded(vectors: Vectors) -> Flags:
    """Whether each scan has an embedding; shape (scans,)."""
    there: Flags = ~np.isnan(vectors[:, 0]) if vectors.shape[1] else np.zeros(len(vectors), bool)
    return there


def typicality(vectors: Vectors, rng: np.random.Generator) -> Floats:
    """One over the mean distance to the nearest of a sample (Hacohen et al. 2022); NaN where unknown.

    Args:
        vectors: Embeddings.
        rng: Draws the sample.
    """
    known = np.flatnonzero(embedded(vectors))
    result = np.full(len(vectors), np.nan)
    if len(known) < 2:
        return result
    sample = known if len(known) <= _SAMPLE else rng.choice(known, _SAMPLE, replace=False)
    apart = distances(vectors[known], vectors[sample])
    apart[np.searchsorted(known, sample), np.arange(len(sample))] = np.inf  # none is its own neighbour
    nearest = min(_NEIGHBOURS, len(sample) - 1)
    result[known] = nearest / np.maximum(np.partition(apart, nearest - 1, axis=1)[:, :nearest].sum(axis=1), 1e-9)
    return result


def gap_to(vectors: Vectors, chosen: Indices, places: Indices | None = None) -> Floats:
    """Distance of each scan, or of some, to the nearest chosen one; 2 where there is none, NaN where unknown."""
    rows = vectors if places is None else vectors[places]
    chosen = chosen[embedded(vectors[chosen])]
    chosen = chosen[:: max(1, len(chosen) // _TAKEN)]
    if not len(chosen):
        return np.where(embedded(rows), 2.0, np.nan)
    centres = vectors[chosen].T
    starts = range(0, len(rows), _ROWS)
    return np.concatenate([_apart((rows[n : n + _ROWS] @ centres).max(axis=1)) for n in starts] or [np.empty(0)])


def covering_order(vectors: Vectors, candidates: Indices, gap: Floats, weight: Floats, most: int) -> list[int]:
    """Greedy k-centre (Sener & Savarese 2018): again and again the candidate with the largest weight x gap.

    Args:
        vectors: Embeddings.
        candidates: Places to choose from, all of them known.
        gap: Of each candidate to what is covered already, see :func:`gap_to`.
        weight: Shape (scans,), above 0.
        most: How many to choose.

    Returns:
        Places in the order chosen.
    """
    rows, worth, gap = vectors[candidates], weight[candidates], gap.copy()
    order: list[int] = []
    for _ in range(min(most, len(candidates))):
        best = int(np.argmax(gap * worth))
        order.append(int(candidates[best]))
        gap = np.minimum(gap, _apart(rows @ rows[best]))
        gap[best] = -1
    return order


def distances(a: Vectors, b: Vectors) -> Floats:
    """Distances between rows of unit length, shape (len(a), len(b))."""
    return _apart(a @ b.T)


def _apart(cosine: Vectors) -> Floats:
    return np.sqrt(np.maximum(2 - 2 * cosine, 0)).astype(np.float64)
