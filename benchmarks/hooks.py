"""Airflow's own hooks of the databases, to compare with."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any


def hook_of(kind: str, fields: Mapping[str, Any]) -> Any:
    """Return Airflow's own hook for a database.

    :param kind: ``sqlite``, ``postgres`` or ``mysql``.
    :param fields: of the Airflow connection.
    :raises ImportError: when its provider package is not installed.
    """
    own = dict(fields)
    if kind == "mysql":  # the hook's other driver, mysqlclient, has no wheels
        own["extra"] = {"client": "mysql-connector-python"}
    os.environ["AIRFLOW_CONN_BENCH_HOOK"] = json.dumps(own)
    if kind == "postgres":
        from airflow.providers.postgres.hooks.postgres import PostgresHook

        return PostgresHook("bench_hook")
    if kind == "mysql":
        from airflow.providers.mysql.hooks.mysql import MySqlHook

        return MySqlHook("bench_hook")
    from airflow.providers.sqlite.hooks.sqlite import SqliteHook

    return SqliteHook("bench_hook")
