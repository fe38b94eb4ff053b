"""What each strategy of a simulation asks to be drawn next: so many slices, whatever the strategy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from msklabel.choose.diversity import typicality, unit_rows
from msklabel.choose.pool import Opinion, Pool
from msklabel.choose.simulate.judge import Judged
from msklabel.choose.simulate.scans import Case, Drawn
from msklabel.choose.slices import share_left, slice_weights, spread
from msklabel.choose.strategies import STRATEGIES
from msklabel.system import System

Query = list[tuple[int, int]]
_GROUPS = 8


@dataclass(frozen=True)
class State:
    """What a strategy may look at.

    Attributes:
        system: The system.
        cases: The pool.
        judged: The model's word on each case.
        drawn: What is drawn already.
        round: From 1.
        rounds: How many there will be.
        count: Slices to ask for.
        per_scan: Slices of one scan, where a strategy chooses scans first.
    """

    system: System
    cases: Sequence[Case]
    judged: Sequence[Judged]
    drawn: Drawn
    round: int
    rounds: int
    count: int
    per_scan: int

    @property
    def free(self) -> Query:
        """All slices that are not drawn."""
        drawn = self.drawn
        return [(s, z) for s, case in enumerate(self.cases) for z in range(case.slices) if z not in drawn.get(s, ())]


Strategy = Callable[[State, np.random.Generator], Query]


def random(state: State, rng: np.random.Generator) -> Query:
    """Any slices."""
    return _pick(state.free, rng.permutation(len(state.free)), state.count)


def strided(state: State, rng: np.random.Generator) -> Query:
    """Evenly spread slices of scans by chance."""
    scans = rng.permutation(len(state.cases))
    return _of_scans(state, scans, lambda s: np.ones(state.cases[s].slices))


def predicted_foreground(state: State, rng: np.random.Generator) -> Query:
    """A label by chance, then a slice by chance in which the model sees it."""
    return _by_label(state, [judged.area for judged in state.judged], rng)


def oracle_foreground(state: State, rng: np.random.Generator) -> Query:
    """The same with the true labels, which nobody has: an oracle (nnActive's foreground-aware random)."""
    labels = range(1, state.system.classes)
    return _by_label(state, [np.array([(c.labels == i).sum(axis=(0, 1)) for i in labels]) for c in state.cases], rng)


def predictive_entropy(state: State, rng: np.random.Generator) -> Query:
    """The slices with the largest mean predictive entropy."""
    return _largest(state, [judged.entropy for judged in state.judged])


def bald(state: State, rng: np.random.Generator) -> Query:
    """The slices with the largest mean mutual information."""
    return _largest(state, [judged.information for judged in state.judged])


def stochastic_batches(state: State, rng: np.random.Generator) -> Query:
    """Of random groups of slices the one with the largest mean entropy (arXiv 2301.07670)."""
    free = state.free
    values = np.array([state.judged[s].entropy[z] for s, z in free])
    order = rng.permutation(len(free))
    groups = [order[k : k + state.count] for k in range(0, len(free) - state.count + 1, state.count)][:_GROUPS]
    best = max(groups or [order], key=lambda group: float(values[group].mean()))
    return _pick(free, best, state.count)


def epistemic(state: State, rng: np.random.Generator) -> Query:
    """MONAI Label's: scans with the largest variance of the members over the whole volume; their slices strided."""
    scans = np.argsort([-judged.variance for judged in state.judged], kind="stable")
    return _of_scans(state, scans, lambda s: np.ones(state.cases[s].slices))


def auto(state: State, rng: np.random.Generator) -> Query:
    """The server's own: scans by its strategy of this name, one after the other, their slices uncertain and spread.

    As there, a scan comes again once a model has learned from the slices that were drawn before, which is in the next
    query.
    """
    pool = _pool(state)
    labels = list(state.system.labels)
    query: Query = []
    while len(query) < state.count and pool.open.any():
        ranking = STRATEGIES["auto"](pool, {"rounds": state.rounds}, rng)
        scan = int(ranking.places[0])
        weights = _weights(state, scan, labels.index(ranking.label) if ranking.label else None)
        count = min(state.per_scan, state.count - len(query))
        query += [(scan, z) for z in spread(weights, count, sorted(_drawn(state, query, scan)))]
        taken, open_scans = pool.taken.copy(), pool.open.copy()
        taken[scan], open_scans[scan] = True, False
        if not open_scans.any():  # more slices are asked for than each scan gives at once: go round again
            open_scans = np.array([len(_drawn(state, query, s)) < case.slices for s, case in enumerate(state.cases)])
        pool = replace(pool, taken=taken, open=open_scans, choices=(pool.choices or 0) + 1)
    return query


QUERIES: dict[str, Strategy] = {
    "random": random,
    "strided": strided,
    "predicted_foreground": predicted_foreground,
    "oracle_foreground": oracle_foreground,
    "predictive_entropy": predictive_entropy,
    "bald": bald,
    "stochastic_batches": stochastic_batches,
    "epistemic": epistemic,
    "auto": auto,
}


def first_slices(cases: Sequence[Case], scans: int, per_scan: int, seed: int) -> Drawn:
    """The start of every strategy of a seed: strided slices of scans of different patients."""
    order = np.random.default_rng([seed, 3]).permutation(len(cases))
    chosen: list[int] = []
    for scan in order.tolist():
        if len(chosen) < scans and cases[scan].patient not in {cases[other].patient for other in chosen}:
            chosen.append(scan)
    return {s: set(spread(np.ones(cases[s].slices), per_scan)) for s in chosen}


def _of_scans(state: State, scans: NDArray[np.intp], weights: Callable[[int], NDArray[np.float64]]) -> Query:
    """Spread slices of scans in an order, untouched ones first."""
    query: Query = []
    order = sorted(scans.tolist(), key=lambda s: s in state.drawn)
    while len(query) < state.count and order:
        scan = order.pop(0)
        drawn = _drawn(state, query, scan)
        count = min(state.per_scan, state.count - len(query))
        query += [(scan, z) for z in spread(weights(scan), count, sorted(drawn))]
        if len(drawn) + count < state.cases[scan].slices:
            order.append(scan)
    return query


def _by_label(state: State, areas: Sequence[NDArray[np.int64]], rng: np.random.Generator) -> Query:
    free = set(state.free)
    query: Query = []
    while len(query) < state.count and free:
        label = int(rng.integers(state.system.classes - 1))
        having = sorted((s, z) for s, z in free if areas[s][label, z]) or sorted(free)
        query.append(having[int(rng.integers(len(having)))])
        free.discard(query[-1])
    return query


def _largest(state: State, values: Sequence[NDArray[np.float64]]) -> Query:
    return sorted(state.free, key=lambda place: (-float(values[place[0]][place[1]]), place))[: state.count]


def _pick(free: Query, order: NDArray[np.intp], count: int) -> Query:
    return [free[i] for i in order[:count]]


def _drawn(state: State, query: Query, scan: int) -> set[int]:
    return state.drawn.get(scan, set()) | {z for s, z in query if s == scan}


def _weights(state: State, scan: int, label: int | None) -> NDArray[np.float64]:
    summary = state.judged[scan].summary
    weights = slice_weights(summary, label)[np.arange(state.cases[scan].slices) // summary.slices.step]
    return weights / weights.sum()


def _pool(state: State) -> Pool:
    """The table that the server would have."""
    summaries = [judged.summary for judged in state.judged]
    vectors = unit_rows(np.stack([summary.embedding for summary in summaries]).astype(float))
    patients = np.unique([case.patient for case in state.cases], return_inverse=True)[1]
    sites, site = np.unique([case.site for case in state.cases], return_inverse=True)
    drawn = [sorted(state.drawn.get(s, ())) for s in range(len(state.cases))]
    seen = [case.labels[:, :, slices] for case, slices in zip(state.cases, drawn, strict=True)]
    having = np.array([np.isin(np.arange(1, state.system.classes), part) for part in seen])
    worth = [*range(len(state.system.labels)), None]
    left = np.array(
        [[share_left(_weights(state, s, i), state.per_scan, d) for i in worth] for s, d in enumerate(drawn)]
    )
    open_scans = np.array([len(slices) < case.slices for case, slices in zip(state.cases, drawn, strict=True)])
    opinion = Opinion(
        system=state.system.name,
        labels=tuple(state.system.labels),
        entropy=np.stack([summary.class_entropy for summary in summaries]),
        area=np.stack([summary.area_cm2.sum(axis=1) for summary in summaries]),
        predicted_dice=np.array([summary.values.get("predicted_dice", np.nan) for summary in summaries]),
        embedding=vectors,
        typicality=typicality(vectors, np.random.default_rng(0)),
        fresh=np.ones(len(summaries), bool),
        broken=np.array([not summary.finite for summary in summaries]),
        round=state.round,
    )
    return Pool(
        ids=[case.id for case in state.cases],
        patient=patients,
        site=site,
        taken=np.array([bool(slices) for slices in drawn]),
        open=open_scans,
        own=np.zeros(len(drawn), bool),
        opinions={state.system.name: opinion},
        fits={state.system.name: np.ones(len(drawn), bool)},
        site_names=[str(name) for name in sites],
        having={state.system.name: having},
        left={state.system.name: lambda: left},
        choices=sum(map(len, drawn)) // state.per_scan,
    )
