"""Which patients train and which validate: decided once, and kept."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import insert, select
from sqlalchemy.orm import Mapped, mapped_column

from msklabel.store.database import Database
from msklabel.store.schema import Base, now

ROLES = ("train", "validation")


class Split(Base):
    """The role of a patient in the training of a system; rows are only added."""

    __tablename__ = "split"

    system: Mapped[str] = mapped_column(primary_key=True)
    patient: Mapped[str] = mapped_column(primary_key=True)
    role: Mapped[str]
    decided: Mapped[datetime] = mapped_column(default=now)


class Splits:
    """Roles of all patients.

    Args:
        database: Where they are recorded.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def roles(self, system: str) -> dict[str, str]:
        """Role of each patient for which it is decided."""
        with self._database.read() as session:
            return {row.patient: row.role for row in session.scalars(select(Split).filter_by(system=system))}

    def assign(self, system: str, roles: Mapping[str, str]) -> dict[str, str]:
        """Decide the role of patients; a decision that was made before holds, by whichever process.

        Args:
            system: Name of the system.
            roles: ``train`` or ``validation`` for each patient.

        Returns:
            The role that holds of each of these patients.

        Raises:
            ValueError: If a role is none of the two.
        """
        if wrong := sorted(set(roles.values()) - set(ROLES)):
            raise ValueError(f"role {wrong[0]!r}: expected one of {', '.join(ROLES)}")
        with self._database.write() as session:
            known = {row.patient: row.role for row in session.scalars(select(Split).filter_by(system=system))}
            new = [
                {"system": system, "patient": patient, "role": role}
                for patient, role in roles.items()
                if patient not in known
            ]
            if new:
                session.execute(insert(Split), new)
        return {patient: known.get(patient, role) for patient, role in roles.items()}
