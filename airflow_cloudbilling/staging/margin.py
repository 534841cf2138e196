"""Purchase against sales, line by line: the query behind ``cloudbilling_margin``."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Select, and_, case, func, literal, null, select, union_all

from airflow_cloudbilling.staging.reading import KEY, same_invoice
from airflow_cloudbilling.staging.tables import Tables

BOUGHT, SOLD, MATCHED = "bought only", "sold only", "matched"
_SHARED = ("customer_id", "customer_name", "subscription_id", "subscription_name", "item_code", "description")
_OF_INVOICE = ("currency", "slice_period", "status")


def margin_query(tables: Tables, dialect_name: str) -> Any:
    """Return purchase lines beside the sales lines of the same charge, and what stands on one side only; each once."""
    bought, sold = (_numbered(tables, kind, dialect_name).subquery(kind) for kind in ("purchase", "sales"))
    names = [column.name for column in bought.c if column.name.startswith("pair_")]
    pair = and_(*(bought.c[name] == sold.c[name] for name in names))
    state = case((sold.c.invoice_id.is_(None), BOUGHT), else_=MATCHED)
    first = _margin_row(bought, bought, sold, state).select_from(bought.outerjoin(sold, pair))
    alone = _margin_row(sold, None, sold, literal(SOLD))
    second = alone.select_from(sold.outerjoin(bought, pair)).where(bought.c.invoice_id.is_(None))
    return union_all(first, second)


def _numbered(tables: Tables, kind: str, dialect_name: str) -> Select[Any]:
    """Return the lines of a kind, those of one charge numbered: where both sides have two, two pairs are four lines."""
    line, invoice = tables.invoice_line, tables.invoice
    is_credit = case((invoice.c.document_type == "credit_note", "1"), else_="0")  # an invoice is no credit's partner
    keys = _keys(line, is_credit, dialect_name)
    order = (line.c.invoice_id, line.c.line_number)
    nth = func.row_number().over(partition_by=keys, order_by=order)
    names = (*KEY, "line_number", "match_key", *_SHARED, "quantity", "net_amount")
    pair = [key.label(f"pair_{number}") for number, key in enumerate((*keys, nth))]
    columns = (*(line.c[name] for name in names), *(invoice.c[name] for name in _OF_INVOICE), *pair)
    joined = line.join(invoice, same_invoice(line, invoice))
    return select(*columns).select_from(joined).where(line.c.kind == kind)


def _keys(line: Any, is_credit: Any, dialect_name: str) -> list[Any]:
    """Return what the lines of one charge have in common."""
    columns = [line.c.provider, line.c.account, line.c.match_key]
    if dialect_name in ("sqlite", "postgresql"):
        return [*columns, is_credit]
    # There a text of any length has no index and compares without case; and MariaDB numbers the lines anew for each
    # one that it joins, as long as it sees columns of the table in the join.
    account = (func.length(columns[1]), "/", columns[1])
    return [func.sha2(func.concat(is_credit, columns[0], "/", *account, columns[2]), 256)]


def _margin_row(own: Any, bought: Any, sold: Any, state: Any) -> Select[Any]:
    columns = [own.c[name] for name in ("provider", "account", "match_key", *_SHARED)]
    columns.append(state.label("state"))
    for prefix, line in (("purchase", bought), ("sales", sold)):
        for name in ("invoice_id", "line_number", "quantity", "net_amount", *_OF_INVOICE):
            label = f"{prefix}_{name.replace('slice_', '')}"
            columns.append((null() if line is None else line.c[name]).label(label))
    columns.append(own.c.slice_period.label("period"))
    return select(*columns)
