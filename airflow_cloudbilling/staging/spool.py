"""Pages received before a deferral, kept in ``cloudbilling_spool`` so that any worker can go on where the load waits.

A page is one or more rows, numbered in the order in which the vendor was asked: the first row says what was asked and
answered, each row holds a piece of the compressed body. No row is larger than the strictest server's packet.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Iterator
from itertools import count
from typing import IO, Any, NamedTuple

from sqlalchemy import Connection, Engine, Table, and_, delete, exists, func, insert, select

from airflow_cloudbilling.errors import StagingError
from airflow_cloudbilling.staging.tables import Tables

PIECE = 512 * 1024  # bytes of one row's body, compressed, and of one step of reading
_TOGETHER = 1024 * 1024  # bytes of the rows that are written in one transaction
_LEVEL = 1  # of zlib: it is read again once, within hours


class SpooledPage(NamedTuple):
    """A good answer of a vendor.

    :param request_key: SHA-256 of the request, without credentials.
    :param url: without secrets.
    :param headers: those that a source reads, as JSON.
    :param sha256: of the body as received, as hex.
    :param size: bytes of the body.
    :param body: its bytes in pieces, not all of them in memory; :func:`pieces` makes them of a file. Of a page that
        was read back, each iteration reads the body anew, and raises ``StagingError`` at the end if it is damaged.
    """

    request_key: str
    url: str
    status: int
    headers: str
    sha256: str
    size: int
    body: Iterable[bytes]


def pieces(file: IO[bytes]) -> Iterator[bytes]:
    """Yield a file's bytes from its beginning, a bounded number at a time."""
    file.seek(0)
    while piece := file.read(PIECE):
        yield piece


class Spool:
    """Writes, reads and empties the spool.

    :param engine: of the staging database.
    """

    def __init__(self, engine: Engine, tables: Tables) -> None:
        self._engine = engine
        self._table = tables.spool

    def write(self, load_id: str, pages: Iterable[SpooledPage]) -> None:
        """Add pages after those that are there, a few rows to a transaction: only a load that waits is taken up."""
        held: list[dict[str, Any]] = []
        size = 0
        for row in self._rows(load_id, pages):
            held.append(row)
            size += len(row["body"])
            if size >= _TOGETHER:
                self._insert(held)
                held, size = [], 0
        self._insert(held)

    def pages(self, load_id: str) -> list[SpooledPage]:
        """Return a load's pages in the order in which they came, with bodies that are read when they are iterated."""
        table = self._table
        names = ("sequence", *SpooledPage._fields[:-1])
        first_rows = select(*(table.c[name] for name in names)).where(table.c.load_id == load_id, table.c.chunk == 1)
        with self._engine.connect() as connection:
            found = connection.execute(first_rows.order_by(table.c.sequence)).all()
        return [self._page(load_id, *row) for row in found]

    def holds(self, connection: Connection, load_id: str) -> bool:
        """Whether pages of a load are there."""
        return bool(connection.scalar(select(exists().where(self._table.c.load_id == load_id))))

    def forget(self, connection: Connection, which: list[str]) -> None:
        """Delete the pages of loads that have ended, in the caller's transaction."""
        connection.execute(delete(self._table).where(self._table.c.load_id.in_(which)))

    def _rows(self, load_id: str, pages: Iterable[SpooledPage]) -> Iterator[dict[str, Any]]:
        table = self._table
        with self._engine.connect() as connection:
            last = connection.scalar(select(func.max(table.c.sequence)).where(table.c.load_id == load_id))
        sequence = last or 0
        for page in pages:
            for chunk, body in enumerate(_compressed(page.body), 1):
                sequence += 1
                facts = page[:-1] if chunk == 1 else [None] * (len(page) - 1)
                values = dict(zip(page._fields, [*facts, body], strict=True))
                yield {"load_id": load_id, "sequence": sequence, "chunk": chunk, **values}

    def _page(self, load_id: str, first: int, *facts: Any) -> SpooledPage:
        page = SpooledPage._make([*facts, ()])
        return page._replace(body=_Body(self._engine, self._table, load_id, first, page))

    def _insert(self, rows: list[dict[str, Any]]) -> None:
        if rows:
            with self._engine.begin() as connection:
                connection.execute(insert(self._table), rows)


class _Body:
    """The body of a page, read row by row."""

    def __init__(self, engine: Engine, table: Table, load_id: str, first: int, page: SpooledPage) -> None:
        self._engine = engine
        self._table = table
        self._load_id = load_id
        self._first = first
        self._expected = (page.size, page.sha256)

    def __iter__(self) -> Iterator[bytes]:
        digest, size = hashlib.sha256(), 0
        try:
            for piece in _decompressed(self._rows()):
                digest.update(piece)
                size += len(piece)
                yield piece
        except zlib.error as error:
            raise self._damaged() from error
        if (size, digest.hexdigest()) != self._expected:
            raise self._damaged()

    def _rows(self) -> Iterator[bytes]:
        table = self._table
        with self._engine.connect() as connection:
            for chunk in count(1):
                place = and_(table.c.sequence == self._first + chunk - 1, table.c.chunk == chunk)
                body = connection.scalar(select(table.c.body).where(table.c.load_id == self._load_id, place))
                if body is None:
                    return
                yield body

    def _damaged(self) -> StagingError:
        return StagingError(
            f"A page of load {self._load_id} that was received before a wait is damaged in {self._table}: its content "
            "has another SHA-256. Run the task again; it asks the vendor anew."
        )


def _compressed(body: Iterable[bytes]) -> Iterator[bytes]:
    """Yield at least one piece, each but the last of the size of a row."""
    packer, held = zlib.compressobj(_LEVEL), bytearray()
    for piece in body:
        held += packer.compress(piece)
        while len(held) > PIECE:
            yield bytes(held[:PIECE])
            del held[:PIECE]
    held += packer.flush()
    for start in range(0, len(held), PIECE):
        yield bytes(held[start : start + PIECE])


def _decompressed(rows: Iterable[bytes]) -> Iterator[bytes]:
    unpacker = zlib.decompressobj()
    for row in rows:
        left = row
        while left:
            if piece := unpacker.decompress(left, PIECE):
                yield piece
            left = unpacker.unconsumed_tail
    if rest := unpacker.flush():
        yield rest
