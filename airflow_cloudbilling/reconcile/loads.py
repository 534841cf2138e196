"""A month against the ledger of its loads: what was never loaded, came only in part, or was read too early."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any, NamedTuple

from sqlalchemy import Connection, and_, func, select

from airflow_cloudbilling.errors import ConfigurationError
from airflow_cloudbilling.model import Period
from airflow_cloudbilling.reconcile.arithmetic import Broken
from airflow_cloudbilling.reconcile.reading import SliceKey
from airflow_cloudbilling.staging.dialects import moment_text
from airflow_cloudbilling.staging.tables import Tables

_COUNTS = ("stated", "received", "staged", "outside", "rejected", "frozen", "invoice")
_EAST = timedelta(hours=14)  # by so much a month ends earlier in the first time zone than in UTC
_SHOWN = 3


class LastLoad(NamedTuple):
    """The counts of a slice's last load that ended one way; None where nobody counted."""

    load_id: str
    error: str | None
    read_at: Any
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


Overlapping = Mapping[SliceKey, Sequence[str]]  # periods, start/end


def loads_of(
    connection: Connection, tables: Tables, period: Period, providers: Collection[str] | None
) -> dict[SliceKey, Loads]:
    """Return the slices of a period that were loaded, or were to be."""
    load = tables.load
    names = ("load_id", "error", "fetch_started_at", *(f"{name}_count" for name in _COUNTS))
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


def overlapping_of(
    connection: Connection, tables: Tables, period: Period, providers: Collection[str] | None
) -> dict[SliceKey, list[str]]:
    """Return which other periods were loaded that have days in common with a period."""
    load = tables.load
    first, last = func.substr(load.c.period, 1, 10), func.substr(load.c.period, 12, 10)
    common = and_(first < period.end.isoformat(), last > period.start.isoformat(), load.c.period != str(period))
    if providers is not None:
        common = and_(common, load.c.provider.in_(list(providers)))
    columns = [load.c[name] for name in ("provider", "account", "kind", "period")]
    query = select(*columns).where(common, load.c.status == "committed").distinct()
    found: dict[SliceKey, list[str]] = {}
    for *key, other in sorted(map(tuple, connection.execute(query))):
        found.setdefault(SliceKey(*key), []).append(other)
    return found


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


def missing(
    want: Iterable[Mapping[str, str]], present: Mapping[SliceKey, Loads], others: Overlapping
) -> Iterator[tuple[SliceKey, Broken]]:
    """Yield ``missing-slice`` for what must be there and was never loaded; a lost page is told by its count instead.

    :param others: periods that were loaded in its place.
    """
    for one in want:
        fitting = [key for key in present if _fits(key, one)]
        if any(present[key].committed or lost_records(present[key]) for key in fitting):
            continue
        key = SliceKey(*(one.get(name, "") for name in SliceKey._fields))
        instead = sorted({period for other in others if _fits(other, one) for period in others[other]})
        why = next((_why(failed) for found in fitting if (failed := present[found].failed)), None)
        message = f"Its last load failed: {why}" if why else "Run its import, or accept that it bills no more."
        if instead and not why:
            message = "Import the period as a whole, or reconcile each of those."
        name = " ".join(part for part in key if part)
        yield key, Broken("missing-slice", f"a committed load of {name}", _listed(instead), message)


def nothing(
    period: Period, providers: Collection[str] | None, others: Overlapping
) -> Iterator[tuple[SliceKey, Broken]]:
    """Yield ``zero-invoices`` for a period of which no import was committed, naming what was imported instead."""
    for provider in sorted(providers or [""]):
        fitting = {key: periods for key, periods in others.items() if provider in ("", key.provider)}
        instead = [f"{period} of {' '.join(key)}" for key, periods in sorted(fitting.items()) for period in periods]
        message = f"Nothing of {period.key} was imported: run the imports with this very period, and reconcile again."
        if instead:
            message += " What overlaps it counts in no total; it may be reconciled by itself."
        expected = f"an import of {period.key}{f' of {provider}' if provider else ''}"
        yield SliceKey(provider, "", ""), Broken("zero-invoices", expected, _listed(instead), message)


def early(loads: Loads, period: Period) -> Iterator[Broken]:
    """Yield ``loaded-early`` when the last load was read before the period was over, in whatever time zone."""
    last = loads.committed
    if last is None:
        return
    over = datetime(*period.end.timetuple()[:3]) - _EAST  # noqa: DTZ001 # UTC, as the ledger's texts are
    if (read_at := moment_text(last.read_at)) < f"{over:%Y-%m-%d %H:%M:%S}":
        message = "What the vendor billed afterwards is not in it. Import it again now that the period is over."
        if read_at < period.start.isoformat():
            message = "It was read before the period began. Import it again when the period is over."
        final = period.end - timedelta(days=1)
        yield Broken("loaded-early", f"an import after {final}", f"one of {read_at[:10]}", message)


def lost_records(loads: Loads) -> Broken | None:
    """Return ``count-mismatch`` when the last load failed because records that the vendor states did not come."""
    failed = loads.failed
    if failed is None or failed.stated is None or failed.received is None or failed.stated == failed.received:
        return None
    message = f"Load {failed.load_id} failed for that, and staging is as before it; run the import again."
    actual = f"{failed.received} records came ({failed.received - failed.stated:+d})"
    return Broken("count-mismatch", f"{failed.stated} records", actual, message)


def counts(loads: Loads, present: int, quarantine: Callable[[str], str]) -> Iterator[Broken]:
    """Yield ``count-mismatch`` when records that the vendor has are not in staging, else what may be older than it.

    :param present: invoices of the slice that are staged.
    :param quarantine: returns what tells the rejects of a load from others, see :func:`rejects_of`.
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
        actual = f"{accounted} records ({accounted - last.stated:+d})"
        yield Broken("count-mismatch", f"{last.stated} records", actual, message)
    elif gone:
        message = f"Load {last.load_id} left another number of invoices in staging; import the period again."
        yield Broken("count-mismatch", f"{last.invoice} invoices", f"{present} invoices ({-gone:+d})", message)
    elif last.rejected:
        message = f"They stand in cloudbilling_reject with load_id {last.load_id}; map the field with field_map."
        actual = f"{last.rejected} records in quarantine ({quarantine(last.load_id)})"
        yield Broken("count-mismatch", "every record staged", actual, message)


def rejects_of(connection: Connection, tables: Tables, load_id: str) -> str:
    """Return what tells a load's rejects from others: a few digits of the hash of their ids and reasons."""
    reject = tables.reject
    query = select(reject.c.invoice_id, reject.c.reason).where(reject.c.load_id == load_id)
    return fingerprint(f"{invoice_id}\0{reason}" for invoice_id, reason in connection.execute(query))


def fingerprint(texts: Iterable[str]) -> str:
    """Return a few digits that stand for texts, in whatever order they come."""
    return sha256("\0".join(sorted(texts)).encode()).hexdigest()[:8]


def _fits(key: SliceKey, one: Mapping[str, str]) -> bool:
    return all(getattr(key, name) == value for name, value in one.items())


def _why(failed: LastLoad) -> str:
    return (failed.error or "nobody wrote why.")[:300]


def _listed(instead: Sequence[str]) -> str:
    """Return in words what was imported in place of what is wanted."""
    if not instead:
        return "none"
    more = len(instead) - _SHOWN
    return f"only {', '.join(instead[:_SHOWN])}" + (f" and {more} more ({fingerprint(instead)})" if more > 0 else "")
