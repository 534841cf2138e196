"""Which statements a process sends to its database, as the driver sees them; to be asked for before work begins."""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from typing import Any

from sqlalchemy import Engine, event

COMMAND = re.compile(r"\tCommandComplete\t \"([A-Z]+)")


def counted() -> Counter[str]:
    """Return a count by kind of statement, which grows as connections are closed.

    PostgreSQL's client library writes down what goes over the wire, MariaDB counts for each session; SQLite is no
    server.
    """
    found: Counter[str] = Counter()

    @event.listens_for(Engine, "connect")
    def begin(connection: Any, record: Any) -> None:
        if hasattr(connection, "pgconn"):
            record.info["trace"] = trace = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed with the connection
            connection.pgconn.trace(trace.fileno())

    @event.listens_for(Engine, "close")
    def end(connection: Any, record: Any) -> None:
        if trace := record.info.pop("trace", None):
            connection.pgconn.untrace()
            trace.seek(0)
            found.update(match[1] for line in trace if (match := COMMAND.search(line)))
            trace.close()
        elif hasattr(connection, "query"):
            with connection.cursor() as cursor:
                cursor.execute("SHOW SESSION STATUS LIKE 'Com\\_%'")
                found.update({name[4:].upper(): int(count) for name, count in cursor.fetchall() if count != "0"})

    return found
