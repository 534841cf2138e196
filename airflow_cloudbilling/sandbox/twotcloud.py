"""The sandbox's 2tCloud: its three APIs as vendor-docs/2tcloud-apis.txt has them.

What endpoints the Cloudstore API has, and what the Customers API can be posted, the document leaves open: here there
are ``orders``, and new customers.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import threading
from collections.abc import Iterable, Mapping
from datetime import date, timedelta
from decimal import Decimal
from itertools import chain
from typing import Any, ClassVar

from airflow_cloudbilling.sandbox.catalogue import CUSTOMERS, RESELLER
from airflow_cloudbilling.sandbox.render import batches, to_json, to_xml
from airflow_cloudbilling.sandbox.twotcloud_records import DECLARATION, NAMESPACES, as_json, as_xml, invoice_record
from airflow_cloudbilling.sandbox.vendor import Answer, Incoming, Options, Vendor

VERSIONS = ("v1", "v2")
ENDPOINTS = {  # endpoint → API ("Use the API key that belongs to the same API") and kind
    "invoices": ("billing", "purchase"),
    "customerinvoices": ("billing", "sales"),
    "consolidatedinvoices": ("billing", "consolidated"),
    "customers": ("customers", None),
    "orders": ("cloudstore", None),
}
EMPTY_SHAPES = ("list", "null", "no_content")
DAY = timedelta(days=1)
_RECORDS = {"customers": ("Customer", "AccountId", 1000456), "orders": ("Order", "OrderId", 1)}  # name, key, first key


class TwoTCloud(Vendor):
    """2tCloud's ``api.cloudnet.services``: one account, one active key for each API, one registered IP address."""

    name = "twotcloud"
    paths = re.compile(r"/v\d+(/|$)", re.IGNORECASE)
    prefixes: ClassVar[Mapping[str, str]] = {"purchase": "CI", "sales": "SI", "consolidated": "CO"}

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        if options.empty_shape not in EMPTY_SHAPES:
            raise ValueError(f"empty_shape {options.empty_shape!r} is none of {', '.join(EMPTY_SHAPES)}")
        self.account = str(RESELLER.account)
        self.keys = {api: _key(options.seed, api) for api in ("billing", "customers", "cloudstore", "revoked")}
        self._versions: dict[str, str] = {}
        self._records = {"customers": _customers(), "orders": []}
        self._lock = threading.Lock()

    def connections(self, url: str) -> dict[str, dict[str, Any]]:
        """Return the one connection that has all three keys; version and format are the defaults, v2 and JSON."""
        extra = {"customers_api_key": self.keys["customers"], "cloudstore_api_key": self.keys["cloudstore"]}
        return {
            "twotcloud_default": {
                "conn_type": self.name,
                "host": url,
                "login": self.account,
                "password": self.keys["billing"],
                "extra": extra,
            }
        }

    def answer(self, request: Incoming) -> Answer:
        """Answer as the vendor would; the order of the checks gives nothing away to a caller without a key."""
        _, version, endpoint, record_id = [*request.path.rstrip("/").lower().split("/"), "", ""][:4]
        api, kind = ENDPOINTS.get(endpoint, (None, None))
        if not self._authorised(request, api):
            return Answer.text(403, "Forbidden")  # "Calling an endpoint": bad header, wrong key and wrong IP alike
        if version not in VERSIONS or api is None or request.path.count("/") > (2 if kind else 3):
            return Answer.text(404, f"No endpoint {request.path}: versions are {', '.join(VERSIONS)}.")
        if request.method not in (("GET",) if kind or record_id else ("GET", "POST")):
            return Answer.text(405, f"This endpoint does not support {request.method}.", Allow="GET")
        if mixed := self._mixed(api, version):
            return Answer.text(400, mixed)
        xml = api != "cloudstore" and "application/json" not in request.headers.get("accept", "")  # "default to XML"
        try:
            if kind:
                return self._invoices(kind, request.query, version, xml)
            if request.method == "POST":
                return self._create(endpoint, request, xml)
            return self._listed(endpoint, record_id, xml)
        except ValueError as error:
            return Answer.text(400, str(error))

    def _authorised(self, request: Incoming, api: str | None) -> bool:
        account, key = request.basic or ("", "")
        expected = [self.keys[api]] if api else [key for its, key in self.keys.items() if its != "revoked"]
        right_key = any(hmac.compare_digest(key.encode(), one.encode()) for one in expected)
        right_ip = request.source == self.options.registered_ip
        return account == self.account and right_key and right_ip

    def _mixed(self, api: str, version: str) -> str | None:
        """Note the version that an API is used with first; another one afterwards is "not supported"."""
        with self._lock:
            first = self._versions.setdefault(api, version)
        if not self.options.strict_versions or first == version:
            return None
        return f"Mixing versions is not supported: the {api} API was used with {first} before, now with {version}."

    def _invoices(self, kind: str, query: Mapping[str, str], version: str, xml: bool) -> Answer:
        bills = self.books.bills(kind, *self._window(query))
        first = next(bills, None)
        if first is None:
            return _empty(self.options.empty_shape, xml)
        records = (invoice_record(bill, version) for bill in chain((first,), bills))
        return Answer(200, batches(as_xml(records) if xml else as_json(records)), _content_type(xml))

    def _create(self, endpoint: str, request: Incoming, xml: bool) -> Answer:
        """Keep a record under a new id; "All POST endpoints expect a request in JSON format only"."""
        if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            return Answer.text(415, "This endpoint expects application/json.")
        record = json.loads(request.body, parse_float=Decimal)
        if not isinstance(record, dict):
            raise ValueError("a JSON object was expected")
        name, key, first = _RECORDS[endpoint]
        with self._lock:
            record = {**record, key: first + len(self._records[endpoint])}
            self._records[endpoint].append(record)
        return Answer(201, batches(_rendered({name: record}, xml)), _content_type(xml))

    def _listed(self, endpoint: str, record_id: str, xml: bool) -> Answer:
        name, key, _ = _RECORDS[endpoint]
        with self._lock:
            found = [one for one in self._records[endpoint] if record_id in ("", str(one[key]))]
        if record_id and not found:
            return Answer.text(404, f"There is no {name} {record_id}.")
        value = {f"{name}s": found} if not record_id else {name: found[0]}
        return Answer(200, batches(_rendered(value, xml)), _content_type(xml))

    def _window(self, query: Mapping[str, str]) -> tuple[date, date]:
        """Return the half-open window of issue dates; without dates the last three months (vendor facts 1b)."""
        last = self.books.reseller.months[-1]
        start = _day(query, "startDate") or last.shifted(-2).start
        end = (_day(query, "endDate") or last.end - DAY) + DAY  # the last day is included
        if start >= end:
            raise ValueError("startDate is after endDate")
        return start, end


