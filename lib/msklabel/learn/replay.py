"""Which older samples are shown again beside new ones, so that what was learned before is not forgotten."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np


@dataclass(frozen=True)
class Item:
    """An older sample: where it was made and the labels that occur in it."""

    site: str | None
    classes: frozenset[int]


def replayed(fresh: int, share: float) -> int:
    """How many older samples go with a number of new ones, so that they are at least a share of all.

    Args:
        fresh: New samples.
        share: From 0 to below 1.
    """
    return ceil(fresh * share / (1 - share) - 1e-9)


def balanced(items: Sequence[Item], count: int, rng: np.random.Generator) -> list[int]:
    """Draw samples with replacement: a site, then a class that occurs there, then one of its samples, each evenly.

    So a rare muscle or a small hospital is seen as often as a common one.

    Returns:
        Indices of ``items``; none where there are none.
    """
    by_site: dict[str | None, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
    for index, item in enumerate(items):
        for label in sorted(item.classes) or [0]:
            by_site[item.site][label].append(index)
    sites = sorted(by_site, key=str)
    drawn = []
    for _ in range(count if sites else 0):
        by_class = by_site[sites[int(rng.integers(len(sites)))]]
        classes = sorted(by_class)
        members = by_class[classes[int(rng.integers(len(classes)))]]
        drawn.append(members[int(rng.integers(len(members)))])
    return drawn
