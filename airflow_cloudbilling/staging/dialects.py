"""What differs between the databases: the clock, the lock, the fastest way in, and a sign; one class for each."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from datetime import datetime, timezone
from typing import Any

from sqlalchemy import Column, Connection, CursorResult, Executable, Text, case, func, literal, type_coerce
from sqlalchemy.exc import DBAPIError

from airflow_cloudbilling.errors import StagingError
from airflow_cloudbilling.staging.rows import COPY_OPTIONS, NO_VALUE, copy_text, texts, values_text

LOCK_SECONDS = 600
_NO_BACKSLASH_ESCAPES = 512  # flag of the server's status in the MySQL protocol
_MOMENT = "%Y-%m-%d %H:%M:%S.%f"


def moment_text(value: datetime | str) -> str:
    """Return a moment read from a table as UTC text with microseconds; SQLite has it as text already."""
    return value if isinstance(value, str) else value.strftime(_MOMENT)


class Dialect:
    """A database with transactions, temporary tables and exact numbers."""

    clock_sql = ""
    sums = True  # whether SUM over amounts is exact

    def now(self, connection: Connection) -> str:
        """Return the database's own time as UTC text with microseconds, which sorts as time does."""
        moment: datetime = connection.exec_driver_sql(self.clock_sql).scalar_one()
        return moment_text(moment)

    @contextmanager
    def locked(self, connection: Connection, name: str) -> Iterator[None]:
        """Run one transaction that no other with the same name runs at the same time.

        :raises StagingError: when the lock is not free within ten minutes.
        """
        raise NotImplementedError

    def is_locked(self, connection: Connection, name: str) -> bool:
        """Whether somebody else holds the lock of this name right now."""
        raise NotImplementedError

    def insert(self, connection: Connection, table: str, names: Sequence[str], block: bytes) -> None:
        """Insert a block of rows, see :mod:`rows`, the fastest way that the database allows everybody."""
        raise NotImplementedError

    @contextmanager
    def inserting(self, connection: Connection, table: str, names: Sequence[str], block: bytes) -> Iterator[None]:
        """Begin to insert a block of rows, and wait for it at the end: a server may work in between."""
        self.insert(connection, table, names, block)
        yield

    def analyze(self, connection: Connection, *columns: Column[Any]) -> None:
        """Let the database learn what temporary tables hold, where nobody else tells it."""

    def walk_once(self, connection: Connection, statement: Executable) -> CursorResult[Any]:
        """Execute a statement that had better walk both tables once than look each row of one up in the other."""
        return connection.execute(statement)

    def negated(self, column: Any) -> Any:
        """Return the SQL expression of ``-column``."""
        return -column

    def bytewise(self, column: Any) -> Any:
        """Return the SQL expression of a text that compares byte by byte."""
        return column

    def is_transient(self, error: DBAPIError) -> bool:
        """Whether the database gave up a transaction that may simply be run again."""
        return False


class SQLite(Dialect):
    """Amounts are text, one writer at a time, no server and so no clock but this machine's."""

    sums = False

    def now(self, connection: Connection) -> str:
        """Return this machine's time."""
        return datetime.now(timezone.utc).strftime(_MOMENT)

    @contextmanager
    def locked(self, connection: Connection, name: str) -> Iterator[None]:
        """Run a transaction that holds the file's write lock from its beginning."""
        with connection.execution_options(sqlite_begin="BEGIN IMMEDIATE").begin():
            yield

    def insert(self, connection: Connection, table: str, names: Sequence[str], block: bytes) -> None:
        """Insert rows by one prepared statement that says itself what is NULL: the driver takes long over each None."""
        values = ", ".join([f"NULLIF(?, '{NO_VALUE}')"] * len(names))
        with closing(_driver_cursor(connection)) as cursor:
            cursor.executemany(f"INSERT INTO {table} ({', '.join(names)}) VALUES ({values})", texts(block))

    def negated(self, column: Any) -> Any:
        """Return the text of the negated amount; a number here would be a float."""
        text = type_coerce(column, Text())
        return case((text == "0", text), (text.like("-%"), func.substr(text, 2)), else_=literal("-") + text)


