"""Strategies: from a pool to the order in which its open scans are worth annotating. Pure functions.

The references are in the functions; what they share is done here: a scan of a patient who has none yet comes before a
second one of another, scans whose prediction is no number come last, and what a model did not judge is served by the
cold-start order, in between the judged ones, never behind them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from msklabel.choose.diversity import covering_order, embedded, gap_to
from msklabel.choose.order import by_score, merged, patients_apart, sites_in_turn
from msklabel.choose.pool import Flags, Floats, Indices, Opinion, Pool, Vectors, row_mean

_COVER = 8  # places that are chosen one by one for coverage; behind them the gap to what is taken decides
_LEAST = 1e-6
_UNJUDGED = "not judged yet: cold-start order"
FIRST_BETA = 10.0
LAST_BETA = 100.0


@dataclass(frozen=True)
class Ranking:
    """An order of open scans.

    Attributes:
        places: Places in the pool, the most wanted first.
        score: Shape (scans,): what the order follows, by place; larger is more wanted, NaN where not known.
        reason: Why, for a place.
        label: The label whose turn it is, where one label decides.
        system: The system whose turn it is, where one system decides.
    """

    places: Indices
    score: Floats
    reason: Callable[[int], str]
    label: str | None = None
    system: str | None = None


Strategy = Callable[[Pool, Mapping[str, Any], np.random.Generator], Ranking]


def random(pool: Pool, options: Mapping[str, Any], rng: np.random.Generator) -> Ranking:
    """By chance."""
    order = rng.permutation(pool.candidates)
    return Ranking(patients_apart(pool, order), np.full(len(pool), np.nan), lambda _: "by chance")


def first(pool: Pool, options: Mapping[str, Any], rng: np.random.Generator) -> Ranking:
    """By name."""
    return Ranking(patients_apart(pool, pool.candidates), np.full(len(pool), np.nan), lambda _: "the first by name")


def cold_start(pool: Pool, options: Mapping[str, Any], rng: np.random.Generator) -> Ranking:
    """Typical and unlike what is taken (after Hacohen et al. 2022, TypiClust), before any model is good."""
    vectors, weight = _embedding(pool)
    known = pool.candidates[~np.isnan(weight[pool.candidates])]
    gap = gap_to(vectors, np.flatnonzero(pool.taken))
    score = weight * gap
    near = covering_order(vectors, known, gap[known], weight, _COVER)
    rest = by_score(score, np.setdiff1d(known, near))
    unknown = rng.permutation(np.setdiff1d(pool.candidates, known))
    order = merged(np.array([*near, *rest], int), unknown)
    return Ranking(
        sites_in_turn(pool, patients_apart(pool, order)),
        score,
        lambda i: "typical of the scans left and unlike those taken" if score[i] == score[i] else "not looked at yet",
    )


def uncertain(pool: Pool, options: Mapping[str, Any], rng: np.random.Generator) -> Ranking:
    """The largest class-balanced entropy of the foreground."""
    score = _mean_of(pool, lambda opinion: opinion.uncertainty)
    return _judged_first(pool, score, options, rng, lambda i: f"mean entropy {score[i]:.3f} over its labels")


def failure(pool: Pool, options: Mapping[str, Any], rng: np.random.Generator) -> Ranking:
    """The lowest Dice that is predicted from the members' agreement (Kahl et al. 2024)."""
    score = 1 - _mean_of(pool, lambda opinion: opinion.predicted_dice)
    return _judged_first(pool, score, options, rng, lambda i: f"predicted Dice {1 - score[i]:.3f}")


def diverse(pool: Pool, options: Mapping[str, Any], rng: np.random.Generator) -> Ranking:
    """The farthest from all that is taken (k-centre, Sener & Savarese 2018)."""
    vectors, _ = _embedding(pool)
    taken = np.flatnonzero(pool.taken)
    known = pool.candidates[embedded(vectors)[pool.candidates]]
    score = gap_to(vectors, taken)
    near = covering_order(vectors, known, score[known], np.ones(len(pool)), _COVER)
    rest = by_score(score, np.setdiff1d(known, near))
    unknown = rng.permutation(np.setdiff1d(pool.candidates, known))
    order = merged(np.array([*near, *rest], int), unknown)
    return Ranking(
        patients_apart(pool, order),
        score,
        lambda i: f"{score[i]:.2f} from the nearest that is taken" if score[i] == score[i] else "not looked at yet",
    )


