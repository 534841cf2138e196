"""Airflow's own parts: HttpOperator with pagination and a filter, then ``insert_rows`` of the database's hook."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any

from peers.tables import APIS, INVOICE, LINE, Api, Plain, Row, token

PAGES = re.compile(rb'"total(?:NumberOfP|_p)ages": ?(\d+)')


def work(job: Any) -> Callable[[], None]:
    """Return the import of the month. A re-run replaces rows; amounts are read as text, so that they are exact.

    ``insert_rows`` is told to use ``executemany``, which is faster than what it does by itself.
    """
    import requests  # noqa: TID251 - a peer is not this package
    from airflow.providers.http.operators.http import HttpOperator
    from hooks import hook_of

    api, hook = APIS[job.vendor], hook_of(job.kind, job.fields)

    def import_month() -> None:
        read = HttpOperator(
            task_id="read",
            http_conn_id="bench_http",
            endpoint=api.path,
            method="GET",
            data={**api.size, api.page: 1},
            headers={"Authorization": f"Bearer {token(job, requests.post)}"},
            pagination_function=partial(_further, api),
            response_filter=partial(_rows, api),
        )
        for table, found in zip((INVOICE, LINE), read.execute({}), strict=True):
            hook.insert_rows(table.name, found, table.columns, executemany=True, **_replacing(job, table))

    return import_month


def _further(api: Api, response: Any) -> dict[str, Any] | None:
    """Look for the number of pages in the bytes: to decode each page twice would be slower."""
    number = int(response.url.rpartition(f"{api.page}=")[2])
    found = PAGES.search(response.content)
    return {"data": {api.page: number + 1}} if found and number < int(found[1]) else None


def _rows(api: Api, responses: list[Any]) -> tuple[list[Row], list[Row]]:
    invoices: list[Row] = []
    lines: list[Row] = []
    for response in responses:
        more = api.rows(response.json(parse_float=str)[api.records])
        invoices += more[0]
        lines += more[1]
    return invoices, lines


def _replacing(job: Any, table: Plain) -> dict[str, Any]:
    if not job.again:
        return {}
    return {"replace": True, "replace_index": list(table.key)} if job.kind == "postgres" else {"replace": True}
