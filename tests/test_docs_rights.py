"""The rights of the deployment guide: granted as they stand there, enough for every load, and no more than they say."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import pytest
from documentation import blocks
from sqlalchemy import Connection, Engine, create_engine, make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool
from staged import DRIVERS, NAMED, SERVERS, invoice, load

from airflow_cloudbilling.errors import StagingError
from airflow_cloudbilling.staging.create import script
from airflow_cloudbilling.staging.engine import Database, engine_for
from airflow_cloudbilling.staging.loader import Staging

BLOCKS = {one.mark.removeprefix("run: "): one.code for one in blocks("sql", page="docs/deployment.md") if one.mark}
DDL = "-- here what `airflow cloudbilling ddl` prints\n"


class Deployed:
    """A database on a server as the guide makes it, under names of its own."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.names = {name: f"{name}_{uuid4().hex[:8]}" for name in ("erp_staging", "cloudbilling", "erp")}
        self.server = make_url(os.environ[SERVERS[kind]]).set(drivername=DRIVERS[kind])

    def renamed(self, sql: str) -> str:
        """Return the guide's SQL with this database's names; those of tables stay."""
        return re.sub(r"\b(erp_staging|cloudbilling|erp)\b", lambda found: self.names[found[0]], sql)

    @contextmanager
    def admin(self, database: str | None = None) -> Iterator[Connection]:
        url = self.server.set(database=database or self.server.database)
        with create_engine(url, poolclass=NullPool, isolation_level="AUTOCOMMIT").connect() as connection:
            yield connection

    def follow(self, sql: str) -> None:
        """Run the guide's statements one after the other, as an administrator."""
        first, _, second = sql.partition("\\connect erp_staging\n")
        with self.admin() as connection:
            self._run(connection, first)
        if second:
            with self.admin(self.names["erp_staging"]) as connection:
                self._run(connection, second)

    def _run(self, connection: Connection, sql: str) -> None:
        before, printed, after = sql.partition(DDL)
        assert not after
        for statement in before.replace("%", "%%").split(";\n"):
            if statement.strip():
                connection.exec_driver_sql(self.renamed(statement))
        if printed:
            staging = self.staging("cloudbilling", "choose-one")
            for statement in script(staging.engine, staging.tables).split(";\n"):
                connection.exec_driver_sql(statement.replace("%", "%%").rstrip(";"))

    def engine(self, role: str, password: str) -> Engine:
        """Return an engine of the package for a role."""
        host, port = self.server.host, self.server.port
        return engine_for(
            Database("erp_staging", self.kind, host, port, self.names[role], password, self.names["erp_staging"])
        )

    def staging(self, role: str, password: str) -> Staging:
        return Staging(self.engine(role, password))

    def drop(self) -> None:
        with self.admin() as connection:
            force = " WITH (FORCE)" if self.kind == "postgres" else ""
            connection.exec_driver_sql(f"DROP DATABASE IF EXISTS {self.names['erp_staging']}{force}")
            for role in ("cloudbilling", "erp"):
                what = "ROLE" if self.kind == "postgres" else "USER"
                connection.exec_driver_sql(f"DROP {what} IF EXISTS {self.names[role]}")


@pytest.fixture(params=NAMED)
def deployed(request: Any) -> Iterator[Deployed]:
    made = Deployed(request.param)
    yield made
    made.drop()


def refused(act: Callable[[], Any]) -> str:
    with pytest.raises((DBAPIError, StagingError)) as caught:
        act()
    return str(caught.value)


def works(deployed: Deployed) -> None:
    """Load, load again and let the ERP read what is there, and no more."""
    staging = deployed.staging("cloudbilling", "choose-one")
    staging.create()
    assert load(staging, [*invoice(1), *invoice(2)]).merged.new == 2
    assert load(staging, [*invoice(1), *invoice(2, net="11")]).merged.changed == 1
    erp = deployed.engine("erp", "choose-another")
    own = deployed.names["cloudbilling"]
    table = f"{own}.cloudbilling_invoice" if deployed.kind == "postgres" else "cloudbilling_invoice"
    with erp.connect() as connection:
        assert len(connection.exec_driver_sql(f"SELECT * FROM {table}").all()) == 2
        view = table.replace("cloudbilling_invoice", "cloudbilling_margin")
        connection.exec_driver_sql(f"SELECT * FROM {view}").all()
        assert "lacks a right" in refused(lambda: connection.exec_driver_sql(f"DELETE FROM {table}"))


def test_airflow_makes_the_tables_and_the_erp_reads_them(deployed: Deployed) -> None:
    deployed.follow(BLOCKS[deployed.kind])
    works(deployed)


def test_airflow_may_make_none_when_another_makes_them(deployed: Deployed) -> None:
    deployed.follow(BLOCKS[f"{deployed.kind}, made by another"])
    works(deployed)
    staging = deployed.staging("cloudbilling", "choose-one")
    with staging.engine.connect() as connection:
        refused(lambda: connection.exec_driver_sql("CREATE TABLE more (id int)"))


def test_without_the_tables_the_error_has_the_sql(deployed: Deployed) -> None:
    deployed.follow(BLOCKS[f"{deployed.kind}, made by another"].replace(DDL, ""))
    told = refused(deployed.staging("cloudbilling", "choose-one").create)
    assert "If the right to create tables is missing" in told
    assert "CREATE TABLE" in told
