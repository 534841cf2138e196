"""The views as CSV files, sent while they are read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from fastapi.responses import Response, StreamingResponse
from sqlalchemy import Connection

from airflow_cloudbilling.model import Period
from airflow_cloudbilling.page import details, files, invoices
from airflow_cloudbilling.page.matrix import Column, matrix
from airflow_cloudbilling.plugins.asked import Asked, AskedDep
from airflow_cloudbilling.plugins.views import (
    books_seen,
    cell_of,
    findings_of,
    margin_months,
    nothing,
    today,
    until_of,
)
from airflow_cloudbilling.staging.margin_report import MarginReport
from airflow_cloudbilling.staging.tables import Tables

Rows = Callable[[Connection, Tables], Iterable[Mapping[str, Any]]]


def months(asked: AskedDep) -> Response:
    """Send the overview: a row for each month, vendor, kind, account and currency."""
    until = until_of(asked)
    return _sent(asked, "months", files.MONTHS, lambda c, t: files.months(matrix(c, t, asked.access, today(), until)))


def slice_invoices(asked: AskedDep) -> Response:
    """Send the invoices of a slice."""
    period, account = Period.parse(asked.param("period")), asked.param("account")
    column = Column(asked.param("provider"), asked.param("kind"))

    def rows(connection: Connection, tables: Tables) -> Iterable[Mapping[str, Any]]:
        cell = cell_of(asked, connection, tables, period, column)
        for one in cell.slices:
            if one.slice.account == account:
                return invoices.every(connection, tables, one.slice)
        raise nothing()

    return _sent(asked, f"{column.provider}-{column.kind}-{period.key}", files.INVOICES, rows)


def findings(asked: AskedDep) -> Response:
    """Send findings."""
    which, of = asked.chosen("which", details.WHICH), findings_of(asked)

    def rows(connection: Connection, tables: Tables) -> Iterable[Mapping[str, Any]]:
        return details.every_finding(connection, tables, which, of, books_seen(asked, connection, tables))

    return _sent(asked, f"findings-{which}", files.FINDINGS, rows)


def margin(asked: AskedDep) -> Response:
    """Send every charge of a month."""
    period = Period.parse(asked.param("period"))

    def rows(connection: Connection, tables: Tables) -> Iterator[Mapping[str, Any]]:
        margin_months(asked, connection, tables)
        charges = MarginReport(connection, tables).charges([period])
        return ({**charge._asdict(), "margin": charge.margin} for charge in charges)

    return _sent(asked, f"margin-{period.key}", files.CHARGES, rows)


def _sent(asked: Asked, name: str, columns: Sequence[str], rows: Rows) -> Response:
    """Return a file; whether it may be sent is known before its first byte."""
    reading = asked.reading()
    connection, tables = reading.__enter__()
    try:
        found = rows(connection, tables)
    except BaseException:
        reading.__exit__(None, None, None)
        raise

    def parts() -> Iterator[bytes]:
        try:
            yield from files.csv_file(columns, found)
        finally:
            reading.__exit__(None, None, None)

    safe = "".join(sign if sign.isalnum() or sign in "-_" else "_" for sign in name if sign.isascii())
    headers = {"Content-Disposition": f'attachment; filename="{safe}.csv"'}
    return StreamingResponse(parts(), media_type="text/csv; charset=utf-8", headers=headers)


DOWNLOADS = {
    "overview.csv": months,
    "invoices.csv": slice_invoices,
    "findings.csv": findings,
    "margin.csv": margin,
}
