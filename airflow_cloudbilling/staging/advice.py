"""What a database's error means to who reads the log: which connection it is about, and what to do."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Engine, event
from sqlalchemy.engine import ExceptionContext

_LOST = "the connection was lost; nothing half-written stays, run the task again"
_RIGHTS = (
    "the user lacks a right; let somebody who may grant it: SELECT, INSERT, UPDATE and DELETE on the tables"
    " cloudbilling_*, and temporary tables"
)
_TABLES = (
    "see that there is a database (schema) of this name, and that this login may make tables and temporary tables in it"
)
_READ_ONLY = "the database takes no writing; name the primary server, or a file that may be written"
_ADVICE: dict[str, tuple[str | int, ...]] = {  # → SQLSTATE of PostgreSQL, number of MySQL, or words of SQLite
    "somebody else works on the same rows; run the task again": (
        *("40001", "40P01", "55P03", 1205, 1213, "database is locked"),
    ),
    "the database's disk is full; free space there, and run the task again": (
        *("53100", 1021, 1114, "database or disk is full", "disk I/O error"),
    ),
    _READ_ONLY: ("25006", 1290, 1792, 1836, "readonly database"),
    _RIGHTS: ("42501", 1142, 1370),
    "compare login and password": ("28P01", "28000", 1045, "password authentication failed", "no password supplied"),
    _TABLES: (1044,),
    "compare the database's name (schema), and see that this login may use it": ("3D000", 1049, "FATAL:  database"),
    "compare the TLS fields in extra with what the server wants: sslmode, sslrootcert, sslcert and sslkey for"
    " PostgreSQL, ssl for MySQL": (  # before what names host and port: to PyMySQL all that fails at connecting is 2003
        *(2026, "server does not support SSL", "invalid sslmode", "certificate verify failed", "root certificate file"),
    ),
    "compare host and port, and see that this machine may reach them": (
        *(2003, 2005, "Connection refused", "failed to resolve host", "No route to host", "Network is unreachable"),
        *("timeout expired",),
    ),
    "compare host and port: what answers there is no PostgreSQL": ("invalid response to SSL negotiation",),
    "the folder must be there, and whoever runs this must be allowed to write in it": ("unable to open database file",),
    "the tables are not those of this version; if nobody changed them by hand, delete the row of"
    " cloudbilling_schema_version, so that the next task adds what is missing": (
        *("42P01", "42703", 1054, 1146, "no such table", "no such column", "has no column named"),
    ),
}


def explain_errors(engine: Engine, conn_id: str) -> None:
    """Let every error of an engine name its connection and say what to do; its type stays.

    :param conn_id: the Airflow connection that the engine was made from.
    """

    def explain(context: ExceptionContext) -> None:
        original: Any = context.original_exception
        vars(original).pop("_pgconn", None)  # psycopg keeps the password there
        error = context.sqlalchemy_exception
        if error is not None:
            said = " - ".join(filter(None, (str(error.args[0]).strip(), advice(original, context.is_disconnect))))
            error.args = (f"Connection {conn_id!r}: {said}", *error.args[1:])

    event.listen(engine, "handle_error", explain)


def advice(error: Any, lost: bool) -> str:
    """Return what to do about a driver's error, empty where nobody knows.

    :param lost: whether the connection is gone with it.
    """
    number, said = next(iter(error.args), ""), " ".join(map(str, error.args))  # MySQL's words follow its number
    for words, signs in _ADVICE.items():
        if {getattr(error, "sqlstate", None), number} & {*signs}:
            return words
        if any(isinstance(sign, str) and " " in sign and sign in said for sign in signs):
            return words
    return _LOST if lost else ""


def may_be_about_rights(error: Any) -> bool:
    """Whether a driver's error may be about what a user may not write, or is about nothing that is known here."""
    return advice(error, lost=False) in ("", _RIGHTS, _TABLES, _READ_ONLY)
