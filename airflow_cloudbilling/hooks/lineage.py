"""Where data came from and went, by the names that Airflow's hook lineage and OpenLineage have for it.

No name holds a secret: of an address there is its scheme, host and port, and of a connection its id.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from sqlalchemy import Table

    from airflow_cloudbilling.hooks.billing import BillingHook
    from airflow_cloudbilling.settings import Settings
    from airflow_cloudbilling.staging.engine import Database

_PORTS = {"postgres": 5432, "mysql": 3306}
_SCHEMAS = {"postgres": "public"}  # where tables are when neither the connection nor the task names a schema


class Dataset(NamedTuple):
    """Data under a name that means the same to every job that reads or writes it.

    :param namespace: the system that has it, such as ``https://api.cloudnet.services``.
    :param name: in that system, such as ``twotcloud/1000123/purchase``.
    :param table: the staging table, where it is one.
    """

    namespace: str
    name: str
    table: Table | None = None

    @property
    def uri(self) -> str:
        """The same as the address of an Airflow asset: a database's table has a part for each part of its name."""
        return f"{self.namespace}/{self.name.replace('.', '/') if self.table is not None else self.name}"


def of_vendor(settings: Settings, *path: str) -> Dataset:
    """Return what a vendor has: ``<connection type>/<path>`` at its host.

    :param path: account and kind of invoices, or the scope of a file at Sage.
    """
    return Dataset(_origin(settings.base_url), "/".join((settings.conn_type, *path)))


def of_asset(uri: str) -> Dataset:
    """Return an asset of this package, ``cloudbilling://<conn_id>/<path>``."""
    parts = urlsplit(uri)
    return Dataset(f"{parts.scheme}://{parts.netloc}", parts.path.strip("/"))


def of_staging(database: Database, table: Table) -> Dataset:
    """Return a staging table by OpenLineage's naming of its database; nothing is connected to.

    https://openlineage.io/docs/spec/naming has PostgreSQL and MySQL; of a SQLite file the path stands for the server.
    """
    if database.conn_type == "sqlite":
        path = Path(database.host or database.schema or "").absolute()
        return Dataset(f"sqlite://{path.as_posix()}", table.name, table)
    namespace = f"{database.conn_type}://{database.host}:{database.port or _PORTS[database.conn_type]}"
    schema = table.schema or _SCHEMAS.get(database.conn_type)
    # a schema of MySQL is a database
    place = [schema or database.schema] if database.conn_type == "mysql" else [database.schema, schema]
    return Dataset(namespace, ".".join(part for part in (*place, table.name) if part), table)


def of_file(address: str) -> Dataset:
    """Return a file or an object, without the id of the Airflow connection that opens it."""
    parts = urlsplit(address)
    if parts.scheme in ("", "file"):
        return Dataset("file", parts.path)
    return Dataset(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}", parts.path.lstrip("/"))


def came_from(hook: BillingHook, path: str, **extra: Any) -> None:
    """Tell Airflow's hook lineage that a task has read ``cloudbilling://<conn_id>/<path>``.

    :param path: a kind of invoices, or ``scope/<scope>``.
    :param extra: what the asset says of itself besides, as JSON.
    """
    from airflow.sdk.lineage import get_hook_lineage_collector

    with suppress(ValueError):  # a connection's id may hold what no address may; that shall not end an import
        uri = f"cloudbilling://{hook.conn_id}/{path}"
        get_hook_lineage_collector().add_input_asset(context=hook, uri=uri, asset_extra=extra)


def went_to(hook: BillingHook, dataset: Dataset, **extra: Any) -> None:
    """Tell Airflow's hook lineage that a task has written what a hook has read.

    :param extra: as of :func:`came_from`.
    """
    from airflow.sdk.lineage import get_hook_lineage_collector

    with suppress(ValueError):
        get_hook_lineage_collector().add_output_asset(context=hook, uri=dataset.uri, asset_extra=extra)


def _origin(address: str) -> str:
    parts = urlsplit(address)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{parts.scheme}://{host}{f':{parts.port}' if parts.port else ''}"
