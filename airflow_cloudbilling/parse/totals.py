"""An invoice's totals: as stated, else summed up exactly from its lines as they pass."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import NamedTuple

from airflow_cloudbilling.errors import RecordError
from airflow_cloudbilling.exact import canonical, exact_sum


class Totals(NamedTuple):
    """Net, tax and gross amount as canonical text, and where they come from (stated, computed or none)."""

    net: str | None
    tax: str | None
    gross: str | None
    origin: str


class _Sum:
    """An exact sum that adds up a batch at a time, which is several times faster."""

    def __init__(self) -> None:
        self.any = False
        self._total = Decimal(0)
        self._batch: list[str] = []

    def add(self, amounts: list[str]) -> None:
        self.any = True
        self._batch += amounts
        if len(self._batch) >= 1000:
            self.total()

    def total(self) -> Decimal:
        self._total = exact_sum(self._total, *map(Decimal, self._batch))
        self._batch.clear()
        return self._total


class RunningSum:
    """The sums of one invoice's lines; a line is forgotten when it has been added."""

    def __init__(self) -> None:
        self.lines = 0
        self._nets = _Sum()
        self._taxes = _Sum()
        self._without_net = 0

    def add(self, nets: Sequence[str | None], taxes: Sequence[str | None]) -> None:
        """Count lines with their canonical amounts; a line without tax adds none."""
        self.lines += len(nets)
        self._without_net += nets.count(None)
        for total, amounts in ((self._nets, nets), (self._taxes, taxes)):
            if known := [amount for amount in amounts if amount is not None]:
                total.add(known)

    def complete(self, net: str | None, tax: str | None, gross: str | None) -> Totals:
        """Return the stated totals, with what is missing worked out: from each other first, else from the lines.

        :raises RecordError: when a line lacks the amount that is needed, or a sum has more digits than can be staged.
        """
        if net and tax and gross:
            return Totals(net, tax, gross, "stated")
        if not self.lines and not (net or tax or gross):
            return Totals(None, None, None, "none")
        try:
            found = self._computed(net, tax, gross)
        except ValueError as error:
            raise RecordError(f"the sum of the lines cannot be staged: {error}") from None
        return Totals(*found, "stated" if found == (net, tax, gross) else "computed")

    def _computed(
        self, net: str | None, tax: str | None, gross: str | None
    ) -> tuple[str | None, str | None, str | None]:
        if net is None:
            net = _text(_minus(gross, tax) if gross and tax else self._lines_net() if self.lines else None)
        if tax is None:
            tax = _text(_minus(gross, net) if gross and net else self._taxes.total() if self._taxes.any else None)
        if gross is None and tax is not None:
            gross = canonical(exact_sum(Decimal(net or 0), Decimal(tax)))
        return net, tax, gross

    def _lines_net(self) -> Decimal:
        if self._without_net:
            raise RecordError(
                f"field net_amount: the invoice states no totals, and {self._without_net} of {self.lines} lines have no"
                " net amount to compute them from"
            )
        return self._nets.total()


def _minus(whole: str, part: str | None) -> Decimal:
    return exact_sum(Decimal(whole), Decimal(part or 0).copy_negate())  # a minus sign would round to 28 digits


def _text(amount: Decimal | None) -> str | None:
    return None if amount is None else canonical(amount)
