"""Links from a task in Airflow to what it has staged, found or sent, on the page "Cloud billing"."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from airflow.sdk import BaseOperator, BaseOperatorLink
from airflow.sdk.configuration import conf

from airflow_cloudbilling.errors import ConfigurationError
from airflow_cloudbilling.model import Period
from airflow_cloudbilling.operators.arguments import given
from airflow_cloudbilling.page.addresses import view

_SLICE = ("period", "provider", "kind", "account")


class PageLink(BaseOperatorLink):
    """The link to the view of what a task has done, which it keeps as ``page_result``; else to its month."""

    name = "Cloud billing"

    def get_link(self, operator: BaseOperator, *, ti_key: Any) -> str:
        """Return the address of the view; Airflow asks the worker, at the end of the task."""
        result = getattr(operator, "page_result", None)
        name, params = view_of(result) if result else ("", {"until": _month_of(operator)})
        staging = staging_of(getattr(operator, "staging_conn_id", None), getattr(operator, "schema", None))
        return address_of(name, staging=staging, **params)


def staging_of(conn_id: str | None, schema: str | None) -> str | None:
    """Return a staging database as ``[cloudbilling] staging_conn_ids`` has it: a connection's id, or with a schema."""
    return f"{conn_id}:{given(schema)}" if given(schema) else conn_id


def address_of(name: str, **params: Any) -> str:
    """Return the whole address of a view, as far as ``[api] base_url`` says where Airflow is."""
    return view(conf.get("api", "base_url", fallback="").rstrip("/"), name, **params)


def view_of(result: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the view that shows a task's result."""
    if result.get("upload_id"):
        return "upload", {"id": result["upload_id"]}
    if slices := result.get("slices"):
        shared = {name: slices[0][name] for name in _SLICE if len({one[name] for one in slices}) == 1}
        month = {"period": Period.parse(shared["period"]).key} if "period" in shared else {}
        if {"period", "provider", "kind"} <= shared.keys():
            return "invoices", {**shared, **month}
        return "", {"until": month.get("period")}
    if result.get("close_id"):
        return "findings", {"period": Period.parse(result["period"]).key}
    if result.get("periods"):
        return "margin", {"period": Period.parse(result["periods"][-1]).key}
    return "", {}


def _month_of(operator: BaseOperator) -> str | None:
    with suppress(ConfigurationError):  # whatever is wrong with it the task has said
        if period := getattr(operator, "period", None):
            return Period.parse(str(period)).key
    return None
