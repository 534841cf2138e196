"""Scopes of Sage as snapshots: records that a newer file lacks go, and what did not change is not written again."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import Column, Index, Integer, MetaData, delete, exists, func, insert, literal, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql.elements import ColumnElement

from airflow_cloudbilling.errors import ConfigurationError, LoadError
from airflow_cloudbilling.staging.columns import MOMENT
from airflow_cloudbilling.staging.dialects import dialect_of
from airflow_cloudbilling.staging.temporary import Batch, Sender, copy_rows, temporary

if TYPE_CHECKING:
    from sqlalchemy import Connection, Table

    from airflow_cloudbilling.staging.loader import Staging

ScopeRow = tuple[str, str, str]  # record_key, raw, content_hash
_OWN = ("record_key", "raw", "content_hash")
_LONGEST = {"conn_id": 250, "scope": 128}  # characters, of the columns


@dataclass
class Staged:
    """How a snapshot ended: ``committed``, or ``superseded`` by one whose reading began later."""

    status: str
    new: int = 0
    changed: int = 0
    unchanged: int = 0
    removed: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Return plain, small data for XCom."""
        return asdict(self)


class Snapshot:
    """Takes in the records of one scope's file; staging is as it was until :meth:`commit`.

    The reading counts from the moment that the ``with`` block is entered: enter it before the file is asked for.

    :param conn_id: the Airflow connection that the file comes from.
    :param scope: Sage's name of it.
    :raises ConfigurationError: when one of them is too long for its column.
    """

    def __init__(self, staging: Staging, conn_id: str, scope: str) -> None:
        for name, value in (("conn_id", conn_id), ("scope", scope)):
            if len(value) > _LONGEST[name]:
                raise ConfigurationError(f"{value[:40]!r}… is longer than {_LONGEST[name]} characters.", field=name)
        self.staging = staging
        self.dialect = dialect_of(staging.engine.dialect.name)
        self.key = {"conn_id": conn_id, "scope": scope}
        self.records = 0
        self._began = ""

    def __enter__(self) -> Snapshot:
        """Note the moment, and make the temporary table."""
        self._connection = self.staging.engine.connect().execution_options(preserve_rowcount=True)
        self._began = self.dialect.now(self._connection)
        columns = self.staging.tables.scope_record.c
        metadata = MetaData()
        seq = Column("seq", Integer(), primary_key=True, autoincrement=False)
        self._new = temporary("new_scope_record", metadata, seq, *(Column(n, columns[n].type) for n in _OWN))
        metadata.create_all(self._connection, checkfirst=False)
        self._connection.commit()
        self._sender = Sender(self._connection)
        self._batch = Batch(self._sender, self._new, ("seq", *_OWN))
        return self

    def __exit__(self, *_: object) -> None:
        """Let the temporary table go."""
        self._sender.close()
        with suppress(DBAPIError):  # it is broken already, which is what ended the snapshot
            self._connection.close()

    def add(self, row: ScopeRow) -> None:
        """Take in one record; they are sent in blocks, so that nothing grows with their number."""
        self.records += 1
        if self._batch.add((str(self.records), *row)):
            self._batch.flush()

    def commit(self) -> Staged:
        """Replace what is staged of the scope, in one short transaction.

        :raises LoadError: when two different records have one id; nothing is changed.
        """
        self._batch.flush()
        connection = self._sender.connection
        Index("cloudbilling_new_scope_record_by_key", self._new.c.record_key).create(connection)
        self._drop_duplicates(connection)
        self.dialect.analyze(connection, self._new.c.record_key)
        connection.commit()
        name = f"{self.staging.tables.metadata.schema}/scope/{self.key['conn_id']}/{self.key['scope']}"
        with self.dialect.locked(connection, name):
            if self._superseded(connection):
                return Staged("superseded")
            return self._replace(connection)

    def _drop_duplicates(self, connection: Connection) -> None:
        """Drop all but the first of records that came several times alike."""
        new = self._new.c
        contents, first = func.count(new.content_hash.distinct()), func.min(new.seq)
        repeated = select(new.record_key, contents, first).group_by(new.record_key).having(func.count() > 1)
        for record_key, different, kept in connection.execute(repeated).all():
            if different > 1:
                raise LoadError(
                    f"Scope {self.key['scope']!r}: different records with the id {record_key!r} came in one file; "
                    "nothing was changed. Look whether another member tells them apart, and name it as record_id."
                )
            others = (new.record_key == record_key) & (new.seq > kept)
            self.records -= connection.execute(delete(self._new).where(others)).rowcount

    def _superseded(self, connection: Connection) -> bool:
        """Whether a file that was asked for later is staged already."""
        scope = self.staging.tables.scope
        later = scope.c.read_at > literal(self._began, MOMENT)
        return connection.scalar(select(exists().where(self._of(scope), later))) or False

    def _replace(self, connection: Connection) -> Staged:
        staged, new = self.staging.tables.scope_record, self._new
        own, same = self._of(staged), new.c.record_key == staged.c.record_key
        before = connection.scalar(select(func.count()).select_from(staged).where(own)) or 0
        removed = connection.execute(delete(staged).where(own, ~exists().where(same))).rowcount
        differs = exists().where(same, new.c.content_hash != staged.c.content_hash)
        changed = connection.execute(delete(staged).where(own, differs)).rowcount
        now = self.dialect.now(connection)
        values = {**self.key, "loaded_at": now}
        copy_rows(connection, staged, new, values, select(new).where(~exists().where(own, same)))
        self._note(connection, now)
        kept = before - removed
        return Staged("committed", self.records - kept, changed, kept - changed, removed)

    def _note(self, connection: Connection, now: str) -> None:
        """Write that the scope was read, and when."""
        scope = self.staging.tables.scope
        connection.execute(delete(scope).where(self._of(scope)))
        row = {**self.key, "record_count": self.records, "read_at": self._began, "loaded_at": now}
        connection.execute(insert(scope), [row])

    def _of(self, table: Table) -> ColumnElement[bool]:
        return (table.c.conn_id == self.key["conn_id"]) & (table.c.scope == self.key["scope"])
