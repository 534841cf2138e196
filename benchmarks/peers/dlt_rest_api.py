"""dlt's ``rest_api`` source as its documentation shows it: declared, with the destination's own tables."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from peers.tables import APIS, token

SCHEMA = "bench_dlt"  # on PostgreSQL; elsewhere its tables are in the database itself


def work(job: Any, *, disposition: str) -> Callable[[], None]:
    """Return the import of the month; on PostgreSQL files of CSV are loaded, dlt's fastest way there.

    :param disposition: ``replace`` or ``merge``.
    """
    import dlt
    import requests  # noqa: TID251 - a peer is not this package
    from dlt.sources.rest_api import rest_api_source

    pipeline = dlt.pipeline(
        "bench", destination=_destination(dlt, job), dataset_name=_dataset(job), pipelines_dir=f"{job.folder}/dlt"
    )
    csv = {"loader_file_format": "csv"} if job.kind == "postgres" else {}

    def import_month() -> None:
        source = rest_api_source(_declared(job, token(job, requests.post), disposition))
        pipeline.run(source, **csv).raise_on_failed_jobs()

    return import_month


def _declared(job: Any, key: str, disposition: str) -> dict[str, Any]:
    """Return the vendor as dlt's source wants it described."""
    api = APIS[job.vendor]
    paginator = {"type": "page_number", "base_page": 1, "page_param": api.page, "total_path": api.pages}
    invoices = {
        "name": "invoices",
        "primary_key": "id",
        "write_disposition": disposition,
        "endpoint": {"path": api.path, "params": api.size, "data_selector": api.records},
    }
    client = {"base_url": job.url, "auth": {"type": "bearer", "token": key}, "paginator": paginator}
    return {"client": client, "resources": [invoices]}


def _dataset(job: Any) -> str:
    return str({"postgres": SCHEMA, "mysql": job.fields.get("schema"), "sqlite": "main"}[job.kind])


def _destination(dlt: Any, job: Any) -> Any:
    fields = job.fields
    if job.kind == "sqlite":
        return dlt.destinations.sqlalchemy(f"sqlite:///{fields['host']}")
    address = f"{fields['host']}:{fields['port']}/{fields['schema']}"
    login, password = fields["login"], fields.get("password")
    if job.kind == "postgres":  # of this one dlt wants a password even where the server does not
        return dlt.destinations.postgres(f"postgresql://{login}:{password or 'none'}@{address}")
    login = f"{login}:{password}" if password else login
    return dlt.destinations.sqlalchemy(f"mysql+pymysql://{login}@{address}")