def batch(pool: Pool, options: Mapping[str, Any], rng: np.random.Generator) -> Ranking:
    """The most uncertain of many random groups (Gaillochet et al. 2023, stochastic batches), spread within."""
    score = _mean_of(pool, lambda opinion: opinion.uncertainty)
    judged = pool.candidates[~np.isnan(score[pool.candidates])]
    size = max(1, int(options.get("batch", 8)))
    if len(judged) > size:
        judged = rng.permutation(judged)
        count = len(judged) // size
        group = np.arange(len(judged)) % count
        mean = np.bincount(group, score[judged]) / np.bincount(group)
        order = np.lexsort((-score[judged], group, -mean[group]))
        judged, group = judged[order], group[order]
        best = judged[group == group[0]]
        vectors, _ = _embedding(pool)
        if embedded(vectors[best]).all():
            gap = gap_to(vectors, np.flatnonzero(pool.taken), best)
            judged[: len(best)] = covering_order(vectors, best, gap, score + _LEAST, len(best))
    order = _with_unjudged(pool, judged, options, rng)

    def reason(i: int) -> str:
        if np.isnan(score[i]):
            return _UNJUDGED
        return f"in the most uncertain of random groups of {size}, entropy {score[i]:.3f}"

    return Ranking(order, score, reason)


