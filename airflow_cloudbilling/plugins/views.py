"""The page's views, one function each; all only read, in the thread pool, since a database is asked."""

from __future__ import annotations

import json
from datetime import date, datetime, timezone

from fastapi import HTTPException
from fastapi.responses import Response
from sqlalchemy import Connection

from airflow_cloudbilling.errors import ConfigurationError
from airflow_cloudbilling.model import Period
from airflow_cloudbilling.page import details, invoices
from airflow_cloudbilling.page.chart import chart
from airflow_cloudbilling.page.ledger import AMOUNTS, read_totals, slices_of
from airflow_cloudbilling.page.margin import Margins
from airflow_cloudbilling.page.matrix import COUNTED, Cell, Column, Matrix, matrix
from airflow_cloudbilling.page.render import vendor
from airflow_cloudbilling.page.states import Book
from airflow_cloudbilling.plugins.asked import Asked, AskedDep
from airflow_cloudbilling.staging.columns import COUNTS, INVOICE_AMOUNTS
from airflow_cloudbilling.staging.explain import explain
from airflow_cloudbilling.staging.posting import InvoiceKey
from airflow_cloudbilling.staging.reading import exact
from airflow_cloudbilling.staging.tables import Tables

_FEWEST = 2  # characters to search for
_MARGIN_MONTHS = 12
_margins = Margins()


def overview(asked: AskedDep) -> Response:
    """Show months and vendors."""
    amount = asked.chosen("amount", AMOUNTS)
    with asked.reading() as (connection, tables):
        found = matrix(connection, tables, asked.access, today(), until_of(asked))
    if not found.columns:
        words = (
            "Nothing has been imported yet, or nothing that you may see. Run an import, such as monthly_invoice_import."
        )
        return asked.html("message", "Nothing is staged yet", message=words)
    currency = asked.chosen("currency", ["", *found.currencies])
    drawn = currency or next(iter(found.currencies), "")
    charts = [chart(found, drawn, kind, amount) for kind in COUNTED if any(c.kind == kind for c in found.columns)]
    return asked.html(
        "overview",
        "Months",
        matrix=found,
        amount=amount,
        currency=currency,
        currencies=[(one, one or "No currency") for one in found.currencies if one],
        charts=[one for one in charts if one.bars],
        vendors=_vendors(found),
        until=asked.param("until"),
        show_amount=lambda one: asked.again(amount=one),
        show_currency=lambda one: asked.again(currency=one),
    )


def slice_invoices(asked: AskedDep) -> Response:
    """Show the invoices of a vendor, kind and month, account by account."""
    amount, only = asked.chosen("amount", AMOUNTS), asked.chosen("only", ("", "findings"))
    period, column = Period.parse(asked.param("period")), Column(asked.param("provider"), asked.param("kind"))
    account, after = asked.param("account"), asked.param("after")
    with asked.reading() as (connection, tables):
        cell = cell_of(asked, connection, tables, period, column)
        own = [one for one in cell.slices if one.slice.account == account or not account]
        one = own[0] if len(own) == 1 else None
        if account and one is None and account not in cell.lacking:
            raise nothing()
        found = invoices.listed(connection, tables, one.slice, after, only) if one else invoices.Listed([])
    return asked.html(
        "invoices",
        f"{vendor(column.provider)} {column.kind} {period.key}",
        period=period,
        provider=column.provider,
        kind=column.kind,
        cell=cell,
        one=one,
        amount=amount,
        only=only,
        found=found,
        after=after,
        next=asked.again(after=found.more),
        show_only=lambda which: asked.again(only=which),
    )


def one_invoice(asked: AskedDep) -> Response:
    """Show an invoice, its lines, and all that is known about it."""
    key = InvoiceKey(*(asked.param(name) for name in ("provider", "account", "kind", "id")))
    after = asked.param("after")
    if after and not after.isdigit():
        raise ConfigurationError("is the number of a line.", field="after")
    with asked.reading() as (connection, tables):
        if not asked.access.to_one_of(connection, tables, invoices.slices_with(connection, tables, key)):
            raise nothing()
        lines = invoices.lines_of(connection, tables, key, int(after or 0))
        taxes = invoices.taxes_of(connection, tables, key)
    told = explain(asked.staging, key)
    head = told["invoice"]
    return asked.html(
        "invoice",
        str(head["invoice_number"] or key.invoice_id),
        told=told,
        amounts_of={name: exact(head[name]) for name in INVOICE_AMOUNTS},
        month_of=Period.parse(head["slice_period"]).key,
        lines=lines,
        taxes=taxes,
        run=asked.run(told["load"]) if told["load"] else None,
        lines_after=after,
        first_lines=asked.again(),
        next_lines=asked.again(after=lines.more),
    )


def findings(asked: AskedDep) -> Response:
    """Show what a person should look at."""
    which, of = asked.chosen("which", details.WHICH), findings_of(asked)
    with asked.reading() as (connection, tables):
        seen = books_seen(asked, connection, tables)
        found = details.findings(connection, tables, which, _after(asked, 3), of=of, seen=seen)
    words = [
        Period.parse(of["period"]).key if "period" in of else "",
        vendor(of.get("provider", "")),
        of.get("kind", ""),
    ]
    return asked.html(
        "findings",
        "Findings",
        which=which,
        of=of,
        of_words=" ".join(word for word in words if word),
        found=found,
        after=asked.param("after"),
        csv=asked.view("findings.csv", **{**asked.given, "after": ""}),
        next=asked.again(after=found.more),
        show_which=lambda one: asked.again(which=one),
    )


