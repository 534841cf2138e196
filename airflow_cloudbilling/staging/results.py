"""How a load ended: what a merge did to its slice, in numbers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from airflow_cloudbilling.model import Slice


@dataclass
class Merged:
    """What a merge did to a slice."""

    new: int = 0
    changed: int = 0
    unchanged: int = 0
    removed: int = 0
    frozen: int = 0
    invoices: int = 0
    lines: int = 0
    documents: int = 0
    totals: dict[str, dict[str, str | None]] = field(default_factory=dict)


class Loaded(NamedTuple):
    """How a load ended: ``committed``, or ``superseded`` by one whose reading began later."""

    slice: Slice
    load_id: str
    status: str
    merged: Merged
    received: int
    outside: int
    rejected: int

    def as_dict(self) -> dict[str, Any]:
        """Return plain, small data for XCom and asset events; money as text."""
        own = {**self.slice._asdict(), "period": str(self.slice.period), "load_id": self.load_id, "status": self.status}
        return {
            **own,
            "received": self.received,
            "outside": self.outside,
            "rejected": self.rejected,
            **vars(self.merged),
        }
