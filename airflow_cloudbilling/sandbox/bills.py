"""Invoices as the sandbox's vendors state them: charges of subscriptions of customers, all money in Decimal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date
from decimal import ROUND_HALF_UP, Context, Decimal, localcontext
from typing import Any, NamedTuple, overload

from airflow_cloudbilling.sandbox.catalogue import Currency, Customer, Product

EXACT = Context(prec=60, rounding=ROUND_HALF_UP)


class Charge(NamedTuple):
    """One invoice line as the vendor states it; ``key`` is the same on the purchase and the sales side."""

    line: int
    product: Product
    quantity: Decimal
    unit_price: Decimal
    discount: Decimal
    net: Decimal
    tax_rate: Decimal
    tax: Decimal | None
    start: date
    end: date
    key: str
    purchase_price: Decimal
    purchase_discount: Decimal


class Repeated(Sequence[Charge]):
    """Any number of charges in the memory of a few: ``block`` over and over, with running line numbers and keys."""

    def __init__(self, block: Sequence[Charge], times: int) -> None:
        self.block = block
        self.times = times

    def __len__(self) -> int:
        return len(self.block) * self.times

    @overload
    def __getitem__(self, index: int) -> Charge: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Charge]: ...
    def __getitem__(self, index: int | slice) -> Charge | Sequence[Charge]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self.block[index % len(self.block)]._replace(line=index + 1, key=self.key(index))

    def key(self, index: int) -> str:
        """Return the charge key of the line at an index."""
        return f"{index:016x}"


class Subscription(NamedTuple):
    """What a customer subscribed to, with the charges of this invoice."""

    number: int
    product: Product
    purchase_order: str | None
    start: date
    charges: Sequence[Charge]

    def total(self, name: str) -> Decimal:
        """Return the exact sum of a charge's field; an absent value counts nothing."""
        charges = self.charges
        once = charges.block if isinstance(charges, Repeated) else charges
        with localcontext(EXACT):
            total = sum((getattr(charge, name) or Decimal(0) for charge in once), Decimal(0))
            return total * charges.times if isinstance(charges, Repeated) else total


class Share(NamedTuple):
    """A customer's part of an invoice."""

    customer: Customer
    subscriptions: tuple[Subscription, ...]


class Bill(NamedTuple):
    """An invoice or credit note as the vendor states it.

    :param totals_stated: whether the vendor states totals, or leaves them to be computed.
    :param revision: how often a field that nobody knows was touched; no change for a reader.
    :param reordered: whether the record's fields come in another order; no change for a reader.
    """

    invoice_id: str
    kind: str
    issued: date
    due: date
    currency: Currency
    credit: bool
    totals_stated: bool
    seller: Customer
    buyer: Customer
    shares: tuple[Share, ...]
    revision: int = 0
    reordered: bool = False

    @property
    def subscriptions(self) -> Iterator[Subscription]:
        """Return every customer's subscriptions in their order."""
        return (subscription for share in self.shares for subscription in share.subscriptions)

    @property
    def charges(self) -> Iterator[Charge]:
        """Return the lines in their order."""
        return (charge for subscription in self.subscriptions for charge in subscription.charges)

    @property
    def sign(self) -> int:
        """Return -1 for a credit note whose total is positive: staging negates it as a whole (contract 3.1)."""
        return -1 if self.credit and self.total("net") > 0 else 1

    def total(self, name: str) -> Decimal:
        """Return the exact sum of a charge's field over the invoice."""
        with localcontext(EXACT):
            return sum((subscription.total(name) for subscription in self.subscriptions), Decimal(0))

    def with_charges(self, change: Any, **fields: Any) -> Bill:
        """Return a copy whose charges are each what ``change`` returns for them, without those that become None."""

        def changed(subscription: Subscription) -> Subscription:
            charges = subscription.charges
            if isinstance(charges, Repeated):
                return subscription._replace(charges=Repeated([change(c) or c for c in charges.block], charges.times))
            return subscription._replace(charges=[new for c in charges if (new := change(c)) is not None])

        shares = tuple(s._replace(subscriptions=tuple(map(changed, s.subscriptions))) for s in self.shares)
        return self._replace(shares=shares, **fields)


def priced(charge: Charge, currency: Currency, unit_price: Decimal, discount: Decimal) -> Charge:
    """Return the charge at another price, its amounts rounded half up to the currency's decimals."""
    step = Decimal(1).scaleb(-currency.decimals)
    with localcontext(EXACT):
        discount = discount.quantize(step)
        net = (charge.quantity * unit_price - discount).quantize(step)
        tax = None if charge.tax is None else (net * charge.tax_rate / 100).quantize(step)
    return charge._replace(unit_price=unit_price, discount=discount, net=net, tax=tax)
