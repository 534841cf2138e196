"""What Airflow knows about this provider before it imports anything of it, built from the vendors' descriptions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from airflow_cloudbilling.settings import COMMON_FIELDS, Field
from airflow_cloudbilling.source import Source
from airflow_cloudbilling.sources import SOURCES

_DISTRIBUTION = "airflow-provider-cloudbilling"  # must be the distribution's name, or Airflow drops every provider
_IMPORTING = {  # every vendor with invoices has them: the connection's type decides which one is asked
    "operators": (
        "airflow_cloudbilling.operators.api",
        "airflow_cloudbilling.operators.approval",
        "airflow_cloudbilling.operators.deciding",
        "airflow_cloudbilling.operators.export",
        "airflow_cloudbilling.operators.invoices",
        "airflow_cloudbilling.operators.margin",
        "airflow_cloudbilling.operators.posting",
        "airflow_cloudbilling.operators.reconcile",
        "airflow_cloudbilling.operators.restage",
        "airflow_cloudbilling.operators.retention",
    ),
    "sensors": ("airflow_cloudbilling.sensors.invoices",),
    "triggers": ("airflow_cloudbilling.triggers.invoices",),
}
_SENDING: dict[str, tuple[str, ...]] = {
    "operators": ("airflow_cloudbilling.operators.sage", "airflow_cloudbilling.operators.sage_upload"),
    "sensors": ("airflow_cloudbilling.sensors.sage",),
    "triggers": ("airflow_cloudbilling.triggers.sage", "airflow_cloudbilling.triggers.sage_scope"),
}
_OPTIONS = {
    "credential_store": {
        "description": (
            "Class that keeps access tokens and API keys for other tasks, with the methods read and write and the"
            " argument writable. Empty: every process fetches its own token, and no API key is rotated."
        ),
        "version_added": "0.1.0",
        "type": "string",
        "example": "my_company.vault.TokenStore",
        "default": "airflow_cloudbilling.hooks.credential_store.VariableStore",
    },
    "sage_notification_tokens": {
        "description": (
            "Whom Sage's notifications are for: a JSON object, connection id → token of 32 characters or more. The API"
            " server then takes them, without a login, at /cloudbilling/notifications/<token>. Empty: it does not."
        ),
        "version_added": "0.1.0",
        "type": "string",
        "sensitive": True,
        "example": '{"sage_connected_cloud_default": "<made by secrets.token_urlsafe(32)>"}',
        "default": "",
    },
    "staging_conn_ids": {
        "description": (
            "Connections of the staging databases that the page in Airflow's UI shows, with commas between;"
            " conn_id:schema where the tables are not in the connection's default schema."
        ),
        "version_added": "0.1.0",
        "type": "string",
        "example": "erp_staging,erp_staging_uk:billing",
        "default": "erp_staging",
    },
}
_STANDARD_FIELDS = ("host", "login", "password")


def get_provider_info() -> dict[str, Any]:
    """Return the provider's metadata; the entry point ``apache_airflow_provider``."""
    return {
        "package-name": _DISTRIBUTION,
        "name": "Cloud Billing",
        "description": _description(),
        "integrations": [{"integration-name": source.title, "tags": ["service"]} for source in SOURCES.values()],
        "connection-types": [_connection_type(source) for source in SOURCES.values()],
        "hooks": [
            {"integration-name": source.title, "python-modules": [source.hook_class.rpartition(".")[0]]}
            for source in SOURCES.values()
        ],
        **{group: list(_modules(group)) for group in _IMPORTING},
        "extra-links": [
            "airflow_cloudbilling.operators.page_link.PageLink",
            "airflow_cloudbilling.operators.sage_upload.SageResultLink",
        ],
        "notifications": ["airflow_cloudbilling.notifications.findings.FindingsNotifier"],
        "cli": ["airflow_cloudbilling.cli.definition.get_cli_commands"],
        "config": {"cloudbilling": {"description": "What is set for the whole of Airflow.", "options": _OPTIONS}},
        "asset-uris": [
            {
                "schemes": ["cloudbilling"],
                "handler": "airflow_cloudbilling.assets.sanitize_uri",
                "factory": "airflow_cloudbilling.assets.create_asset",
                "to_openlineage_converter": "airflow_cloudbilling.assets.to_openlineage",
            }
        ],
    }


def _description() -> str:
    vendors = ", ".join(source.title for source in SOURCES.values() if source.kinds)
    targets = " and ".join(source.title for source in SOURCES.values() if not source.kinds)
    return f"Imports cloud vendors' invoices into ERP staging tables ({vendors}) and sends them on to {targets}."


def _modules(group: str) -> Iterator[dict[str, Any]]:
    for source in SOURCES.values():
        if modules := (_IMPORTING if source.kinds else _SENDING).get(group):
            yield {"integration-name": source.title, "python-modules": list(modules)}


def _connection_type(source: Source) -> dict[str, Any]:
    hidden = [name for name in _STANDARD_FIELDS if name not in source.labels]
    placeholders = {"host": source.default_host} if source.default_host else {}
    return {
        "connection-type": source.conn_type,
        "hook-class-name": source.hook_class,
        "hook-name": source.title,
        "ui-field-behaviour": {
            "hidden-fields": ["schema", *hidden],
            "relabeling": dict(source.labels),
            "placeholders": {**placeholders, **source.placeholders},
        },
        "conn-fields": {field.name: _form_field(field) for field in (*source.fields, *COMMON_FIELDS)},
    }


def _form_field(field: Field) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": field.type if field.enum else [field.type, "null"]}
    if field.secret:
        schema["format"] = "password"
    if field.enum:
        schema["enum"] = list(field.enum)
    for name in ("default", "minimum", "maximum"):
        if getattr(field, name) is not None:
            schema[name] = getattr(field, name)
    if field.type == "array":
        schema["items"] = {"type": "string"}
    return {"label": field.label, "description": field.help, "schema": schema}
