"""A month against the ledger of its loads and against the month before: what is missing, and what moved too far."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Any, NamedTuple

from sqlalchemy import Connection, and_, func, select

from airflow_cloudbilling.errors import ConfigurationError
from airflow_cloudbilling.exact import exact_product, exact_sum
from airflow_cloudbilling.model import Period, Slice
from airflow_cloudbilling.reconcile.arithmetic import Broken, money
from airflow_cloudbilling.reconcile.reading import Charges, SliceKey
from airflow_cloudbilling.staging.ledger import of_slice
from airflow_cloudbilling.staging.tables import Tables

_COUNTS = ("stated", "received", "staged", "outside", "rejected", "frozen", "invoice")


class LastLoad(NamedTuple):
    """The counts of a slice's last load that ended one way; None where nobody counted."""

    load_id: str
    error: str | None
    stated: int | None
    received: int | None
    staged: int | None
    outside: int | None
    rejected: int | None
    frozen: int | None
    invoice: int | None


class Loads(NamedTuple):
    """A slice's last committed load, and a later one that failed."""

    committed: LastLoad | None = None
    failed: LastLoad | None = None


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


def loads_of(
    connection: Connection, tables: Tables, period: Period, providers: Collection[str] | None
) -> dict[SliceKey, Loads]:
    """Return the slices of a period that were loaded, or were to be."""
    load = tables.load
    names = ("load_id", "error", *(f"{name}_count" for name in _COUNTS))
    columns = [load.c[name] for name in ("provider", "account", "kind", "status", *names)]
    ended = and_(load.c.period == str(period), load.c.status.in_(("committed", "failed")))
    if providers is not None:
        ended = and_(ended, load.c.provider.in_(list(providers)))
    found: dict[SliceKey, Loads] = {}
    for provider, account, kind, status, *values in connection.execute(
        select(*columns).where(ended).order_by(load.c.fetch_started_at, load.c.started_at)
    ):
        key, last = SliceKey(provider, account, kind), LastLoad(*values)
        before = found.get(key, Loads())
        found[key] = Loads(committed=last) if status == "committed" else before._replace(failed=last)
    return dict(sorted(found.items()))


def invoices_of(connection: Connection, tables: Tables, key: SliceKey, period: Period) -> int:
    """Return how many invoices a slice returns."""
    slices = tables.slice_invoice
    counted = select(func.count()).select_from(slices).where(of_slice(slices, Slice(*key, period)))
    return connection.scalar(counted) or 0


def wanted(
    expected: Iterable[Mapping[str, Any]] | None, before: Collection[SliceKey], providers: Collection[str] | None
) -> list[dict[str, str]]:
    """Return which slices must be there: those that are named, else those of the month before.

    :param expected: mappings of ``provider, account, kind``; what one does not name may be any.
    :raises ConfigurationError: when one names nothing, or something else.
    """
    if expected is None:
        return [key._asdict() for key in sorted(before)]
    found = []
    for one in expected:
        named = {name: str(value) for name, value in one.items() if value not in (None, "")}
        if not named or set(named) - set(SliceKey._fields):
            raise ConfigurationError(f"{one!r} is no slice; give provider, account and kind.", field="expected")
        if providers is None or named.get("provider", "") in {"", *providers}:
            found.append(named)
    return found


def missing(want: Iterable[Mapping[str, str]], present: Mapping[SliceKey, Loads]) -> Iterator[tuple[SliceKey, Broken]]:
    """Yield ``missing-slice`` for what must be there and was never loaded; a lost page is told by its count instead."""
    for one in want:
        fitting = [key for key in present if all(getattr(key, name) == value for name, value in one.items())]
        if any(present[key].committed or lost_records(present[key]) for key in fitting):
            continue
        key = SliceKey(*(one.get(name, "") for name in SliceKey._fields))
        why = next((_why(failed) for found in fitting if (failed := present[found].failed)), None)
        message = f"Its last load failed: {why}" if why else "Run its import, or accept that it bills no more."
        name = " ".join(part for part in key if part)
        yield key, Broken("missing-slice", f"a committed load of {name}", "none", message)


def _why(failed: LastLoad) -> str:
    return (failed.error or "nobody wrote why.")[:300]


def lost_records(loads: Loads) -> Broken | None:
    """Return ``count-mismatch`` when the last load failed because records that the vendor states did not come."""
    failed = loads.failed
    if failed is None or failed.stated is None or failed.received is None or failed.stated == failed.received:
        return None
    message = f"Load {failed.load_id} failed for that, and staging is as before it; run the import again."
    return Broken("count-mismatch", f"{failed.stated} records", f"{failed.received} records came", message)


def counts(loads: Loads, present: int) -> Iterator[Broken]:
    """Yield ``count-mismatch`` when records that the vendor has are not in staging, else what may be older than it.

    :param present: invoices of the slice that are staged.
    """
    if lost := lost_records(loads):
        yield lost
    elif loads.committed and (failed := loads.failed):
        message = f"Staging is as load {loads.committed.load_id} left it. Run the import again: {_why(failed)}"
        yield Broken("missing-slice", "a last load that is committed", f"load {failed.load_id} failed", message)
    last = loads.committed
    if last is None or last.invoice is None:
        return
    gone = last.invoice - present
    accounted = sum(n or 0 for n in (last.staged, last.outside, last.rejected, last.frozen)) - gone
    if last.stated is not None and last.stated != accounted:
        message = f"The vendor states more or fewer records than load {last.load_id} staged; import the period again."
        yield Broken("count-mismatch", f"{last.stated} records", f"{accounted} records", message)
    elif gone:
        message = f"Load {last.load_id} left another number of invoices in staging; import the period again."
        yield Broken("count-mismatch", f"{last.invoice} invoices", f"{present} invoices", message)
    elif last.rejected:
        message = f"They stand in cloudbilling_reject with load_id {last.load_id}; map the field with field_map."
        yield Broken("count-mismatch", "every record staged", f"{last.rejected} records in quarantine", message)


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
            change = exact_sum(amount, was.copy_negate()).copy_abs()
            if limits.drift is None or not was or change < limits.drift_minimum:
                continue
            if change > exact_product(limits.drift, was.copy_abs()):
                share = f"{amount / was - 1:+.0%}"
                message = f"{what.capitalize()} {name}: {share} against the month before."
                expected, actual = money(was, currency), money(amount, currency)
                yield Broken("amount-drift", f"{what} {name}: {expected}", f"{what} {name}: {actual}", message)
