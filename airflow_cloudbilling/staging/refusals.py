"""The records of a load that could not be read, or that contradict each other, on their way to the reject table."""

from __future__ import annotations

from collections.abc import Callable

from airflow_cloudbilling.model import Reject

_HELD = 200  # before they are written
_TOLD = 3  # in an error's words


class Refusals:
    """Counts rejects and writes them some at a time.

    :param protect: is told the ids of invoices that came, so that they do not count as withdrawn.
    :param write: keeps rejects.
    :param longest: characters of an id that staging keeps.
    """

    def __init__(
        self, protect: Callable[[list[str]], None], write: Callable[[list[Reject]], None], longest: int
    ) -> None:
        self._protect = protect
        self._write = write
        self._longest = longest
        self._held: list[Reject] = []
        self._first: list[str] = []
        self.number = 0
        self.blind = False  # one has no id: any invoice of the slice may be it

    @property
    def first(self) -> str:
        """Return what is wrong with the first of them."""
        return "; ".join(self._first)

    def add(self, reject: Reject) -> None:
        """Take in a reject."""
        self.number += 1
        if reject.invoice_id is None or len(reject.invoice_id) > self._longest:
            self.blind, reject = True, reject._replace(invoice_id=None)
        else:
            self._protect([reject.invoice_id])
        if len(self._first) < _TOLD:
            name = f"invoice {reject.invoice_id!r}: " if reject.invoice_id else ""
            self._first.append(name + reject.reason)
        self._held.append(reject)
        if len(self._held) >= _HELD:
            self.flush()

    def flush(self) -> None:
        """Write those that are held."""
        held, self._held = self._held, []
        self._write(held)