def _empty(shape: str, xml: bool) -> Answer:
    if shape == "no_content":
        return Answer(204)
    null = shape == "null"
    tree = "<InvoiceResponse />" if null else f"<InvoiceResponse {NAMESPACES}>\n</InvoiceResponse>"
    text = DECLARATION + tree if xml else '{"Invoices":null}' if null else '{"Invoices":[]}'
    return Answer(200, (text.encode(),), _content_type(xml))


def _customers() -> list[dict[str, Any]]:
    """Return active and cancelled customers; it is ``AccountId`` here (vendor facts 1b, Customers API)."""
    return [
        {
            "AccountId": customer.account,
            "AccountStatus": "Inactive" if nth % 5 == 4 else "Active",
            "City": "Eindhoven",
            "CompanyName": customer.name,
            "CostCenter": None,
            "CountryId": customer.country,
        }
        for nth, customer in enumerate(CUSTOMERS)
    ]


def _rendered(value: dict[str, Any], xml: bool) -> Iterable[str]:
    """Return one record, or a list of them, under its name; in XML the list's name is that of no element."""
    if not xml:
        return to_json(value)
    records = [one for each in value.values() for one in (each if isinstance(each, list) else [each])]
    elements = chain.from_iterable(to_xml("Customer", record) for record in records)
    return chain((f"{DECLARATION}<GetCustomerResponse>",), elements, ("</GetCustomerResponse>",))


def _content_type(xml: bool) -> str:
    return f"application/{'xml' if xml else 'json'}; charset=utf-8"


def _day(query: Mapping[str, str], name: str) -> date | None:
    text = query.get(name)
    if text is None:
        return None
    if not re.fullmatch(r"\d{8}", text):
        raise ValueError(f"{name} {text!r} is not a day in the form YYYYMMDD")
    return date(int(text[:4]), int(text[4:6]), int(text[6:]))


def _key(seed: int, api: str) -> str:
    digest = hashlib.sha256(f"{seed}/{api}".encode()).digest()
    return f"{api[:4]}+{base64.b64encode(digest[:18]).decode()}/=="  # with letters that must be escaped in URLs
