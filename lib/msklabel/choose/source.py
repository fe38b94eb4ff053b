"""A store as the source of facts."""

from __future__ import annotations

from collections.abc import Sequence

from msklabel.store.core import Store
from msklabel.store.fit import ChangedImage
from msklabel.store.scores import ScoreRow


class StoreSource:
    """What choosing asks of a store.

    Args:
        store: Images, labels, scores.
    """

    def __init__(self, store: Store) -> None:
        self.store = store

    def images_since(self, instant: int) -> list[ChangedImage]:
        """What is known of the scans that came, went or changed after an instant."""
        return self.store.changed_images(instant)

    def changes_between(self, first: int, last: int) -> tuple[int, int]:
        """How many scans did last after one instant and until another, and the sum of the times since the first."""
        return self.store.images.changes_between(first, last)

    def scores_since(self, system: str, row_id: int, most: int) -> Sequence[ScoreRow]:
        """Scores that came after one, oldest first."""
        return self.store.scores.since(system, row_id, most)
