"""2tCloud's Customers and Cloudstore APIs: any endpoint, since the document leaves their names to the portal."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from airflow_cloudbilling.errors import ConfigurationError, MalformedReplyError
from airflow_cloudbilling.found import Record
from airflow_cloudbilling.parse import Malformed, Unreadable, fold
from airflow_cloudbilling.parse.records import json_text, read_value
from airflow_cloudbilling.redaction import redact
from airflow_cloudbilling.settings import Settings
from airflow_cloudbilling.source import Conversation, Endpoint, Reply, Request, Source
from airflow_cloudbilling.urls import path_part

ENDPOINTS = (
    Endpoint("GET /v2/invoices", 'invoices("2026-10")', 'StageInvoicesOperator(kind="purchase")'),
    Endpoint("GET /v2/customerinvoices", 'customer_invoices("2026-10")', 'StageInvoicesOperator(kind="sales")'),
    Endpoint(
        "GET /v2/consolidatedinvoices", 'consolidated_invoices("2026-10")', 'StageInvoicesOperator(kind="consolidated")'
    ),
    Endpoint("Customers API: GET /{version}/customers", "customers()", 'ListRecordsOperator(resource="customers")'),
    Endpoint(
        "Customers API: GET /{version}/{endpoint}",
        'customers_api("contacts")',
        'ListRecordsOperator(resource="customers:contacts")',
    ),
    Endpoint(
        "Customers API: POST /{version}/{endpoint}",
        'customers_api("customers", data={...})',
        'CreateRecordOperator(resource="customers:customers", data={...})',
    ),
    Endpoint(
        "Cloudstore API: GET /{version}/{endpoint}",
        'cloudstore_api("orders")',
        'ListRecordsOperator(resource="cloudstore:orders")',
    ),
    Endpoint(
        "Cloudstore API: POST /{version}/{endpoint}",
        'cloudstore_api("orders", data={...})',
        'CreateRecordOperator(resource="cloudstore:orders", data={...})',
    ),
)
ACCEPT = {"json": "application/json", "xml": "application/xml"}
_APIS = {"billing": "default", "customers": "customers", "cloudstore": "cloudstore"}  # in resources → in requests
_SEGMENT = r"(?!\.+(/|$))[A-Za-z0-9_.~-]+"
_ENDPOINT = re.compile(rf"{_SEGMENT}(/{_SEGMENT})*")
_NUMBERS = ("AccountId",)  # a number in JSON (kb.copaco.cloud, "Customers API"); XML has no types


class Resource(NamedTuple):
    """An endpoint of one of the APIs.

    :param api: ``default`` (Billing), ``customers`` or ``cloudstore``.
    """

    api: str
    endpoint: str

    @classmethod
    def read(cls, text: str, settings: Settings) -> Resource:
        """Read ``customers``, ``customers:<endpoint>``, ``cloudstore:<endpoint>`` or ``billing:<endpoint>``.

        :raises ConfigurationError: when the text is none of them.
        """
        api, colon, endpoint = text.strip().partition(":")
        endpoint = endpoint.strip("/") if colon else api
        if api not in _APIS or not _ENDPOINT.fullmatch(endpoint) or not (colon or api == "customers"):
            raise ConfigurationError(
                f"2tCloud has no resource {text!r}; write 'customers', or API and endpoint as the support center portal"
                " lists them under 'Your APIs': 'customers:<endpoint>', 'cloudstore:<endpoint>'.",
                conn_id=settings.conn_id,
                field="resource",
            )
        return cls(_APIS[api], endpoint)

    def record(self, record_id: str) -> Resource:
        """Return the endpoint of one record.

        :raises ConfigurationError: when the id would lead elsewhere.
        """
        if not record_id.strip(". /"):
            raise ConfigurationError(f"{record_id!r} is no id of a record.", field="record_id")
        return self._replace(endpoint=f"{self.endpoint}/{path_part(record_id)}")


class ByEndpoint(Source):
    """The calls of any endpoint of any API, for users of the APIs rather than for staging."""

    def path(self, endpoint: str, settings: Settings, api: str = "default") -> str:
        """Return an endpoint's path below the base URL."""
        raise NotImplementedError

    def malformed(self, reply: Reply, error: Malformed, settings: Settings, expected: str) -> MalformedReplyError:
        """Return the error for an answer that cannot be read."""
        asked = f"{reply.request.method} {reply.request.path}"
        message = redact(f"{asked} was not answered with {expected}: {error}", self.secrets(settings))
        return MalformedReplyError(message, conn_id=settings.conn_id, url=reply.url, status=reply.status)

    def list_records(self, resource: str, params: Mapping[str, str], settings: Settings) -> Conversation:
        """Ask an endpoint of any API: ``customers``, ``customers:<endpoint>`` or ``cloudstore:<endpoint>``."""
        yield from self._records(Resource.read(resource, settings), params, settings)

    def get_record(self, resource: str, record_id: str, params: Mapping[str, str], settings: Settings) -> Conversation:
        """Ask for one record, below its endpoint."""
        yield from self._records(Resource.read(resource, settings).record(record_id), params, settings)

    def create_record(self, resource: str, data: Any, settings: Settings) -> Conversation:
        """Post JSON ("All POST endpoints expect a request in JSON format only")."""
        asked = Resource.read(resource, settings)
        try:
            json_text(data)
        except Unreadable as error:
            raise ConfigurationError(str(error), conn_id=settings.conn_id, field="data") from None
        reply = yield replace(self._call(asked, settings), method="POST", json=data)
        assert reply is not None
        try:
            created = [*records_in(reply, asked.endpoint)] if reply.size else [None]
            yield Record(created[0] if len(created) == 1 else created)
        except Malformed as error:
            raise self.malformed(reply, error, settings, "a record") from None

    def _records(self, asked: Resource, params: Mapping[str, str], settings: Settings) -> Conversation:
        reply = yield replace(self._call(asked, settings), params=params)
        if reply is None or reply.status == 204:
            return
        try:
            for record in records_in(reply, asked.endpoint):
                yield Record(record)
        except Malformed as error:
            raise self.malformed(reply, error, settings, "records") from None

    def _call(self, asked: Resource, settings: Settings) -> Request:
        """Return the request; the Cloudstore API answers JSON whatever is accepted ("Calling an endpoint")."""
        accept = {} if asked.api == "cloudstore" else {"Accept": ACCEPT[settings.option("response_format")]}
        return Request("GET", self.path(asked.endpoint, settings, asked.api), headers=accept, api=asked.api)


def records_in(reply: Reply, endpoint: str) -> Iterator[Any]:
    """Yield the records of an answer, JSON and XML alike.

    They stand in a list, bare or as the only member of an object, or under the endpoint's own name.

    :raises Malformed: when the answer is neither JSON nor XML, or cut.
    """
    value = read_value(reply.body, camel=False)
    name = fold(endpoint.rpartition("/")[2])
    while isinstance(value, dict):
        named = [inner for key, inner in value.items() if fold(key) == name]
        inner = named[0] if named else next(iter(value.values())) if len(value) == 1 else value
        if inner is value or not (inner is None or isinstance(inner, (dict, list))):
            break
        value = inner
    for record in value if isinstance(value, list) else [value] if value is not None else []:
        yield _typed(record)


def _typed(record: Any) -> Any:
    if not isinstance(record, dict):
        return record
    return {key: _number(value) if key in _NUMBERS else value for key, value in record.items()}


def _number(value: Any) -> Any:
    return int(value) if isinstance(value, str) and re.fullmatch(r"[1-9][0-9]{0,17}", value) else value
