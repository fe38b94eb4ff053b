"""One table over the demos of several systems, from what each has left behind."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.table import Table

from msklabel.errors import NotFound

_COLUMNS = ("system", "seed", "labels", "mean Dice (held-out)", "weakest label", "training (s)", "all (s)", "CPU (s)")


def read_outcomes(folder: Path) -> list[dict[str, Any]]:
    """The outcomes of all demos in a folder, ordered by system.

    Raises:
        NotFound: If there is none.
    """
    outcomes = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(folder.glob("*/demo.json"))]
    if not outcomes:
        raise NotFound(f"{folder}: no demo has been run there; msklabel demo SYSTEM runs one")
    return outcomes


def rows(outcomes: Iterable[dict[str, Any]]) -> list[tuple[str, ...]]:
    """A row of text for each outcome; Dice after each round from fresh weights on, joined by arrows."""
    return [_row(outcome) for outcome in outcomes]


def summary_table(outcomes: Iterable[dict[str, Any]]) -> Table:
    """The rows for a terminal."""
    table = Table(*_COLUMNS, title="Synthetic phantoms: how the software learns, never how good it is on patients")
    for row in rows(outcomes):
        table.add_row(*row)
    return table


def markdown(outcomes: Iterable[dict[str, Any]]) -> str:
    """The rows as a Markdown table."""
    lines = [_COLUMNS, ("---",) * len(_COLUMNS), *rows(outcomes)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _row(outcome: dict[str, Any]) -> tuple[str, ...]:
    rounds = outcome["rounds"]
    weakest = min(rounds[-1]["label_dice"].items(), key=lambda item: item[1])
    return (
        outcome["system"],
        str(outcome["seed"]),
        " → ".join(str(entry["labels"]) for entry in rounds),
        " → ".join(f"{entry['dice']:.2f}" for entry in rounds),
        f"{weakest[0]} {weakest[1]:.2f}",
        f"{sum(entry['training_seconds'] for entry in rounds):.0f}",
        f"{outcome['seconds']:.0f}",
        f"{outcome['cpu_seconds']:.0f}",
    )
