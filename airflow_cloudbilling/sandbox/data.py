"""The reseller's invoices: the same seed gives the same data, built one by one when asked for, all money in Decimal."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Mapping
from datetime import date, timedelta
from decimal import Decimal

from airflow_cloudbilling.model import Period
from airflow_cloudbilling.sandbox.bills import Bill, Charge, Repeated, Share, Subscription, priced
from airflow_cloudbilling.sandbox.catalogue import (
    CURRENCIES,
    CUSTOMERS,
    DISTRIBUTOR,
    EUR,
    PRODUCTS,
    RESELLER,
    Currency,
    Product,
)

MARGIN = Decimal("1.18")
HUGE_LINE_BYTES = 540  # a line in JSON, roughly


class Reseller:
    """The data set; nothing is kept, every invoice is computed from the seed, its kind, month and index.

    Each month has the same customers, items and amounts, as steady customers have, so that none drifts.

    :param months: number of months; the last is ``last_month`` (any day of it).
    :param invoices: invoices in each month and kind.
    :param prefixes: kind → the letters that its invoice ids begin with.
    :param huge_invoice_mb: when not 0, the last month has one more purchase invoice of about that many megabytes.
    """

    def __init__(
        self, seed: int, months: int, invoices: int, last_month: date, prefixes: Mapping[str, str], huge_invoice_mb: int
    ) -> None:
        self.seed = seed
        self.invoices = invoices
        self.prefixes = prefixes
        self.huge_invoice_mb = huge_invoice_mb
        last = Period.month(last_month.year, last_month.month)
        self.months = tuple(last.shifted(-back) for back in reversed(range(months)))

    def bill(self, kind: str, month: Period, index: int) -> Bill:
        """Return one invoice of a month; an index beyond the month's number is one that comes late."""
        bill = self._purchase(month, index)._replace(kind=kind, invoice_id=self.invoice_id(kind, month, index))
        return bill if kind == "purchase" else _sold(bill) if kind == "sales" else _merged(bill, index)

    def huge(self, month: Period) -> Bill:
        """Return the invoice of ``huge_invoice_mb``: one customer, one subscription, very many lines."""
        bill = self.bill("purchase", month, 0)
        charges = [*bill.charges]
        times = -(-self.huge_invoice_mb * 1_000_000 // (HUGE_LINE_BYTES * len(charges)))
        share = bill.shares[0]
        subscription = share.subscriptions[0]._replace(charges=Repeated(charges, times))
        return bill._replace(
            invoice_id=f"{self.prefixes['purchase']}-{month.start:%Y%m}-HUGE",
            shares=(share._replace(subscriptions=(subscription,)),),
        )

    def invoice_id(self, kind: str, month: Period, index: int) -> str:
        """Return the vendor's id; :meth:`locate` reads it back."""
        return f"{self.prefixes[kind]}-{month.start:%Y%m}-{index:05d}"

    def locate(self, invoice_id: str) -> tuple[str, Period, int]:
        """Return the kind, month and index of an invoice id.

        :raises ValueError: when it is not an id of this data set.
        """
        try:
            prefix, month, index = invoice_id.split("-")
            kind = {prefix: kind for kind, prefix in self.prefixes.items()}[prefix]
            return kind, Period.month(int(month[:4]), int(month[4:])), int(index)
        except (ValueError, KeyError):
            raise ValueError(f"{invoice_id!r} is not an invoice id of the sandbox") from None

    def _purchase(self, month: Period, index: int) -> Bill:
        rng = random.Random(f"{self.seed}/{self.months[-1].key}/{index}")
        currency = CURRENCIES[index % len(CURRENCIES)]
        credit = index % 12 in (5, 8)  # 5: stated positive; 8: stated negative
        bill = Bill(
            invoice_id="",
            kind="purchase",
            issued=(issued := self._issued(month, index, rng)),
            due=issued + timedelta(days=30),
            currency=currency,
            credit=credit,
            totals_stated=index % 8 != 3 and index % 24 != 17,  # 17: a credit note without totals
            seller=DISTRIBUTOR,
            buyer=RESELLER,
            shares=_shares(rng, month.shifted(-1), currency, index),
        )
        return bill.with_charges(_negative) if index % 12 == 8 else bill

    def _issued(self, month: Period, index: int, rng: random.Random) -> date:
        last, longest = ((one.end - one.start).days - 1 for one in (month, self.months[-1]))
        drawn = min(rng.randrange(longest + 1), last)  # as many numbers are drawn in each month
        return month.start + timedelta(days={0: 0, self.invoices - 1: last}.get(index, drawn))


def _shares(rng: random.Random, billed: Period, currency: Currency, index: int) -> tuple[Share, ...]:
    lines = iter(range(1, 1000))
    return tuple(
        Share(
            CUSTOMERS[(index + nth) % len(CUSTOMERS)],
            tuple(_subscription(rng, billed, currency, index, lines) for _ in range(rng.randrange(1, 4))),
        )
        for nth in range(rng.randrange(1, 4))
    )


def _subscription(
    rng: random.Random, billed: Period, currency: Currency, index: int, lines: Iterator[int]
) -> Subscription:
    product = PRODUCTS[rng.randrange(len(PRODUCTS) - 1)]  # a correction comes beside what it corrects, never alone
    products = [product] * rng.randrange(1, 4) + ([PRODUCTS[-1]] if product is PRODUCTS[0] else [])
    number = 90_000 + rng.randrange(10_000)
    return Subscription(
        number,
        product,
        rng.choice((None, "", f"PO-{number % 97}")),
        Period.month(billed.start.year - 1, billed.start.month).start,
        [_charge(rng, billed, currency, index, sold, next(lines)) for sold in products],
    )


def _charge(rng: random.Random, billed: Period, currency: Currency, index: int, product: Product, line: int) -> Charge:
    price = Decimal(product.price)
    if currency is not EUR and price > Decimal("0.001"):
        price = (price * currency.per_euro).quantize(Decimal("0.0001"))
    quantity = Decimal(rng.choice(product.quantities))
    discount = quantity * price * rng.choice((0, 0, 0, 5)) / 100
    bare = Charge(
        line, product, quantity, price, discount,
        net=Decimal(0),
        tax_rate=currency.tax_rate,
        tax=None if index % 9 == 4 and line % 2 else Decimal(0),
        start=billed.start,
        end=billed.end - timedelta(days=1),
        key=_key(f"{rng.random()}/{line}", billed),
        purchase_price=price,
        purchase_discount=discount,
    )  # fmt: skip
    bought = priced(bare, currency, price, discount)
    return bought._replace(purchase_discount=bought.discount)


def _key(drawn: str, billed: Period) -> str:
    """Return a key of its own for each month, whose first digit is the same in all: it says what is sold on."""
    first, month = hashlib.sha256(drawn.encode()).hexdigest()[0], f"{billed.key}/{drawn}"
    return first + hashlib.sha256(month.encode()).hexdigest()[:15]


def _negative(charge: Charge) -> Charge:
    tax = None if charge.tax is None else -charge.tax
    return charge._replace(quantity=-charge.quantity, discount=-charge.discount, net=-charge.net, tax=tax)


def _sold(bill: Bill) -> Bill:
    """Return the sales side: the same charges with a margin, billed by the reseller; a few were never sold on."""
    several = sum(len(subscription.charges) for subscription in bill.subscriptions) > 2

    def sold(charge: Charge) -> Charge | None:
        if several and charge.line == 2 and charge.key < "4":
            return None
        return priced(charge, bill.currency, charge.unit_price * MARGIN, charge.discount * MARGIN)

    return bill.with_charges(sold, seller=bill.buyer, buyer=bill.shares[0].customer)


def _merged(bill: Bill, index: int) -> Bill:
    """Return both sides in one, as good as the vendor can: of some invoices a line is missing."""
    return _sold(bill).with_charges(lambda charge: None if index % 7 == 6 and charge.line == 3 else charge)
