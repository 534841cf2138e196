"""The asset that an import updates: ``cloudbilling://<conn_id>/<kind>``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult

from airflow_cloudbilling.model import KINDS

if TYPE_CHECKING:
    from airflow.sdk import Asset

SCHEME = "cloudbilling"


def invoice_asset(conn_id: str, kind: str) -> Asset:
    """Return the asset of a connection's invoices of one kind, for schedules and outlets."""
    return create_asset(conn_id=conn_id, kind=kind)


def create_asset(*, conn_id: str, kind: str, extra: dict[str, Any] | None = None) -> Asset:
    """Return the asset; Airflow's factory for the scheme."""
    from airflow.sdk import Asset

    return Asset(f"{SCHEME}://{conn_id}/{kind}", extra=extra or {})


def sanitize_uri(uri: SplitResult) -> SplitResult:
    """Check an asset's URI; Airflow's handler for the scheme.

    :raises ValueError: when it is not ``cloudbilling://<conn_id>/<kind>``.
    """
    kind = uri.path.strip("/")
    if not uri.netloc or kind not in KINDS:
        raise ValueError(f"{uri.geturl()!r} is not {SCHEME}://<conn_id>/<kind> with kind one of {', '.join(KINDS)}")
    return uri._replace(path=f"/{kind}", query="", fragment="")
