"""When to train without being asked: computed from what is stored, so that a restart forgets nothing."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from msklabel.errors import UserError


@dataclass(frozen=True)
class Policy:
    """How much is waited for.

    Attributes:
        labels: So many new labels start a training.
        minutes: After so many minutes any new label does.
    """

    labels: int = 10
    minutes: float = 60.0

    def __post_init__(self) -> None:
        if self.labels < 1 or self.minutes <= 0:
            raise UserError(f"training policy: expected labels from 1 and minutes above 0, got {self}")


def parse_policy(text: str) -> Policy:
    """Read ``LABELS,MINUTES``, such as ``10,60``.

    Raises:
        UserError: If it is not that.
    """
    parts = text.split(",")
    try:
        labels, minutes = int(parts[0]), float(parts[1])
    except (ValueError, IndexError):
        raise UserError(f"training policy {text!r}: expected LABELS,MINUTES, such as 10,60") from None
    return Policy(labels, minutes)


def due(
    labels: Mapping[str, float], considered: Collection[str], tried: Collection[str], now_s: float, policy: Policy
) -> str:
    """Why to train now; empty for no reason.

    Args:
        labels: For each label that counts, by checksum, when it was stored, in seconds since 1970.
        considered: Labels that the newest version was made from, validated with or held back.
        tried: Labels of a training that failed or was stopped by hand; the same ones are not tried again.
        now_s: The time.
        policy: How much is waited for.
    """
    new = {label: stored for label, stored in labels.items() if label not in considered}
    if not new or set(labels) <= set(tried):
        return ""
    if len(new) >= policy.labels:
        return f"{len(new)} new labels"
    minutes = max(abs(now_s - stored) for stored in new.values()) / 60  # the clock may have been set back
    if minutes >= policy.minutes:
        return f"{len(new)} new label(s), the first {minutes:.0f} minutes old"
    return ""
