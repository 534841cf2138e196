"""An invoice's totals: as stated, else summed up exactly from its lines as they pass."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import NamedTuple

from airflow_cloudbilling.errors import RecordError
from airflow_cloudbilling.exact import canonical, exact_difference, exact_sum

_MOST_WAITING = 20  # batches of lines


class Totals(NamedTuple):
    """Net, tax and gross amount as canonical text, and where they come from (stated, computed or none)."""

    net: str | None
    tax: str | None
    gross: str | None
    origin: str


class RunningSum:
    """The sums of one invoice's lines; a line is forgotten when it has been added."""

    def __init__(self) -> None:
        self.lines = 0
        self._waiting: list[tuple[Sequence[str | None], Sequence[str | None]]] = []  # till it is known that sums matter
        self._net: Decimal | None = None
        self._tax: Decimal | None = None
        self._without_net = 0

    def add(self, nets: Sequence[str | None], taxes: Sequence[str | None]) -> None:
        """Count lines with their canonical amounts; a line without tax adds none."""
        self.lines += len(nets)
        self._waiting.append((nets, taxes))
        if len(self._waiting) >= _MOST_WAITING:
            self._add_up()

    def _add_up(self) -> None:
        for nets, taxes in self._waiting:
            self._without_net += nets.count(None)
            self._net, self._tax = _plus(self._net, nets), _plus(self._tax, taxes)
        self._waiting.clear()

    def complete(self, net: str | None, tax: str | None, gross: str | None) -> Totals:
        """Return the stated totals, with what is missing worked out: from each other first, else from the lines.

        :raises RecordError: when a line lacks the amount that is needed, or a sum has more digits than can be staged.
        """
        if net and tax and gross:
            return Totals(net, tax, gross, "stated")
        if not self.lines and not (net or tax or gross):
            return Totals(None, None, None, "none")
        self._add_up()
        try:
            found = self._computed(net, tax, gross)
        except ValueError as error:
            raise RecordError(f"the sum of the lines cannot be staged: {error}") from None
        return Totals(*found, "stated" if found == (net, tax, gross) else "computed")

    def _computed(
        self, net: str | None, tax: str | None, gross: str | None
    ) -> tuple[str | None, str | None, str | None]:
        if net is None:
            net = _text(minus(gross, tax) if gross and tax else self._lines_net() if self.lines else None)
        if tax is None:
            tax = _text(minus(gross, net) if gross and net else self._tax)
        if gross is None and tax is not None:
            gross = canonical(exact_sum(Decimal(net or 0), Decimal(tax)))
        return net, tax, gross

    def _lines_net(self) -> Decimal | None:
        if self._without_net:
            raise RecordError(
                f"field net_amount: the invoice states no totals, and {self._without_net} of {self.lines} lines have no"
                " net amount to compute them from"
            )
        return self._net


def _plus(total: Decimal | None, amounts: Sequence[str | None]) -> Decimal | None:
    known = [Decimal(amount) for amount in amounts if amount is not None]
    return exact_sum(total or Decimal(0), *known) if known else total


def minus(whole: str, part: str | None) -> Decimal:
    """Return an amount less a part of it, which may be none."""
    return exact_difference(Decimal(whole), Decimal(part or 0))


def _text(amount: Decimal | None) -> str | None:
    return None if amount is None else canonical(amount)
