"""What a person is asked to approve: a close in words, read from its own invoices, as they were reconciled."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import groupby, islice
from typing import NamedTuple

from sqlalchemy import Connection, select, update

from airflow_cloudbilling.errors import ConfigurationError
from airflow_cloudbilling.model import Period
from airflow_cloudbilling.reconcile.arithmetic import Head
from airflow_cloudbilling.reconcile.closes import APPROVED, REJECTED, Close, decide, read
from airflow_cloudbilling.reconcile.findings import OpenFindings
from airflow_cloudbilling.reconcile.reading import Reader, SliceKey
from airflow_cloudbilling.reconcile.summary import SHOWN, Summary, Sums
from airflow_cloudbilling.staging.closes import members_of
from airflow_cloudbilling.staging.loader import Staging
from airflow_cloudbilling.staging.reading import snapshot
from airflow_cloudbilling.staging.tables import Tables

_PAGE = 500


class Asker(NamedTuple):
    """A task instance that asks a person."""

    dag_id: str
    run_id: str
    task_id: str
    map_index: int


def summary_of(staging: Staging, close_id: str) -> Summary:
    """Return a close in numbers, with what a person should look at now.

    :raises ConfigurationError: when there is no such close, or what is staged is no longer what was reconciled.
    """
    close, sums = read(staging, close_id), Sums()
    period = Period.parse(close.period)
    with snapshot(staging.engine) as connection:
        for head in _unchanged(connection, staging.tables, close_id):
            sums.add(head)
        told = OpenFindings(connection, staging.tables, period)
        return Summary(period, close, dict(sorted(sums.by.items())), told.counts(), list(told.listed(SHOWN)))


def asker_of(staging: Staging, close_id: str) -> Asker | None:
    """Return who asked for a close last, if anybody did."""
    close = staging.tables.close
    with staging.engine.connect() as connection:
        found = connection.scalar(select(close.c.asked_by).where(close.c.close_id == close_id))
    return Asker(*json.loads(found)) if found else None


def ask(staging: Staging, close_id: str, own: Asker, before: Asker | None) -> bool:
    """Note who asks for a close.

    :param before: who did so last, as far as the caller knows.
    :returns: whether that was true, and so it is noted.
    """
    close = staging.tables.close
    same = close.c.asked_by == json.dumps(before) if before else close.c.asked_by.is_(None)
    with staging.engine.begin() as connection:
        noted = update(close).where(close.c.close_id == close_id, same).values(asked_by=json.dumps(own))
        return connection.execute(noted).rowcount == 1


def approve(staging: Staging, close_id: str, by: str) -> Close:
    """Take a person's word that what a close holds may be sent; once approved, it stays so by the first one's word.

    :param by: the person.
    :raises ConfigurationError: when there is no such close, nobody is named, or invoices changed since.
    """
    read(staging, close_id)
    with snapshot(staging.engine) as connection:
        for _ in _unchanged(connection, staging.tables, close_id):
            pass
    return decide(staging, close_id, APPROVED, by)


def reject(staging: Staging, close_id: str, by: str) -> Close:
    """Take a person's word that nothing of a close may be sent, even if it was approved before.

    :param by: the person.
    :raises ConfigurationError: when there is no such close, nobody is named, or some of it is on its way or sent.
    """
    return decide(staging, close_id, REJECTED, by)


def _unchanged(connection: Connection, tables: Tables, close_id: str) -> Iterator[Head]:
    """Yield the invoices of a close.

    :raises ConfigurationError: at the end, when some are not staged as they were.
    """
    reader, changed = Reader(connection, tables), list[str]()
    for key, group in groupby(members_of(connection, tables, close_id), key=lambda one: SliceKey(*one[:3])):
        while page := dict(islice(((one[3], one[4]) for one in group), _PAGE)):
            heads = reader.heads(key, page)
            for invoice_id, content_hash in page.items():
                head = heads.get(invoice_id)
                if head is None or head.content_hash != content_hash:
                    changed.append(f"{invoice_id} {'was changed' if head else 'is no longer staged'}")
                else:
                    yield head
    if changed:
        told = "; ".join(changed[:SHOWN]) + (f"; and {len(changed) - SHOWN} more" if len(changed) > SHOWN else "")
        message = f"close {close_id!r} is not what is staged now: {told}. Reconcile the period again."
        raise ConfigurationError(message, field="close_id")
