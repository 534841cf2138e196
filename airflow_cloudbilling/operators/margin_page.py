"""The margin report as a page of Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import TYPE_CHECKING

from airflow_cloudbilling.exact import canonical

if TYPE_CHECKING:
    from airflow_cloudbilling.model import Period
    from airflow_cloudbilling.staging.margin_report import Charge, MarginReport, Sums

_HEADS = {
    "purchase": "bought",
    "sales": "sold",
    "margin": "margin",
    "bought_only": "bought, not sold",
    "sold_only": "sold, not bought",
    "bought_otherwise": "bought, sold in another currency",
    "sold_otherwise": "sold, bought in another currency",
}
_BELOW = "sold below cost"


class Page:
    """Takes note of the charges that a person should look at while they pass.

    :param most: how many of each kind.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._noted: dict[str, list[Charge]] = {}
        self._more: dict[str, int] = {}

    def noted(self, charge: Charge) -> Charge:
        """Return the charge, having noted it where it is worth a look."""
        if charge.is_below_cost or charge.state != "matched":
            kind = _BELOW if charge.is_below_cost else charge.state
            noted = self._noted.setdefault(kind, [])
            if len(noted) < self._most:
                noted.append(charge)
            else:
                self._more[kind] = self._more.get(kind, 0) + 1
        return charge

    def text(self, report: MarginReport, periods: Sequence[Period]) -> str:
        """Return the page: totals by currency, then by customer and month, then what to look at."""
        months = ", ".join(period.key for period in periods)
        parts = [f"# Margin {months}", *([not_issued(report.not_issued)] if report.not_issued else [])]
        parts += [_table(["currency", *_HEADS.values()], _totals(report))]
        heads = ["month", "customer", "currency", *_HEADS.values()]
        parts += ["## By customer and month", _table(heads, _rows(report))]
        for kind, charges in sorted(self._noted.items()):
            more = [f"… and {self._more[kind]} more, see the CSV file."] if kind in self._more else []
            heads = ["month", "customer", "subscription", "item", "bought", "sold", "margin"]
            parts += [f"## {kind.capitalize()}", _table(heads, [_named(charge) for charge in charges]), *more]
        return "\n\n".join(parts) + "\n"


def not_issued(invoices: int) -> str:
    """Say that a report counts invoices that nobody owes."""
    return f"{invoices} of the invoices are drafts, or the vendor cancelled them; their lines count here all the same."


def _totals(report: MarginReport) -> list[list[str]]:
    return [[currency, *_amounts(sums)] for currency, sums in report.totals.items()]


def _rows(report: MarginReport) -> list[list[str]]:
    return [
        [one.period[:7], _name(one.customer_id, report.names.get(one.customer_id)), one.currency, *_amounts(sums)]
        for one, sums in sorted(report.sums.items())
    ]


def _amounts(sums: Sums) -> list[str]:
    return [canonical(getattr(sums, name)) for name in _HEADS]


def _named(charge: Charge) -> list[str]:
    bought = _money(charge.purchase_amount, charge.purchase_currency)
    sold = _money(charge.sales_amount, charge.sales_currency)
    customer = _name(charge.customer_id, charge.customer_name)
    item = charge.description or charge.item_code
    margin = _money(charge.margin, charge.sales_currency)
    return [charge.period[:7], customer, charge.subscription_id or "", item or "", bought, sold, margin]


def _money(amount: Decimal | None, currency: str | None) -> str:
    return "" if amount is None else f"{canonical(amount)} {currency or '?'}"


def _name(customer_id: str | None, name: str | None) -> str:
    return " ".join(part for part in (name, f"({customer_id})" if customer_id else "") if part) or "no customer"


def _table(heads: list[str], rows: list[list[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *([_escaped(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) if rows else "Nothing."


def _escaped(cell: str) -> str:
    """Return a vendor's text as one that is neither Markdown's table nor HTML."""
    for character, harmless in (("&", "&amp;"), ("<", "&lt;"), ("|", "\\|")):
        cell = cell.replace(character, harmless)
    return " ".join(cell.split())
