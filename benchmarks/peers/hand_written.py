"""What somebody writes in an afternoon: httpx, page after page, and the driver's ``executemany`` in one transaction."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import Any

from peers.statements import insert
from peers.tables import APIS, INVOICE, LINE, number_of_pages, token


def work(job: Any) -> Callable[[], None]:
    """Return the import of the month; a re-run deletes it first. Amounts are read as text, so that they are exact."""
    import json

    import httpx  # noqa: TID251 - a peer is not this package

    api, engine = APIS[job.vendor], job.engine()

    def import_month() -> None:
        with (
            httpx.Client(base_url=job.url, timeout=60) as client,
            closing(engine.raw_connection()) as connection,
            closing(connection.cursor()) as cursor,
        ):
            if job.kind == "sqlite":
                cursor.execute("BEGIN")
            for table in (INVOICE, LINE) if job.again else ():
                cursor.execute(f"DELETE FROM {table.name}")
            client.headers["Authorization"] = f"Bearer {token(job, client.post)}"
            number, pages = 1, 1
            while number <= pages:
                answer = client.get(api.path, params={**api.size, api.page: number})
                page = json.loads(answer.raise_for_status().content, parse_float=str)
                for table, rows in zip((INVOICE, LINE), api.rows(page[api.records]), strict=True):
                    cursor.executemany(insert(job.kind, table.name, table.columns), rows)
                number, pages = number + 1, number_of_pages(api, page)
            connection.commit()

    return import_month