def load(asked: AskedDep) -> Response:
    """Show an import: what it counted, what it asked, what it could not read."""
    with asked.reading() as (connection, tables):
        row = details.load_of(connection, tables, asked.param("id"))
    if row is None or not asked.access.may_read(row["dag_id"]):
        raise nothing()
    labels = [(name, comment.capitalize()) for name, comment in COUNTS.items()]
    totals = read_totals(row["totals"])
    return asked.html("load", "Import", load=row, run=asked.run(row), counts=labels, totals=totals)


def upload(asked: AskedDep) -> Response:
    """Show a file that went to Sage, with what became of each record."""
    status = asked.chosen("status", ("", "accepted", "rejected", "unknown"))
    with asked.reading() as (connection, tables):
        row = details.upload_of(connection, tables, asked.param("id"))
        if row is None or not asked.access.may_read(row["dag_id"]):
            raise nothing()
        found = details.items_of(connection, tables, row["upload_id"], status, _after(asked, 4))
    return asked.html(
        "upload",
        "File to Sage",
        upload=row,
        run=asked.run(row),
        status=status,
        found=found,
        after=asked.param("after"),
        next=asked.again(after=found.more),
        show_status=lambda one: asked.again(status=one),
    )


def margin(asked: AskedDep) -> Response:
    """Show what is earned on a month, by customer."""
    with asked.reading() as (connection, tables):
        months = margin_months(asked, connection, tables)
        period = Period.parse(asked.param("period")) if asked.param("period") else next(iter(months), None)
        report = _margins.of(connection, tables, period) if period else None
    shown = [(one.key, one.key) for one in months]
    return asked.html(
        "margin",
        "Margin",
        period=period,
        months=shown,
        report=report,
        show_month=lambda one: asked.view("margin", period=one),
    )


def search(asked: AskedDep) -> Response:
    """Show the invoices that a number or a customer's name is in."""
    text = asked.param("q").strip()
    found = invoices.Listed([])
    if len(text) >= _FEWEST:
        with asked.reading() as (connection, tables):
            allowed = [one.slice for one in asked.access.of(slices_of(connection, tables))]
            found = invoices.search(connection, tables, text, allowed, _after(asked, 4))
    return asked.html(
        "search",
        "Search",
        query=text if len(text) >= _FEWEST else "",
        found=found,
        after=asked.param("after"),
        first=asked.again(),
        next=asked.again(after=found.more),
    )


def cell_of(asked: Asked, connection: Connection, tables: Tables, period: Period, column: Column) -> Cell:
    """Return the cell of the overview that a request is about.

    :raises HTTPException: when there is none, or the user may not see it.
    """
    found = matrix(connection, tables, asked.access, today(), period)
    for row in found.rows:
        if row.period == period and column in row.cells and row.cells[column].state:
            return row.cells[column]
    raise nothing()


def books_seen(asked: Asked, connection: Connection, tables: Tables) -> set[Book] | None:
    """Return the accounts and kinds of which the user may see every month; None: all there are."""
    every = slices_of(connection, tables)
    seen = {one.slice for one in asked.access.of(every)}
    hidden = {one.slice[:3] for one in every if one.slice not in seen}
    return {slice_[:3] for slice_ in seen} - hidden if hidden else None


def margin_months(asked: Asked, connection: Connection, tables: Tables) -> list[Period]:
    """Return the months of which there may be a margin, the latest first.

    :raises ConfigurationError: when the user may not see everything: a margin compares all accounts.
    """
    every = slices_of(connection, tables)
    if len(asked.access.of(every)) < len(every):
        raise HTTPException(403, "A margin compares all accounts, and you may see only some of them.")
    held = {one.slice.period for one in every if one.held and one.slice.kind in COUNTED}
    return sorted(held, reverse=True)[:_MARGIN_MONTHS]


def findings_of(asked: Asked) -> dict[str, str]:
    """Return the part of the ledger that findings are asked of."""
    names = ("provider", "account", "kind")
    of = {name: asked.param(name) for name in names if asked.param(name)}
    if asked.param("period"):
        of["period"] = str(Period.parse(asked.param("period")))
    return of


def _after(asked: Asked, length: int) -> list[str]:
    """Return the key that a page begins after.

    :raises ConfigurationError: when it is none.
    """
    text = asked.param("after")
    try:
        key = json.loads(text) if text else []
    except ValueError:
        key = None
    if not isinstance(key, list) or len(key) not in (0, length) or not all(isinstance(part, str) for part in key):
        raise ConfigurationError("is no place in the list; begin at its first page.", field="after")
    return key


def until_of(asked: Asked) -> Period | None:
    """Return the latest month to show, where one is asked for."""
    return Period.parse(asked.param("until")) if asked.param("until") else None


def today() -> date:
    """Return the day, in UTC."""
    return datetime.now(timezone.utc).date()


def _vendors(found: Matrix) -> list[tuple[str, int]]:
    """Return the vendors with the number of their columns."""
    counts: dict[str, int] = {}
    for column in found.columns:
        counts[column.provider] = counts.get(column.provider, 0) + 1
    return list(counts.items())


def nothing() -> HTTPException:
    """Return what is answered for what is not there, and for what one may not see: the same."""
    return HTTPException(404, "There is nothing of that kind, or you may not see it.")


VIEWS = {
    "": overview,
    "invoices": slice_invoices,
    "invoice": one_invoice,
    "findings": findings,
    "load": load,
    "upload": upload,
    "margin": margin,
    "search": search,
}
