"""Orders of scans: by score, two in one, patients apart, sites in turn."""

from __future__ import annotations

import numpy as np

from msklabel.choose.pool import Floats, Indices, Pool


def by_score(score: Floats, places: Indices) -> Indices:
    """Places with the largest score first; equal ones stay in order."""
    return places[np.argsort(-score[places], kind="stable")]


def merged(a: Indices, b: Indices) -> Indices:
    """Two orders in one, each spread evenly, so that neither waits for the other's end."""
    places = np.concatenate([a, b]).astype(int)
    rank = np.concatenate([(np.arange(len(part)) + 0.5) / max(1, len(part)) for part in (a, b)])
    return places[np.argsort(rank, kind="stable")]


def patients_apart(pool: Pool, order: Indices) -> Indices:
    """The same order, with second scans of a patient behind all first ones."""
    if not len(order):
        return order
    second = np.ones(len(order), bool)
    second[np.unique(pool.patient[order], return_index=True)[1]] = False
    return order[np.argsort(second | pool.patients_taken[order], kind="stable")]


def sites_in_turn(pool: Pool, order: Indices) -> Indices:
    """The same order within each site, the site with the fewest scans taken first; patients stay apart."""
    if not len(order):
        return order
    counts = pool.site_counts
    sites = pool.site[order]
    level = np.empty(len(order), int)
    for site in np.unique(sites):
        own = np.flatnonzero(sites == site)
        level[own] = counts[site] + np.arange(len(own))
    later = np.ones(len(order), bool)
    later[np.unique(pool.patient[order], return_index=True)[1]] = False
    return order[np.lexsort((np.arange(len(order)), level, later | pool.patients_taken[order]))]
