"""What is earned on what: purchase against sales in ``Decimal``, by customer, month and currency.

Lines of one charge (``match_key``) are compared first; what is left, by subscription and item, all of a month together.
Every line is counted once, and amounts of different currencies are never netted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from decimal import Decimal
from typing import Any, NamedTuple

from sqlalchemy import Connection, select

from airflow_cloudbilling.exact import exact_difference, exact_sum
from airflow_cloudbilling.model import Period, is_issued
from airflow_cloudbilling.staging.margin import BOUGHT, MATCHED, SOLD, margin_query
from airflow_cloudbilling.staging.reading import Row, amounts, stream
from airflow_cloudbilling.staging.tables import Tables

CURRENCIES = "currencies differ"
BY_CHARGE, BY_ITEM = "match_key", "subscription and item"
_GROUP = ("period", "provider", "account", "customer_id", "subscription_id", "item_code")


@dataclass
class Sums:
    """What comes together in one currency.

    :param purchase: of what was sold in the same currency, and ``sales`` of it.
    :param bought_only: bought and not sold; ``sold_only`` sold and not bought.
    :param bought_otherwise: bought in this currency and sold in another; ``sold_otherwise`` the other way round.
    """

    purchase: Decimal = Decimal(0)
    sales: Decimal = Decimal(0)
    bought_only: Decimal = Decimal(0)
    sold_only: Decimal = Decimal(0)
    bought_otherwise: Decimal = Decimal(0)
    sold_otherwise: Decimal = Decimal(0)

    @property
    def margin(self) -> Decimal:
        """Return what is earned on what was bought and sold in this currency."""
        return exact_difference(self.sales, self.purchase)

    def add(self, name: str, amount: Decimal) -> None:
        """Add an amount to one of the sums."""
        setattr(self, name, exact_sum(getattr(self, name), amount))

    def merge(self, other: Sums) -> None:
        """Add all that another one holds."""
        for field in fields(self):
            self.add(field.name, getattr(other, field.name))


class Customer(NamedTuple):
    """For whom, when, and in which currency."""

    period: str
    customer_id: str
    currency: str


class Charge(NamedTuple):
    """A row of the report: one charge, or what a month has of a subscription's item."""

    period: str
    customer_id: str | None
    customer_name: str | None
    provider: str
    account: str
    subscription_id: str | None
    item_code: str | None
    description: str | None
    state: str
    matched_by: str | None
    purchase_currency: str | None
    purchase_amount: Decimal | None
    sales_currency: str | None
    sales_amount: Decimal | None

    @property
    def margin(self) -> Decimal | None:
        """Return sales less purchase, where there are both, in one currency."""
        if self.state != MATCHED or self.purchase_amount is None or self.sales_amount is None:
            return None
        return exact_difference(self.sales_amount, self.purchase_amount)

    @property
    def is_below_cost(self) -> bool:
        """Whether it was sold for less than it was bought for; two credits mirror what they take back."""
        loses, both = (self.margin or 0) < 0, (self.purchase_amount or 0, self.sales_amount or 0)
        return loses and not all(amount < 0 for amount in both)


