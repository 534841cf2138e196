"""The assets: ``cloudbilling://<conn_id>/<kind>``, which an import updates, and ``…/scope/<scope>`` of Sage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, quote

from airflow_cloudbilling.model import KINDS

if TYPE_CHECKING:
    from airflow.sdk import Asset, AssetWatcher
    from openlineage.client.event_v2 import Dataset as OpenLineageDataset

SCHEME = "cloudbilling"
_SCOPE = "scope"


def invoice_asset(conn_id: str, kind: str) -> Asset:
    """Return the asset of a connection's invoices of one kind, for schedules and outlets."""
    return create_asset(conn_id=conn_id, kind=kind)


def scope_asset(conn_id: str, scope: str, *watchers: AssetWatcher) -> Asset:
    """Return the asset of a scope of Sage.

    :param watchers: what notices a new file, such as ``AssetWatcher(name=…, trigger=SageScopeTrigger(…))``.
    """
    from airflow.sdk import Asset

    return Asset(f"{SCHEME}://{conn_id}/{_SCOPE}/{quote(scope, safe='')}", watchers=[*watchers])


def create_asset(*, conn_id: str, kind: str, extra: dict[str, Any] | None = None) -> Asset:
    """Return the asset; Airflow's factory for the scheme."""
    from airflow.sdk import Asset

    return Asset(f"{SCHEME}://{conn_id}/{kind}", extra=extra or {})


def to_openlineage(asset: Asset, lineage_context: Any) -> OpenLineageDataset:
    """Return the asset as OpenLineage's dataset; Airflow's converter for the scheme.

    :param lineage_context: a hook that has read it, and knows the vendor's host; else the connection is the namespace.
    """
    from openlineage.client.event_v2 import Dataset

    from airflow_cloudbilling.hooks.billing import BillingHook
    from airflow_cloudbilling.hooks.lineage import of_asset, of_vendor

    found = of_asset(asset.uri)
    if isinstance(lineage_context, BillingHook):
        account = [str(asset.extra["account"])] if asset.extra.get("account") else []
        found = of_vendor(lineage_context.settings, *account, found.name)
    return Dataset(found.namespace, found.name)


def sanitize_uri(uri: SplitResult) -> SplitResult:
    """Check an asset's URI; Airflow's handler for the scheme.

    :raises ValueError: when it is neither ``cloudbilling://<conn_id>/<kind>`` nor ``cloudbilling://<conn_id>/scope/…``.
    """
    path = uri.path.strip("/")
    kind, _, scope = path.partition("/")
    of_scope = kind == _SCOPE and scope and "/" not in scope
    if not uri.netloc or not (of_scope or path in KINDS):
        kinds = ", ".join(KINDS)
        words = f"{SCHEME}://<conn_id>/<kind> with kind one of {kinds}, nor {SCHEME}://<conn_id>/{_SCOPE}/<scope>"
        raise ValueError(f"{uri.geturl()!r} is neither {words}")
    return uri._replace(path=f"/{path}", query="", fragment="")
