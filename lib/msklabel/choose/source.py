"""A store as the source of facts."""

from __future__ import annotations

from collections.abc import Sequence

from msklabel.choose.facts import ImageFacts
from msklabel.store.core import Store
from msklabel.store.scores import ScoreRow


class StoreSource:
    """What choosing asks of a store.

    Args:
        store: Images, labels, scores.
    """

    def __init__(self, store: Store) -> None:
        self.store = store

    def image_facts(self) -> list[ImageFacts]:
        """All scans that are there, by id."""
        return [ImageFacts(*facts) for facts in self.store.image_facts()]

    def image_stamp(self) -> object:
        """Changes when an image came or went."""
        return self.store.images.stamp()

    def scores_since(self, system: str, row_id: int, most: int) -> Sequence[ScoreRow]:
        """Scores that came after one, oldest first."""
        return self.store.scores.since(system, row_id, most)
