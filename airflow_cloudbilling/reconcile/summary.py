"""A month in numbers: what each vendor's invoices come to by kind and currency, and how many findings there are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import NamedTuple

from airflow_cloudbilling.exact import exact_sum
from airflow_cloudbilling.model import Period
from airflow_cloudbilling.reconcile.arithmetic import Head
from airflow_cloudbilling.reconcile.closes import Close
from airflow_cloudbilling.reconcile.findings import OpenFinding
from airflow_cloudbilling.staging.columns import TOTALS

SHOWN = 10  # findings named in a log or a question


class Sum(NamedTuple):
    """What a vendor's invoices of one kind and currency come to; an amount that nobody stated is None.

    :param frozen: how many of them are posted already, or on their way.
    """

    invoices: int = 0
    lines: int = 0
    frozen: int = 0
    net: Decimal | None = None
    tax: Decimal | None = None
    gross: Decimal | None = None


class Sums:
    """Adds invoices up by provider, kind and currency, to the last digit."""

    def __init__(self) -> None:
        self.by: dict[tuple[str, str, str], Sum] = {}

    def add(self, head: Head) -> None:
        """Take in an invoice."""
        key = head.provider, head.kind, head.currency or ""
        had = self.by.get(key, Sum())
        amounts = (_plus(getattr(had, name), getattr(head, column)) for name, column in TOTALS.items())
        self.by[key] = Sum(had.invoices + 1, had.lines + head.line_count, had.frozen + bool(head.frozen), *amounts)

    def totals(self) -> dict[str, dict[str, str | None]]:
        """Return net, tax and gross by currency, as canonical text."""
        found: dict[str, dict[str, Decimal | None]] = {}
        for (_, _, currency), one in self.by.items():
            of_currency = found.setdefault(currency, dict.fromkeys(TOTALS))
            for name in TOTALS:
                of_currency[name] = _plus(of_currency[name], getattr(one, name))
        return {
            currency: {name: None if a is None else plain(a) for name, a in amounts.items()}
            for currency, amounts in sorted(found.items())
            if currency and any(a is not None for a in amounts.values())
        }


class Summary(NamedTuple):
    """A reconciled month.

    :param sums: by provider, kind and currency.
    :param counts: open findings by severity and rule.
    :param first: the first of them.
    """

    period: Period
    close: Close
    sums: Mapping[tuple[str, str, str], Sum]
    counts: Mapping[tuple[str, str], int]
    first: Sequence[OpenFinding]

    def found(self, severity: str) -> int:
        """Return the number of open findings of a severity."""
        return sum(count for (one, _), count in self.counts.items() if one == severity)


def plain(amount: Decimal) -> str:
    """Return an amount as text without exponent and trailing zeros, however many digits a sum has."""
    text = f"{amount:f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text == "-0" else text


def _plus(total: Decimal | None, amount: Decimal | None) -> Decimal | None:
    """Add an amount; one that nobody stated is no zero."""
    return total if amount is None else exact_sum(total or Decimal(0), amount)
