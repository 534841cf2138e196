"""The floor: what the machine allows when nothing is checked, kept or promised.

Eight connections without an HTTP library, amounts as text by msgspec, COPY and one upsert on PostgreSQL; elsewhere one
``executemany`` with upsert. No hashes, no validation, no ledger, no limit to what is held in memory.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from typing import Any
from urllib.parse import urlencode, urlsplit

import msgspec

from peers.statements import upsert, upsert_from
from peers.tables import APIS, INVOICE, LINE, Row, number_of_pages

CONNECTIONS = 8
BATCH = 2000  # rows in one executemany


def work(job: Any) -> Callable[[], None]:
    """Return the import of the month."""
    write = _copied if job.kind == "postgres" else _upserted

    def import_month() -> None:
        asyncio.run(write(job))

    return import_month


async def _rows(job: Any) -> AsyncIterator[tuple[list[Row], list[Row]]]:
    """Yield the rows of each page as it comes; eight are asked for at once, once the first says how many there are."""
    api = APIS[job.vendor]
    decode = msgspec.json.Decoder(float_hook=str).decode
    left = deque([1])
    readers = [_answers(job, left) for _ in range(CONNECTIONS)]
    first = decode(await anext(readers[0]))
    yield api.rows(first[api.records])
    left.extend(range(2, number_of_pages(api, first) + 1))
    waiting: asyncio.Queue[bytes | None] = asyncio.Queue(CONNECTIONS)
    tasks = [asyncio.ensure_future(_pass_on(one, waiting)) for one in readers]
    running = len(tasks)
    while running:
        if (body := await waiting.get()) is None:
            running -= 1
        else:
            yield api.rows(decode(body)[api.records])
    await asyncio.gather(*tasks)


async def _pass_on(bodies: AsyncIterator[bytes], waiting: asyncio.Queue[bytes | None]) -> None:
    async for body in bodies:
        await waiting.put(body)
    await waiting.put(None)


async def _answers(job: Any, left: deque[int]) -> AsyncIterator[bytes]:
    """Yield bodies, read over one connection of their own."""
    api, place = APIS[job.vendor], urlsplit(job.url)
    reader, writer = await asyncio.open_connection(place.hostname, place.port, limit=1 << 20)
    while left:
        query = urlencode({**api.size, api.page: left.popleft()})
        head = f"GET /{api.path}?{query} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {job.token}\r\n\r\n"
        writer.write(head.encode())
        answer = await reader.readuntil(b"\r\n\r\n")
        yield await reader.readexactly(int(answer.lower().partition(b"content-length:")[2].split(b"\r", 1)[0]))
    writer.close()


async def _copied(job: Any) -> None:
    with closing(job.engine().raw_connection()) as connection, closing(connection.cursor()) as cursor:
        for table in (INVOICE, LINE):
            cursor.execute(f"CREATE TEMPORARY TABLE new_{table.name} (LIKE {table.name}) ON COMMIT DROP")
        heads: list[str] = []
        with cursor.copy(f"COPY new_{LINE.name} FROM STDIN") as copy:
            async for invoices, lines in _rows(job):
                copy.write(_text(lines))
                heads.append(_text(invoices))
        with cursor.copy(f"COPY new_{INVOICE.name} FROM STDIN") as copy:
            copy.write("".join(heads))
        for table in (INVOICE, LINE):
            cursor.execute(upsert_from(f"new_{table.name}", table.name, list(table.key), list(table.others)))
        connection.commit()


async def _upserted(job: Any) -> None:
    with closing(job.engine().raw_connection()) as connection, closing(connection.cursor()) as cursor:
        if job.kind == "sqlite":
            cursor.execute("BEGIN")
        async for pair in _rows(job):
            for table, rows in zip((INVOICE, LINE), pair, strict=True):
                statement = upsert(job.kind, table.name, list(table.key), list(table.others))
                for start in range(0, len(rows), BATCH):
                    cursor.executemany(statement, rows[start : start + BATCH])
        connection.commit()


def _text(rows: list[Row]) -> str:
    """Return rows for COPY: joined by what no text holds, escaped all at once, and only then with tabs and newlines."""
    lines = [
        "\x1f".join(["\0" if one is None else one if type(one) is str else str(one) for one in row]) for row in rows
    ]
    text = "\x1e".join([*lines, ""])
    for plain, escaped in (("\\", "\\\\"), ("\t", "\\t"), ("\n", "\\n"), ("\r", "\\r")):
        text = text.replace(plain, escaped)
    return text.replace("\x1f", "\t").replace("\x1e", "\n").replace("\0", "\\N")