class MarginReport:
    """Reads charges and adds them up; memory grows with customers, and with what no ``match_key`` pairs.

    :param connection: from :func:`~airflow_cloudbilling.staging.reading.snapshot`.
    """

    def __init__(self, connection: Connection, tables: Tables) -> None:
        self._connection = connection
        self._tables = tables
        self.sums: dict[Customer, Sums] = {}
        self.names: dict[str, str] = {}
        self.states: Counter[str] = Counter()
        self.below_cost: int = 0
        self._unissued: set[tuple[str, ...]] = set()

    def charges(self, periods: Iterable[Period]) -> Iterator[Charge]:
        """Yield every charge of these months once, and count it; pairs first, then what is left."""
        left: dict[tuple[Any, ...], list[Row]] = {}
        for row in self._rows([str(period) for period in periods]):
            self._note(row)
            if row["state"] == MATCHED:
                yield self._counted(_charge(row, row["state"], BY_CHARGE))
            elif row["subscription_id"]:
                _together(left.setdefault(tuple(row[name] for name in _GROUP), []), row)
            else:
                yield self._counted(_charge(row, row["state"], None))
        for rows in left.values():
            yield from map(self._counted, _settled(rows))

    @property
    def not_issued(self) -> int:
        """Return how many of the invoices are drafts or were cancelled; they count like any other."""
        return len(self._unissued)

    @property
    def totals(self) -> dict[str, Sums]:
        """Return the sums by currency."""
        totals: dict[str, Sums] = {}
        for customer, sums in self.sums.items():
            totals.setdefault(customer.currency, Sums()).merge(sums)
        return dict(sorted(totals.items()))

    def _rows(self, periods: list[str]) -> Iterator[Row]:
        margin = margin_query(self._tables, self._connection.dialect.name).subquery("margin")
        names = ("provider", "account", "purchase_invoice_id", "purchase_line_number", "sales_invoice_id",
                 "sales_line_number")  # fmt: skip
        query = select(margin).where(margin.c.period.in_(periods)).order_by(*(margin.c[name] for name in names))
        for row in stream(self._connection, query):
            yield amounts(row, ("purchase_net_amount", "sales_net_amount"))

    def _note(self, row: Row) -> None:
        for side in ("purchase", "sales"):
            if not is_issued(row[f"{side}_status"]):
                self._unissued.add((row["provider"], row["account"], side, row[f"{side}_invoice_id"]))

    def _counted(self, charge: Charge) -> Charge:
        self.states[charge.state] += 1
        self.below_cost += charge.is_below_cost
        customer = charge.customer_id or ""
        self.names[customer] = charge.customer_name or self.names.get(customer, "")
        bought, sold = {
            MATCHED: ("purchase", "sales"),
            CURRENCIES: ("bought_otherwise", "sold_otherwise"),
        }.get(charge.state, ("bought_only", "sold_only"))
        for name, currency, amount in (
            (bought, charge.purchase_currency, charge.purchase_amount),
            (sold, charge.sales_currency, charge.sales_amount),
        ):
            if amount is not None:
                self.sums.setdefault(Customer(charge.period, customer, currency or ""), Sums()).add(name, amount)
        return charge


def _charge(row: Row, state: str, matched_by: str | None) -> Charge:
    both = row["purchase_currency"], row["sales_currency"]
    if state == MATCHED and both[0] != both[1]:
        state = CURRENCIES
    own = {name: row[name] for name in Charge._fields[:8]}
    purchase = {"purchase_currency": both[0], "purchase_amount": row["purchase_net_amount"]}
    sales = {"sales_currency": both[1], "sales_amount": row["sales_net_amount"]}
    return Charge(**own, state=state, matched_by=matched_by, **purchase, **sales)


def _together(rows: list[Row], row: Row) -> None:
    """Add a row that has no pair to those of its subscription's item: one of each side and currency is enough."""
    side = "purchase" if row["state"] == BOUGHT else "sales"
    for known in rows:
        if known["state"] == row["state"] and known[f"{side}_currency"] == row[f"{side}_currency"]:
            both = [one[f"{side}_net_amount"] for one in (known, row) if one[f"{side}_net_amount"] is not None]
            known[f"{side}_net_amount"] = exact_sum(*both) if both else None
            return
    rows.append(row)


def _settled(rows: list[Row]) -> Iterator[Charge]:
    """Yield what a month has of a subscription's item: both sides of one currency together, then what is left."""
    bought = {row["purchase_currency"]: row for row in rows if row["state"] == BOUGHT}
    sold = {row["sales_currency"]: row for row in rows if row["state"] == SOLD}
    for currency in sorted(bought.keys() & sold.keys(), key=str):
        yield _pair(bought.pop(currency), sold.pop(currency))
    while bought and sold:
        yield _pair(bought.pop(min(bought, key=str)), sold.pop(min(sold, key=str)))
    yield from (_charge(row, row["state"], None) for row in (*bought.values(), *sold.values()))


def _pair(bought: Row, sold: Row) -> Charge:
    sides = {name: value for name, value in sold.items() if name.startswith("sales_")}
    return _charge({**bought, **sides}, MATCHED, BY_ITEM)
