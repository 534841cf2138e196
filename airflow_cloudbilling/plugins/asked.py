"""What a request to the page asks for: which staging database, by whom, and the addresses of further views."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import cached_property, partial
from typing import Annotated, Any

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity, DagDetails
from airflow.api_fastapi.core_api.security import get_user
from airflow.configuration import conf
from fastapi import Depends, HTTPException, Request
from fastapi.responses import HTMLResponse, Response
from sqlalchemy import Connection

from airflow_cloudbilling.errors import ConfigurationError
from airflow_cloudbilling.operators.database import look_into_staging
from airflow_cloudbilling.page import addresses
from airflow_cloudbilling.page.access import Access
from airflow_cloudbilling.page.render import html
from airflow_cloudbilling.staging.create import version_of
from airflow_cloudbilling.staging.loader import Staging
from airflow_cloudbilling.staging.reading import snapshot
from airflow_cloudbilling.staging.tables import SCHEMA_VERSION, Tables

_PARAMS = (
    "account", "after", "amount", "currency", "id", "kind", "only", "period", "provider", "q", "staging", "status",
    "until", "which",
)  # fmt: skip


def airflow_path(request: Request) -> str:
    """Return the path below which Airflow itself is served, without a slash at its end."""
    return str(request.scope.get("root_path", "")).rstrip("/").removesuffix(addresses.PREFIX)


def conn_ids() -> list[str]:
    """Return the staging databases that the page may show, each a connection's id or ``conn_id:schema``."""
    return [one.strip() for one in conf.get("cloudbilling", "staging_conn_ids").split(",") if one.strip()]


class NothingYet(ConfigurationError):
    """The staging database is there, and no import has been."""


class Asked:
    """A request for a view.

    :param user: who asks, as Airflow knows them.
    """

    def __init__(self, request: Request, user: Annotated[Any, Depends(get_user)]) -> None:
        self.request = request
        self.user = user
        self.airflow = airflow_path(request)
        self.name = request.url.path.rpartition(f"{addresses.PREFIX}/")[2]
        self.conn_ids = conn_ids()
        self.conn_id = self.conn_id_of(request)
        self.given = {name: value for name, value in request.query_params.items() if name in _PARAMS}
        self.access = Access(self._readable)

    @staticmethod
    def conn_id_of(request: Request) -> str:
        """Return the staging database that is asked for; the first one where none is named."""
        known = conn_ids()
        return request.query_params.get("staging") or (known[0] if known else "")

    @property
    def choices(self) -> list[tuple[str, str]]:
        """The staging databases that one may look into."""
        return [(one, one) for one in self.conn_ids]

    def param(self, name: str) -> str:
        """Return a parameter, empty where there is none."""
        return self.given.get(name, "")

    def chosen(self, name: str, options: Collection[str]) -> str:
        """Return a parameter that is one of some words, the first of them where there is none.

        :raises HTTPException: when it is another one.
        """
        value = self.param(name) or next(iter(options))
        if value not in options:
            raise HTTPException(404, f"{name} is one of {', '.join(map(repr, options))}.")
        return value

    def view(self, name: str = "", **params: Any) -> str:
        """Return the address of a view of the same staging database."""
        return addresses.view(self.airflow, name, **{"staging": self._named(), **params})

    @property
    def here(self) -> str:
        """The address of this very view."""
        return self.view(self.name, **self.given)

    def path(self, name: str) -> str:
        """Return the address of a view without parameters, for a form."""
        return addresses.view(self.airflow, name)

    def again(self, **changed: Any) -> str:
        """Return the address of this very view with other parameters."""
        return self.view(self.name, **{**self.given, "after": "", **changed})

    def other(self, conn_id: str) -> str:
        """Return the address of the overview of another staging database."""
        return addresses.view(self.airflow, staging=conn_id)

    def run(self, row: Any) -> str | None:
        """Return the address of the task instance that a row names, for who may read its DAG."""
        if not row["dag_id"] or not row["run_id"] or not self.access.may_read(row["dag_id"]):
            return None
        names = ("dag_id", "run_id", "task_id", "map_index")
        return addresses.task_instance(self.airflow, **{name: row[name] for name in names})

    @contextmanager
    def reading(self) -> Iterator[tuple[Connection, Tables]]:
        """Read the staging tables as of one moment; nothing is created, nothing is written.

        :raises NothingYet: when it has no tables yet.
        :raises ConfigurationError: when it has older or newer ones.
        """
        staging = self.staging
        with snapshot(staging.engine) as connection:
            version = version_of(connection, staging.tables)
            if version is None:
                raise NothingYet(
                    "there are no staging tables yet; the first import into it makes them, by a DAG or by"
                    " airflow cloudbilling stage. If imports have run, look for their tables in another database, or"
                    " in another schema ([cloudbilling] staging_conn_ids = conn_id:schema).",
                    conn_id=self.conn_id,
                )
            if version != SCHEMA_VERSION:
                raise ConfigurationError(
                    f"its tables are of version {version}, this page knows {SCHEMA_VERSION}; an import upgrades them,"
                    " by the same version of the package as here.",
                    conn_id=self.conn_id,
                    field="host",
                )
            yield connection, staging.tables

    @cached_property
    def staging(self) -> Staging:
        """The staging database.

        :raises ConfigurationError: when the connection is none that the page shows.
        """
        if self.conn_id not in self.conn_ids:
            raise ConfigurationError(
                f"{self.conn_id!r} is not among those that [cloudbilling] staging_conn_ids names.", field="staging"
            )
        conn_id, _, schema = self.conn_id.partition(":")
        return look_into_staging(conn_id, schema or None)

    def html(self, template: str, title: str, **values: Any) -> Response:
        """Return a page."""
        return HTMLResponse(html(template, title=title, page=self, **values))

    def _named(self) -> str:
        return "" if self.conn_ids[:1] == [self.conn_id] else self.conn_id

    def _readable(self, dag_ids: Collection[str | None]) -> set[str | None]:
        """Return which DAGs' runs the user may read; None, which no DAG has written, stands for all of them."""
        may = partial(
            get_auth_manager().is_authorized_dag, method="GET", access_entity=DagAccessEntity.RUN, user=self.user
        )
        return {one for one in dag_ids if may(details=DagDetails(id=one) if one else None)}


AskedDep = Annotated[Asked, Depends(Asked)]


def message(request: Request, title: str, words: str, status: int, severity: str = "error") -> Response:
    """Return a page that says one thing."""
    page = Asked(request, None)
    return HTMLResponse(html("message", title=title, page=page, message=words, severity=severity), status)
