"""The sandbox's Store365: password grant, pages and both formats as vendor-docs/store365.txt has them."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any, ClassVar
from urllib.parse import parse_qs, unquote

from airflow_cloudbilling.sandbox.render import batches
from airflow_cloudbilling.sandbox.store365_records import (
    Copies,
    Record,
    Shelf,
    as_json,
    as_xml,
    customers,
    invoice_record,
    rendered,
    users,
)
from airflow_cloudbilling.sandbox.vendor import Answer, Incoming, Options, Vendor

BASE = "/store365"  # the two hosts of the vendor are two paths here
TOKEN = "/store365-token/auth"  # noqa: S105 - a path
FORM, JSON, XML = "application/x-www-form-urlencoded", "application/json", "application/xml"
ITEMS = {"invoices": "Invoice", "customers": "Customer", "users": "User"}
BAD_LOGIN = {"error": "invalid_grant", "error_description": "Bad credentials"}
BAD_TOKEN = {"status": 401, "error": "Unauthorized", "message": "Bad credentials"}
ID = re.compile(r"SB-\d{6}-\d{5}")


class Store365(Vendor):
    """One user with one client ID.

    ``manner`` says how lists are paged, for tests: ``right``, ``stuck`` (every page is the first) or ``endless`` (there
    is always one more page, with records of new ids); :meth:`expire_tokens` ends every token at once.
    """

    name = "store365"
    paths = re.compile(rf"({re.escape(TOKEN)}|{re.escape(BASE)}(/|$))")
    prefixes: ClassVar[Mapping[str, str]] = {"purchase": "SB"}

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        reseller = Copies(
            options.seed, options.months, options.invoices, options.last_day, self.prefixes, options.huge_invoice_mb,
            distinct=options.distinct_invoices,
        )  # fmt: skip
        self.books: Shelf = Shelf(reseller)
        self.login, self.password, self.client_id = (
            "reseller@example.test",
            _key(options.seed, "password"),
            "reseller-7",
        )
        self.manner = "right"
        self._groups = {"customers": customers(), "users": users()}
        self._tokens: dict[str, float] = {}
        self._text = lru_cache(maxsize=4096)(self._original_text)
        self._lock = threading.Lock()

    def connections(self, url: str) -> dict[str, dict[str, Any]]:
        """Return the one connection; the token comes from another address, as the vendor's does."""
        return {
            "store365_default": {
                "conn_type": self.name,
                "host": f"{url}{BASE}",
                "login": self.login,
                "password": self.password,
                "extra": {"client_id": self.client_id, "auth_url": f"{url}{TOKEN}"},
            }
        }

    def expire_tokens(self) -> None:
        """Let every access token be out of date from now on."""
        with self._lock:
            self._tokens.clear()

    def answer(self, request: Incoming) -> Answer:
        """Answer as the vendor would."""
        media = request.headers.get("content-type", JSON).partition(";")[0].strip().lower()
        if request.path == TOKEN:
            return self._token(request) if media == FORM else _error(415, "content-type must be a form")
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or self._tokens.get(token, 0.0) <= time.monotonic():
            return Answer.json(BAD_TOKEN, 401)
        if media not in (JSON, XML):
            return _error(415, "content-type must be application/json or application/xml")
        resource, _, record_id = request.path[len(BASE) :].strip("/").partition("/")
        if resource not in ITEMS:
            return _error(404, f"there is no {resource}")
        return self._resource(request, resource, unquote(record_id), media == XML)

    def _token(self, request: Incoming) -> Answer:
        """Answer the password grant, a comma after the last member as in the document's sample."""
        form = {name: values[-1] for name, values in parse_qs(request.body.decode("latin-1")).items()}
        if request.method != "POST" or form.get("grant_type") != "password":
            return _error(400, "grant_type must be password")
        given = (form.get("username"), form.get("password"), form.get("client_id"))
        if given != (self.login, self.password, self.client_id):
            return Answer.json(BAD_LOGIN, 401)
        with self._lock:
            token = _jwt(self.options.seed, len(self._tokens), time.monotonic_ns())
            self._tokens[token] = time.monotonic() + self.options.token_seconds
        lines = ("{", f'    "access_token": "{token}",', '    "token_type": "bearer",')
        body = "\n".join((*lines, f'    "expires_in": "{self.options.token_seconds}",', "}"))
        return Answer(200, (body.encode(),), JSON)

    def _resource(self, request: Incoming, resource: str, record_id: str, xml: bool) -> Answer:
        if request.method == "GET" and not record_id:
            return self._page(resource, request.query, xml)
        if request.method == "GET":
            record = self._record(resource, record_id)
            return _one(record, ITEMS[resource], xml) if record else _error(404, f"no {resource} {record_id}")
        if resource == "invoices":
            return _error(400, f"{request.method} is not allowed here")
        return self._change(request, resource, record_id, xml)

    def _change(self, request: Incoming, resource: str, record_id: str, xml: bool) -> Answer:
        """Create, change or delete a customer or a user; bodies are JSON."""
        group = self._groups[resource]
        if request.method != "POST" and record_id not in group:
            return _error(404, f"no {resource} {record_id}")
        with self._lock:
            if request.method == "DELETE":
                del group[record_id]
                return Answer(204)
            try:
                data = dict(json.loads(request.body))
            except (ValueError, TypeError):
                return _error(400, "the body is no JSON object")
            number = int(record_id) if record_id else max(map(int, group)) + 1
            group[str(number)] = {**group.get(str(number), {}), **data, "id": number}
        return _one(group[str(number)], ITEMS[resource], xml)

    def _record(self, resource: str, record_id: str) -> Record | None:
        if resource != "invoices":
            return self._groups[resource].get(record_id)
        bill = self.books.bill(record_id)
        return invoice_record(bill) if bill else None

    def _page(self, resource: str, query: Mapping[str, str], xml: bool) -> Answer:
        """Answer with one page of a list; parameters that the document does not have are ignored."""
        number, size = query.get("pageNumber", "1"), query.get("pageSize", "10")
        if not number.isdecimal() or int(number) < 1:
            return _error(400, f"pageNumber {number} is not a page")
        if not size.isdecimal() or not 1 <= int(size) <= 100:
            return _error(400, f"pageSize {size} is not within 1 and 100")
        order = next((value for name, value in query.items() if name.lower() == "sortorder"), "id")
        try:
            total, cut = self._list(resource, order)
        except KeyError:
            return _error(400, f"SortOrder {order} is not a property of {resource}")
        page, each, pages = int(number), int(size), -(-total // int(size))
        shown = 1 if self.manner == "stuck" else page
        if self.manner == "endless":
            pages, shown = page + 1, 1 + (page - 1) % pages
        texts = cut((shown - 1) * each, shown * each, xml)
        if self.manner == "endless":
            texts = (ID.sub(rf"\g<0>/{page}", text) for text in texts)
        said = {"pageNumber": page, "pageSize": each, "totalNumberOfPages": pages, "totalNumberOfRecords": total}
        return _answer(as_xml(said, texts) if xml else as_json(said, texts), xml)

    def _list(self, resource: str, order: str) -> tuple[int, Callable[[int, int, bool], Iterable[str]]]:
        """Return the length of a list in an order, and what cuts a page of rendered records out of it."""
        if resource == "invoices" and order.lower() == "id":
            ids = self.books.ids()
            return len(ids), lambda start, end, xml: (self._invoice(one, xml) for one in ids[start:end])
        every = list(self._invoices() if resource == "invoices" else self._groups[resource].values())
        name = {key.lower(): key for record in every for key in record if key != "lines"}[order.lower()]
        every.sort(key=lambda record: record[name])
        item = ITEMS[resource]
        return len(every), lambda start, end, xml: ("".join(rendered(one, item, xml)) for one in every[start:end])

    def _invoices(self) -> Iterator[Record]:
        return (invoice_record(bill) for one in self.books.ids() if (bill := self.books.bill(one)))

    def _original_text(self, original: str, xml: bool) -> str:
        record = invoice_record(self.books.reseller.bill(*self.books.reseller.locate(original)))
        return "".join(rendered(record, ITEMS["invoices"], xml))

    def _invoice(self, invoice_id: str, xml: bool) -> str:
        """Return an invoice as it is sent; a copy's is its original's with another id."""
        if original := self.books.original(invoice_id):
            return self._text(original, xml).replace(original, invoice_id)
        record = self._record("invoices", invoice_id)
        return "".join(rendered(record, ITEMS["invoices"], xml)) if record else ""


def _one(record: Record, item: str, xml: bool) -> Answer:
    return _answer(rendered(record, item, xml), xml)


def _answer(pieces: Iterable[str], xml: bool) -> Answer:
    return Answer(200, batches(pieces), f"{XML if xml else JSON}; charset=utf-8")


def _error(code: int, message: str) -> Answer:
    return Answer.json({"code": code, "message": message}, code)


def _key(seed: int, name: str) -> str:
    return base64.b64encode(hashlib.sha256(f"{seed}/store365/{name}".encode()).digest()[:15]).decode() + "+/&="


def _jwt(*parts: int) -> str:
    signed = hashlib.sha256(repr(parts).encode()).digest()
    pieces = (b'{"alg":"HS256","typ":"JWT"}', b'{"sub":"reseller-7"}', signed)
    return ".".join(base64.urlsafe_b64encode(piece).decode().rstrip("=") for piece in pieces)