def auto(pool: Pool, options: Mapping[str, Any], rng: np.random.Generator) -> Ranking:
    """Cold start while nothing is judged; then class-balanced entropy with noise that fades, sites in turn.

    Of three scans one goes to the label that the fewest labelled scans have, one to the labels in turn and one to the
    mean over all labels. What is worth drawing in a scan counts as far as it is not drawn yet. The order follows
    log(score) + Gumbel noise / beta, beta rising from 10 to 100 over the rounds (after ClaSP PE, arXiv 2601.13677),
    which is a draw in proportion to score ** beta. Systems take turns; scans that are none of the system in turn come
    behind.
    """
    judging = sorted(name for name, opinion in pool.opinions.items() if bool(opinion.scored[pool.open].any()))
    if not judging:
        start = cold_start(pool, options, rng)
        return Ranking(start.places, start.score, lambda i: f"no model has judged it: {start.reason(i)}")
    before = int(pool.taken.sum()) if pool.choices is None else pool.choices
    system = judging[before % len(judging)]
    opinion = pool.opinions[system]
    label = _label_in_turn(pool, opinion, before // len(judging))
    score = opinion.uncertainty if label is None else _class_score(pool, opinion, label)
    left = pool.left[system]()[:, -1 if label is None else label] if system in pool.left else np.ones(len(pool))
    score = np.where(opinion.scored, score * left, np.nan)
    beta = beta_of(opinion.round, int(options.get("rounds", 10)))
    noisy = np.log(np.maximum(score, _LEAST)) + rng.gumbel(size=len(pool)) / beta
    judged = pool.candidates[~np.isnan(score[pool.candidates])]
    competing = pool.open & (left > 0)  # a scan of which slices are drawn does so by what is left
    others = replace(pool, taken=pool.taken & ~competing)
    fits = pool.fits.get(system, np.ones(len(pool), bool))
    own = replace(others, open=pool.open & fits)
    order = sites_in_turn(own, _with_unjudged(own, by_score(noisy, judged), options, rng))
    foreign = replace(others, open=pool.open & ~fits)  # of other systems, whose turns are others
    if foreign.open.any():
        order = np.concatenate([order, uncertain(foreign, options, rng).places])
    what = f"doubt about {opinion.labels[label]}" if label is not None else "mean entropy over the labels"

    def reason(i: int) -> str:
        if not fits[i]:
            return f"for another system than {system}, whose turn it is"
        if np.isnan(score[i]):
            return "not judged yet"
        if left[i] == 0:
            return f"some slices are drawn, from which the model has not learned yet ({system})"
        drawn = f", {left[i]:.0%} of it not drawn yet" if left[i] < 1 else ""
        return f"{what} {score[i]:.3f}{drawn} ({system}, certainty {beta:.3g})"

    return Ranking(
        order,
        score,
        reason,
        None if label is None else opinion.labels[label],
        system,
    )


STRATEGIES: dict[str, Strategy] = {
    "auto": auto,
    "random": random,
    "first": first,
    "cold_start": cold_start,
    "uncertain": uncertain,
    "failure": failure,
    "diverse": diverse,
    "batch": batch,
}


def beta_of(number: int, rounds: int) -> float:
    """How certain the choice follows the score in a round, from 10 in the first to 100 in the last and later ones.

    Among patches of a pool, which is what ClaSP PE chooses from, 1 is enough to begin with: they differ by orders of
    magnitude. Scans differ by little, and 1 would be hardly more than chance.
    """
    share = min(1.0, max(0, number - 1) / max(1, rounds - 1))
    return FIRST_BETA * (LAST_BETA / FIRST_BETA) ** share


def _judged_first(
    pool: Pool, score: Floats, options: Mapping[str, Any], rng: np.random.Generator, reason: Callable[[int], str]
) -> Ranking:
    judged = pool.candidates[~np.isnan(score[pool.candidates])]
    order = _with_unjudged(pool, by_score(score, judged), options, rng)
    return Ranking(order, score, lambda i: reason(i) if score[i] == score[i] else _UNJUDGED)


def _with_unjudged(pool: Pool, judged: Indices, options: Mapping[str, Any], rng: np.random.Generator) -> Indices:
    """Put scans that no model judged in between, by cold start, and those with a broken prediction behind."""
    broken = _broken(pool)
    judged = judged[~broken[judged]]
    rest = np.setdiff1d(pool.candidates, judged)
    if not len(rest):
        return patients_apart(pool, judged)
    start = cold_start(pool, options, rng).places if len(rest) > broken[rest].sum() else rest
    start = start[np.isin(start, rest)]
    order = patients_apart(pool, merged(judged, start[~broken[start]]))
    return np.concatenate([order, rest[broken[rest]]]).astype(int)


def _broken(pool: Pool) -> Flags:
    flags: Flags = np.zeros(len(pool), bool)
    for opinion in pool.opinions.values():
        flags |= opinion.broken
    return flags


def _mean_of(pool: Pool, value: Callable[[Opinion], Floats]) -> Floats:
    """Mean over systems, NaN where none judged."""
    if not pool.opinions:
        return np.full(len(pool), np.nan)
    columns = [np.where(opinion.scored, value(opinion), np.nan) for opinion in pool.opinions.values()]
    return row_mean(np.stack(columns, axis=1))


def _embedding(pool: Pool) -> tuple[Vectors, Floats]:
    """Embeddings and typicality of each scan, by the system that knows most scans of those that know it.

    What systems say cannot be compared: the scans of one are at right angles to those of another.
    """
    known = {name: ~np.isnan(opinion.typicality) for name, opinion in pool.opinions.items()}
    weight, parts = np.full(len(pool), np.nan), []
    for name in sorted(known, key=lambda name: (known[name].sum(), name), reverse=True):
        own = known[name] & np.isnan(weight)
        if own.any():
            weight[own] = pool.opinions[name].typicality[own]
            parts.append((own, pool.opinions[name].embedding))
    vectors = np.full((len(pool), sum(embedding.shape[1] for _, embedding in parts)), np.nan, np.float32)
    vectors[~np.isnan(weight)] = 0
    start = 0
    for own, embedding in parts:
        vectors[own, start : start + embedding.shape[1]] = embedding[own]
        start += embedding.shape[1]
    return vectors, weight


def _label_in_turn(pool: Pool, opinion: Opinion, turn: int) -> int | None:
    """One of three turns goes to the label that the fewest labelled scans have, one to each in turn, one to none."""
    expected = np.flatnonzero((opinion.area[pool.open & opinion.scored] > 0).any(axis=0))
    if turn % 3 == 2 or not len(expected):
        return None
    if turn % 3 == 0 and opinion.system in pool.having:
        labelled = pool.having[opinion.system].sum(axis=0)[expected]
        expected = expected[labelled == labelled.min()]
    return int(expected[turn // 3 % len(expected)])


def _class_score(pool: Pool, opinion: Opinion, label: int) -> Floats:
    """Entropy of a label, times how much of it a scan has against what is usual, at most 1.

    What is usual is the median over the scans that are labelled and have the label, else the largest there is. So a
    rare label is sought where it is likely, also where no voxel is predicted to be of it; beyond the usual, size does
    not count.
    """
    entropy, area = opinion.entropy[:, label], opinion.area[:, label]
    expected = opinion.scored & (area > 0)
    if not expected.any():
        return np.full(len(area), np.nan)
    having = pool.having.get(opinion.system)
    known = expected & having[:, label] if having is not None else np.zeros_like(expected)
    usual = np.median(area[known]) if known.any() else area[expected].max()
    share = np.minimum(1, area / usual)
    return np.where(expected, share * np.where(np.isnan(entropy), 1, entropy), np.nan)
