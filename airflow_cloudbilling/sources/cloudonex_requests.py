"""How CloudOnex is asked: the connection's fields, addresses for both ways to send the key, bodies in both formats."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from airflow_cloudbilling.errors import ConfigurationError
from airflow_cloudbilling.parse import Unreadable, currency
from airflow_cloudbilling.parse.records import form_encoded, json_text
from airflow_cloudbilling.settings import Field, Settings
from airflow_cloudbilling.source import Request
from airflow_cloudbilling.urls import path_part

_API = "api/v2"
FIELDS: tuple[Field, ...] = (
    Field(
        "auth_mode",
        "Authentication",
        "bearer: the key in a header; query: in the address, for servers that drop the header.",
        default="bearer",
        enum=("bearer", "query"),
    ),
    Field(
        "body_format",
        "Body format",
        "How records are sent: json, or form for versions that read PHP forms.",
        default="json",
        enum=("json", "form"),
    ),
    Field(
        "resource_style",
        "Resource style",
        "Of single records; plural: invoices/1, singular: invoice/1.",
        default="plural",
        enum=("plural", "singular"),
    ),
    Field("default_currency", "Default currency", "Of invoices that state none, such as EUR."),
)
_DEFAULTS = {field.name: field.default for field in FIELDS}


def option(name: str, settings: Settings) -> str:
    """Return a field of the connection, or its default."""
    return str(settings.options.get(name) or _DEFAULTS[name])


def default_currency(settings: Settings) -> str | None:
    """Return the currency of invoices that state none.

    :raises ConfigurationError: when it is no currency.
    """
    try:
        return currency(settings.options.get("default_currency"))
    except Unreadable as error:
        raise ConfigurationError(f"{error}.", conn_id=settings.conn_id, field="default_currency") from None


def request_of(method: str, endpoint: str, settings: Settings, params: Mapping[str, str] | None = None) -> Request:
    """Return a request for an endpoint; ``ng`` names it where the key stands in the query.

    :raises ConfigurationError: when the host does not go with that.
    """
    headers = {"Accept": "application/json"}
    below = settings.base_url.endswith(f"/{_API}")  # the document's own "Base URL"
    if option("auth_mode", settings) == "bearer":
        return Request(method, f"/{endpoint}" if below else f"/{_API}/{endpoint}", params or {}, headers)
    if below:
        message = f"ends in /{_API}; with auth_mode 'query' enter it without, the endpoint stands in the query."
        raise ConfigurationError(message, conn_id=settings.conn_id, field="host")
    return Request(method, "/", {"ng": f"{_API}/{endpoint}", **(params or {})}, headers)


def one(
    method: str, resource: str, record_id: str, settings: Settings, params: Mapping[str, str] | None = None
) -> Request:
    """Return a request about one record."""
    name = resource.removesuffix("s") if option("resource_style", settings) == "singular" else resource
    return request_of(method, f"{name}/{path_part(str(record_id))}", settings, params)


def with_body(request: Request, data: Any, settings: Settings) -> Request:
    """Return the request with a record as JSON, or as the form that the product's own SDK sends (vendor facts 3b).

    :raises ConfigurationError: when the record is no object, or holds what cannot be sent exactly.
    """
    try:
        if not isinstance(data, Mapping):
            raise Unreadable("expected an object with the record's fields")
        if option("body_format", settings) == "form":
            return replace(request, form=form_encoded(data))
        json_text(data)
        return replace(request, json=data)
    except Unreadable as error:
        raise ConfigurationError(f"{error}.", field="data") from None
