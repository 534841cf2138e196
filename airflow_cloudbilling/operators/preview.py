"""What an import would change: the vendor's answer is staged in a database of its own, and compared."""

from __future__ import annotations

import json
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import Connection, and_, select

from airflow_cloudbilling.model import Slice
from airflow_cloudbilling.operators.database import look_into_staging
from airflow_cloudbilling.operators.invoices import StageInvoicesOperator
from airflow_cloudbilling.staging.create import version_of
from airflow_cloudbilling.staging.frozen import is_frozen
from airflow_cloudbilling.staging.ledger import of_slice
from airflow_cloudbilling.staging.loader import Staging
from airflow_cloudbilling.staging.reading import exact, snapshot
from airflow_cloudbilling.staging.tables import Tables

_OWN = "cloudbilling_preview"  # the connection of the comparison's own database
_PAGE = 500


class Change(NamedTuple):
    """An invoice that would change.

    :param change: ``new``, ``changed``, ``removed``; ``frozen`` where it is posted, and would get a finding instead.
    :param was: the gross amount that is staged, or the net amount where there is none; ``becomes`` likewise.
    """

    change: str
    account: str
    kind: str
    invoice_id: str
    invoice_number: str | None
    currency: str | None
    was: str | None
    becomes: str | None


class _Head(NamedTuple):
    content_hash: str
    invoice_number: str | None
    currency: str | None
    amount: str | None
    frozen: bool


def preview_of(
    staging: Staging,
    conn_id: str,
    kind: str | None,
    period: str,
    make: Callable[..., StageInvoicesOperator] = StageInvoicesOperator,
) -> tuple[list[Change], dict[str, int]]:
    """Return which invoices an import would change, and how many there are of each sort.

    :param staging: is only read.
    :param conn_id: of the vendor, which is asked.
    :param make: makes the import, of its arguments.
    """
    with _own_database():
        task = make(
            task_id="preview", conn_id=conn_id, staging_conn_id=_OWN, kind=kind, period=period, keep_raw=False,
            on_reject="quarantine", deferrable=False,
        )  # fmt: skip
        loaded = [*task.load_slices({})]
        changes, counts = list[Change](), Counter[str](rejected=sum(one.rejected for one in loaded))
        with snapshot(look_into_staging(_OWN).engine) as there, snapshot(staging.engine) as here:
            known = version_of(here, staging.tables) is not None
            for one in loaded:
                for change in _changes(there, here if known else None, staging.tables, one.slice):
                    counts["unchanged" if change is None else change.change] += 1
                    if change is not None:
                        changes.append(change)
    names = ("new", "changed", "removed", "frozen", "unchanged", "rejected")
    return changes, {name: counts[name] for name in names}


@contextmanager
def _own_database() -> Iterator[None]:
    """Let the connection ``_OWN`` be an empty database, which goes again at the end."""
    name = f"AIRFLOW_CONN_{_OWN.upper()}"
    with tempfile.TemporaryDirectory(prefix="cloudbilling-preview-") as folder:
        os.environ[name] = json.dumps({"conn_type": "sqlite", "host": str(Path(folder, "preview.db"))})
        try:
            yield
        finally:
            del os.environ[name]


def _changes(there: Connection, here: Connection | None, tables: Tables, slice_: Slice) -> Iterator[Change | None]:
    """Yield what becomes of each invoice of a slice; None where nothing does."""
    own = look_into_staging(_OWN).tables
    came = _ids(there, own, slice_)
    had = _ids(here, tables, slice_) if here is not None else set[str]()
    ids = iter(sorted(came | had))
    while page := list(islice(ids, _PAGE)):
        new = _heads(there, own, slice_, page)
        old = _heads(here, tables, slice_, page) if here is not None else {}
        for invoice_id in page:
            yield _change(slice_, invoice_id, old.get(invoice_id), new.get(invoice_id) if invoice_id in came else None)


def _change(slice_: Slice, invoice_id: str, old: _Head | None, new: _Head | None) -> Change | None:
    if old and new and old.content_hash == new.content_hash:
        return None
    word = "new" if old is None else "frozen" if old.frozen else "changed" if new else "removed"
    shown = new or old
    assert shown is not None  # it is staged, or it came
    was, becomes = old.amount if old else None, new.amount if new else None
    return Change(word, slice_.account, slice_.kind, invoice_id, shown.invoice_number, shown.currency, was, becomes)


def _ids(connection: Connection, tables: Tables, slice_: Slice) -> set[str]:
    slices = tables.slice_invoice
    return set(connection.scalars(select(slices.c.invoice_id).where(of_slice(slices, slice_))))


def _heads(connection: Connection, tables: Tables, slice_: Slice, ids: list[str]) -> dict[str, _Head]:
    invoice = tables.invoice
    names = ("invoice_id", "content_hash", "invoice_number", "currency", "gross_amount", "net_amount")
    of_account = (invoice.c[name] == getattr(slice_, name) for name in ("provider", "account", "kind"))
    query = select(*(invoice.c[name] for name in names), is_frozen(tables))
    rows = connection.execute(query.where(and_(*of_account, invoice.c.invoice_id.in_(ids))))
    return {row[0]: _Head(row[1], row[2], row[3], _text(row[4], row[5]), bool(row[6])) for row in rows}


def _text(gross: Any, net: Any) -> str | None:
    amount = exact(net if gross is None else gross)
    return None if amount is None else f"{amount:f}"
