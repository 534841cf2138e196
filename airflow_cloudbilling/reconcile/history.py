"""A month against the month before: what moved too far."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import NamedTuple

from sqlalchemy import Connection, func, select

from airflow_cloudbilling.exact import exact_difference, exact_product
from airflow_cloudbilling.model import Period, Slice
from airflow_cloudbilling.reconcile.arithmetic import Broken, money
from airflow_cloudbilling.reconcile.reading import Charges, SliceKey
from airflow_cloudbilling.staging.ledger import of_slice
from airflow_cloudbilling.staging.tables import Tables


class Limits(NamedTuple):
    """How far a month may be from the one before.

    :param drift: share by which what a customer or an item comes to may change, such as 0.5; None: by any.
    :param drift_minimum: changes of less than this amount, in the invoice's currency, are passed over.
    :param volume: how many times the invoices, or the how-manieth part of them, are too many or too few.
    """

    drift: Decimal | None = Decimal("0.5")
    drift_minimum: Decimal = Decimal(1)
    volume: Decimal = Decimal(10)


def month_before(period: Period) -> Period:
    """Return the month before, or of other spans the one of the same length."""
    return period.shifted(-1) if period.is_month else Period(period.start - (period.end - period.start), period.start)


def invoices_of(connection: Connection, tables: Tables, key: SliceKey, period: Period) -> int:
    """Return how many invoices a slice returns."""
    slices = tables.slice_invoice
    counted = select(func.count()).select_from(slices).where(of_slice(slices, Slice(*key, period)))
    return connection.scalar(counted) or 0


def volume(now: int, before: int | None, limits: Limits) -> tuple[str, Broken] | None:
    """Return ``zero-invoices`` or ``volume-drift`` with its severity, when a slice has far from what it had.

    :param before: invoices of the month before; None: it was not imported.
    """
    if not now:
        if before == 0:
            return None
        expected = "some invoices" if before is None else f"about {before} invoices"
        message = "Look whether the vendor bills nothing this month, or only later."
        return "warning" if before is None else "error", Broken("zero-invoices", expected, "0 invoices", message)
    if before and (now >= before * limits.volume or now * limits.volume <= before):
        message = f"The month before had {before}. Look whether invoices came twice, or not yet."
        return "warning", Broken("volume-drift", f"about {before} invoices", f"{now} invoices", message)
    return None


def drifts(now: Charges, before: Charges, limits: Limits) -> Iterator[Broken]:
    """Yield ``amount-drift`` for every customer and item that comes to far more or less than the month before.

    Those that are new are none; those that are gone come to nothing.
    """
    for what, sums, earlier in (("customer", now.customers, before.customers), ("item", now.items, before.items)):
        for (currency, name), was in earlier.items():
            amount = sums.get((currency, name), Decimal(0))
            change = exact_difference(amount, was).copy_abs()
            if limits.drift is None or not was or change < limits.drift_minimum:
                continue
            if change > exact_product(limits.drift, was.copy_abs()):
                share = f"{amount / was - 1:+.0%}"
                message = f"{what.capitalize()} {name}: {share} against the month before."
                expected, actual = money(was, currency), money(amount, currency)
                yield Broken("amount-drift", f"{what} {name}: {expected}", f"{what} {name}: {actual}", message)
