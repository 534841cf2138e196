"""The sandbox's CloudOnex: ten resources below ``/api/v2`` and ``/?ng=api/v2``, documented and older answers.

Records that are posted stay until the sandbox ends; the truth knows the data set only.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import math
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import date, timedelta
from decimal import Decimal
from typing import Any, ClassVar
from urllib.parse import parse_qsl

from airflow_cloudbilling.sandbox import cloudonex_records as records
from airflow_cloudbilling.sandbox.bills import Bill
from airflow_cloudbilling.sandbox.render import batches, to_json
from airflow_cloudbilling.sandbox.vendor import Answer, Incoming, Options, Vendor

STYLES = ("enveloped", "meta", "bare", "rows")
RESOURCES = (
    "customers", "invoices", "transactions", "quotes", "products", "orders", "leads", "suppliers", "purchases",
    "tickets",
)  # fmt: skip
_KINDS = {"invoices": "sales", "purchases": "purchase"}
_DEFAULT_LIMIT = 20  # of a page (vendor facts 3b)
_DAY = timedelta(days=1)
Reply = tuple[int, Any]  # status, and the record or records


class CloudOnex(Vendor):
    """One installation with one API key; ``cloudonex_style`` says how it answers.

    ``enveloped`` as the document has it, ``meta`` with the counters of the vendor's later page, ``bare`` lists without
    pages, ``rows`` as the product's older versions: bare rows, lists without lines, failures with HTTP 200.
    """

    name = "cloudonex"
    paths = re.compile(r"/(api/v2(/.*)?)?$")
    prefixes: ClassVar[Mapping[str, str]] = {"sales": "1", "purchase": "2"}

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.style = options.cloudonex_style
        if self.style not in STYLES:
            raise ValueError(f"cloudonex_style {self.style!r} is none of {', '.join(STYLES)}")
        reseller = records.Numbered(
            options.seed, options.months, options.invoices, options.last_day, self.prefixes, huge_invoice_mb=0
        )
        self.books: records.Ledger = records.Ledger(reseller, rows=self.style == "rows")
        self.key = hashlib.sha256(f"{options.seed}/cloudonex".encode()).hexdigest()[:32] + "/+="
        self._stored: dict[str, list[records.Record]] = {name: records.others(name) for name in RESOURCES}
        self._stored |= {
            "customers": records.customers(),
            "products": records.products(),
            "invoices": [],
            "purchases": [],
        }
        self._statuses: dict[str, str] = {}
        self._window, self._used = 0.0, 0
        self._lock = threading.Lock()

    def connections(self, url: str) -> dict[str, dict[str, Any]]:
        """Return the one connection; older versions want singular paths and forms."""
        old = {"resource_style": "singular", "body_format": "form"}
        extra = old if self.style == "rows" else {}
        one = {"conn_type": self.name, "host": url, "login": None, "password": self.key, "extra": extra}
        return {"cloudonex_default": one}

    def answer(self, request: Incoming) -> Answer:
        """Answer as the vendor would."""
        if not self._authorised(request):
            return self._failed(401, "Invalid API Key")
        headers, exhausted = self._count()
        if exhausted:
            return self._with(self._failed(429, "Too Many Requests"), headers)
        path = request.query.get("ng", "").strip("/") if request.path == "/" else request.path.strip("/")
        endpoint, _, record_id = path.removeprefix("api/v2").strip("/").partition("/")
        with self._lock:
            return self._with(self._routed(request, endpoint, record_id), headers)

    def _authorised(self, request: Incoming) -> bool:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        given = token if scheme.lower() == "bearer" else request.query.get("api_key", "")
        return hmac.compare_digest(given.encode(), self.key.encode())

    def _count(self) -> tuple[dict[str, str], bool]:
        """Count a request; return the three headers ("Rate Limiting"), and whether there were too many."""
        limit, span = self.options.rate_limit, self.options.rate_window
        with self._lock:
            now = time.time()
            if now >= self._window + span:
                self._window, self._used = now, 0
            self._used += 1
            exhausted, left = self._used > limit, max(limit - self._used, 0)
            reset = math.ceil(self._window + span)
        headers = {"X-RateLimit-Limit": str(limit), "X-RateLimit-Remaining": str(left), "X-RateLimit-Reset": str(reset)}
        if exhausted and self.options.rate_retry_after:
            headers["Retry-After"] = str(max(math.ceil(reset - now), 0))
        return headers, exhausted

    def _routed(self, request: Incoming, endpoint: str, record_id: str) -> Answer:
        old, single = self.style == "rows", bool(record_id) or request.method == "POST"
        resource = f"{endpoint}s" if old and single else endpoint
        if resource not in RESOURCES:
            return self._failed(404, "Unknown resources requested!")
        if not single:
            return self._list(resource, request.query)
        verbs: dict[str, Callable[[], Reply]] = {
            "GET": lambda: (200, self._one(resource, record_id)),
            "POST": lambda: (201, self._create(resource, _body(request))),
            "PUT": lambda: (200, self._update(resource, record_id, _body(request))),
            "DELETE": lambda: (200, self._delete(resource, record_id)),
        }
        if request.method not in verbs or bool(record_id) == (request.method == "POST"):
            return self._failed(405, "Method not allowed")
        try:
            status, record = verbs[request.method]()
        except KeyError:
            return self._failed(404, "Not found!")
        except ValueError as error:
            return self._failed(400, "Validation failed", str(error))
        return self._wrapped(200 if old else status, record)

    def _list(self, resource: str, query: Mapping[str, str]) -> Answer:
        try:
            start, end = _span(query, honoured=self.options.cloudonex_filters)
            page, limit = max(int(query.get("page", 1)), 1), max(int(query.get("limit", _DEFAULT_LIMIT)), 1)
        except ValueError as error:
            return self._failed(400, "Validation failed", str(error))
        found: list[Any] = list(self._stored[resource])
        if kind := _KINDS.get(resource):
            inside = [one for one in found if start.isoformat() <= str(one.get("date", "")) < end.isoformat()]
            found = [*self.books.kept(kind, start, end), *inside]
        total = len(found)
        if self.style not in ("bare", "rows"):
            found = found[(page - 1) * limit : page * limit]
        meta = {"current_page": page, "total_pages": max(-(-total // limit), 1), "total_records": total}
        return self._wrapped(200, map(self._listed, found), meta if self.style == "meta" else None)

    def _listed(self, found: Any) -> records.Record:
        if not isinstance(found, Bill):
            return dict(found)
        shape = records.row if self.style == "rows" else records.document
        return shape(found, self._status(found))

    def _status(self, bill: Bill) -> str:
        return self._statuses.get(bill.invoice_id, "Unpaid" if int(bill.invoice_id) % 2 else "Paid")

    def _one(self, resource: str, record_id: str) -> Any:
        for record in self._stored[resource]:
            if str(record["id"]) == record_id:
                return record
        bill = self._bill(resource, record_id)
        if self.style == "rows":
            return {"invoice": records.row(bill, self._status(bill)), "items": records.row_items(bill)}
        return records.document(bill, self._status(bill))

    def _bill(self, resource: str, record_id: str) -> Bill:
        try:
            kind, month, _ = self.books.reseller.locate(record_id)
        except ValueError:
            raise KeyError(record_id) from None
        if kind != _KINDS.get(resource):
            raise KeyError(record_id)
        found = (bill for bill in self.books.kept(kind, month.start, month.end) if bill.invoice_id == record_id)
        bill = next(found, None)
        if bill is None:
            raise KeyError(record_id)
        return bill

    def _create(self, resource: str, data: records.Record) -> Any:
        if resource == "customers" and not data.get("account"):
            raise ValueError("account: the name is required")
        stored = self._stored[resource]
        record = {**data, "id": 1 + max((int(one["id"]) for one in stored), default=0)}
        stored.append(record)
        name = resource.removesuffix("s")
        return {"error": "false", f"{name}_id": record["id"]} if self.style == "rows" else record

    def _update(self, resource: str, record_id: str, data: records.Record) -> Any:
        record = self._one(resource, record_id)
        if record in self._stored[resource]:
            record.update(data)
        elif "status" in data:  # of an invoice that was sent nothing else changes
            self._statuses[record_id] = str(data["status"])
        return self._one(resource, record_id)

    def _delete(self, resource: str, record_id: str) -> Any:
        record = self._one(resource, record_id)
        if record in self._stored[resource]:
            self._stored[resource].remove(record)
        else:
            self.books.change("withdraw", invoice_id=record_id)
        return {"id": int(record_id), "deleted": 1}

    def _wrapped(self, status: int, value: Any, meta: Mapping[str, int] | None = None) -> Answer:
        data = to_json(value)
        if self.style in ("bare", "rows"):
            return _json(status, data)
        after = f',"meta":{json.dumps(meta)}' if meta else ""
        return _json(status, ('{"success":true,"data":', *data, f'{after},"message":""}}'))

    def _failed(self, status: int, message: str, *errors: str) -> Answer:
        if self.style == "rows":
            body: Any = {"error": True, "message": [message, *errors] if errors else message}
            return _json(status if status == 429 else 200, (json.dumps(body),))
        named = {name: words.strip() for name, _, words in (error.partition(":") for error in errors)}
        return _json(status, (json.dumps({"success": False, "errors": named, "message": message}),))

    @staticmethod
    def _with(answer: Answer, headers: Mapping[str, str]) -> Answer:
        return Answer(answer.status, answer.body, answer.content_type, {**answer.headers, **headers})


def _json(status: int, pieces: Iterable[str]) -> Answer:
    return Answer(status, list(batches(pieces)), "application/json")


def _span(query: Mapping[str, str], *, honoured: bool) -> tuple[date, date]:
    """Return the half-open span of days that a list is asked for."""
    first, last = (query.get(name) if honoured else None for name in ("date_from", "date_to"))
    start = date.fromisoformat(first) if first else date.min
    return start, date.fromisoformat(last) + _DAY if last else date.max


def _body(request: Incoming) -> records.Record:
    """Read what is posted, JSON or a PHP form."""
    if "json" in request.headers.get("content-type", ""):
        value = json.loads(request.body, parse_float=Decimal)
        if not isinstance(value, dict):
            raise ValueError("body: an object is expected")
        return value
    record: records.Record = {}
    for name, text in parse_qsl(request.body.decode(), keep_blank_values=True):
        *outer, last = re.findall(r"[^\[\]]+", name)
        place = record
        for key in outer:
            place = place.setdefault(key, {})
        place[last] = text
    return record