class PostgreSQL(Dialect):
    """COPY in, an advisory lock that ends with its transaction."""

    clock_sql = "SELECT clock_timestamp() AT TIME ZONE 'UTC'"

    @contextmanager
    def locked(self, connection: Connection, name: str) -> Iterator[None]:
        """Run a transaction under an advisory lock."""
        with connection.begin():
            connection.exec_driver_sql(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'")
            connection.exec_driver_sql("SELECT pg_advisory_xact_lock(%s)", (self._key(name),))
            yield

    def is_locked(self, connection: Connection, name: str) -> bool:
        """Whether the advisory lock cannot be had."""
        with connection.begin():
            got = connection.exec_driver_sql("SELECT pg_try_advisory_xact_lock(%s)", (self._key(name),))
            return not got.scalar_one()

    @staticmethod
    def _key(name: str) -> int:
        return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big", signed=True)

    def insert(self, connection: Connection, table: str, names: Sequence[str], block: bytes) -> None:
        """Send rows by COPY."""
        with self._copying(connection, table, names, block):
            pass

    @contextmanager
    def inserting(self, connection: Connection, table: str, names: Sequence[str], block: bytes) -> Iterator[None]:
        """Send rows by COPY, and wait at the end for the server to have taken them in.

        The statement lasts as long as the next rows take to come: a server's limit must not end it for that.
        """
        connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
        with self._copying(connection, table, names, block):
            yield

    @contextmanager
    def _copying(self, connection: Connection, table: str, names: Sequence[str], block: bytes) -> Iterator[None]:
        sql = f"COPY {table} ({', '.join(names)}) FROM STDIN ({COPY_OPTIONS})"
        dialect: Any = connection.dialect
        try:
            with _driver_cursor(connection) as cursor, cursor.copy(sql) as copy:
                copy.write(copy_text(block))
                yield
        except dialect.loaded_dbapi.Error as error:  # a lost session is told as of any other statement
            lost = dialect.is_disconnect(error, None, None)
            raise DBAPIError(sql, None, error, hide_parameters=True, connection_invalidated=lost) from error

    def analyze(self, connection: Connection, *columns: Column[Any]) -> None:
        """Count what temporary tables hold: autovacuum never does, and a wrong guess makes a join take hours."""
        parts = [f"{column.table} ({column.name})" for column in columns]
        # 3,000 rows tell enough; the usual 30,000 take as long as copying a tenth of 60,000 lines
        connection.exec_driver_sql("SET LOCAL default_statistics_target = 10")
        connection.exec_driver_sql(f"ANALYZE {', '.join(parts)}")

    def walk_once(self, connection: Connection, statement: Executable) -> CursorResult[Any]:
        """Execute without nested loops: a table without statistics is taken to be empty, and one takes a minute."""
        connection.exec_driver_sql("SET LOCAL enable_nestloop = off")
        result = connection.execute(statement)
        connection.exec_driver_sql("SET LOCAL enable_nestloop TO DEFAULT")
        return result

    def is_transient(self, error: DBAPIError) -> bool:
        """Whether it is a serialization failure or a deadlock."""
        return getattr(error.orig, "sqlstate", None) in ("40001", "40P01")


class MySQL(Dialect):
    """MySQL and MariaDB: multi-row INSERT, and a lock of the session, which may not end before the transaction."""

    clock_sql = "SELECT UTC_TIMESTAMP(6)"

    @contextmanager
    def locked(self, connection: Connection, name: str) -> Iterator[None]:
        """Run a transaction under a named lock."""
        key = self._key(name)
        got = connection.exec_driver_sql("SELECT GET_LOCK(%s, %s)", (key, LOCK_SECONDS)).scalar()
        connection.commit()  # what the transaction sees must be later than the lock
        if not got:
            raise StagingError(f"Another load of the same account still runs after {LOCK_SECONDS} s; try again later.")
        try:
            with connection.begin():
                yield
        finally:
            with suppress(DBAPIError):  # a session that is lost has lost its lock, and what was committed stays
                if not connection.invalidated:
                    connection.exec_driver_sql("SELECT RELEASE_LOCK(%s)", (key,))
                    connection.commit()

    def is_locked(self, connection: Connection, name: str) -> bool:
        """Whether the named lock is taken."""
        with connection.begin():
            free = connection.exec_driver_sql("SELECT IS_FREE_LOCK(%s)", (self._key(name),)).scalar_one()
            return bool(free == 0)

    @staticmethod
    def _key(name: str) -> str:
        return f"cloudbilling:{hashlib.sha256(name.encode()).hexdigest()[:48]}"

    def insert(self, connection: Connection, table: str, names: Sequence[str], block: bytes) -> None:
        """Send rows by INSERT statements of many rows; LOAD DATA LOCAL is switched off in most places, for good."""
        with self.inserting(connection, table, names, block):
            pass

    @contextmanager
    def inserting(self, connection: Connection, table: str, names: Sequence[str], block: bytes) -> Iterator[None]:
        """Send rows from a thread, which waits for the server while the next ones are read."""
        with _driver_cursor(connection) as cursor, ThreadPoolExecutor(1, "cloudbilling-insert") as thread:
            backslashes = not cursor.connection.server_status & _NO_BACKSLASH_ESCAPES
            values = values_text(block, backslashes=backslashes)
            sending = thread.submit(
                cursor.execute, f"INSERT INTO {table} ({', '.join(names)}) VALUES ".encode() + values
            )
            yield
            sending.result()

    def bytewise(self, column: Any) -> Any:
        """Return the text with the collation that tells everything apart but blanks at its end."""
        return column.collate("utf8mb4_bin")

    def is_transient(self, error: DBAPIError) -> bool:
        """Whether it is a deadlock (1213) or a lock wait timeout (1205)."""
        return bool(error.orig and error.orig.args and error.orig.args[0] in (1205, 1213))


def _driver_cursor(connection: Connection) -> Any:
    """Return a cursor of the driver itself, to be closed by the caller, in a transaction that SQLAlchemy knows of."""
    if not connection.in_transaction():
        connection.begin()
    return connection.connection.cursor()


_DIALECTS = {"sqlite": SQLite(), "postgresql": PostgreSQL(), "mysql": MySQL(), "mariadb": MySQL()}


def dialect_of(name: str) -> Dialect:
    """Return what differs in a database, by SQLAlchemy's name for it."""
    return _DIALECTS[name]
