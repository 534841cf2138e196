"""The sandbox's Orange Cloud Store: contracts, documents and files as vendor-docs/orange-cloud-store… has them."""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections import deque
from collections.abc import Mapping
from functools import partial
from itertools import islice
from typing import Any, ClassVar
from urllib.parse import parse_qs, unquote

from airflow_cloudbilling.sandbox.catalogue import RESELLER
from airflow_cloudbilling.sandbox.orange_books import OrangeBooks, OrangeReseller
from airflow_cloudbilling.sandbox.orange_documents import TYPES, Shelf
from airflow_cloudbilling.sandbox.vendor import Answer, Incoming, Options, Vendor

BASE = "/cloud/b2b/v1"
TOKEN = "/oauth/v3/token"  # noqa: S105 - a path
MINUTE = 60.0
USER_FIELDS = ("lastName", "firstName", "email", "login")
CONTRACT_FIELDS = ("billingAccountId", "offerCode", "contractName")
ERRORS = {  # Orange's code → HTTP status and message
    1: (500, "Internal error"), 22: (400, "Invalid body"), 23: (400, "Missing body field"),
    25: (400, "Missing header"), 28: (400, "Invalid query-string parameter value"), 40: (401, "Missing credentials"),
    41: (401, "Invalid credentials"), 42: (401, "Expired credentials"), 51: (403, "Forbidden requester"),
    53: (429, "Too many requests"), 60: (404, "Resource not found"), 61: (405, "Method not allowed"),
    62: (406, "Not acceptable"),
}  # fmt: skip

_json = partial(Answer.json, ascii_only=False)


class Orange(Vendor):
    """One application with one API key that sees several contracts.

    ``path_style`` says which paths POST takes, ``singular`` or ``plural``; ``tokens_per_minute`` limits the token
    endpoint, and :meth:`expire_tokens` ends every token at once. All three are for tests.
    """

    name = "orange_cloudstore"
    paths = re.compile(rf"({re.escape(TOKEN)}|{re.escape(BASE)}/)")
    prefixes: ClassVar[Mapping[str, str]] = {"purchase": "INV", "usage": "RPT"}

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.books = OrangeBooks(
            OrangeReseller(
                options.seed, options.months, options.invoices, options.last_day, self.prefixes, options.huge_invoice_mb
            )
        )
        self.client_id, self.secret, self.api_key = (_key(options.seed, name) for name in ("client", "secret", "key"))
        self.contracts = [f"OCB{1234 + nth:07d}" for nth in range(max(1, options.contracts))]
        self.shelf = Shelf(self.books, self.contracts, options.file_kb * 1024, options.unreadable_files)
        self.created: list[dict[str, Any]] = []
        self.users: list[dict[str, Any]] = []
        self.path_style = "singular"
        self.tokens_per_minute = 50
        self._tokens: dict[str, float] = {}
        self._asked: deque[float] = deque()
        self._lock = threading.Lock()

    def connections(self, url: str) -> dict[str, dict[str, Any]]:
        """Return the one connection, for all contracts."""
        return {
            "orange_cloudstore_default": {
                "conn_type": self.name,
                "host": url,
                "login": self.client_id,
                "password": self.secret,
                "extra": {"api_key": self.api_key},
            }
        }

    def expire_tokens(self) -> None:
        """Let every access token be out of date from now on."""
        with self._lock:
            self._tokens = dict.fromkeys(self._tokens, 0.0)

    def answer(self, request: Incoming) -> Answer:
        """Answer as the vendor would: the gateway's checks first, then the API's."""
        if "application/json" not in request.headers.get("accept", "").lower():
            return _error(62, "Accept must be application/json")
        if request.path == TOKEN:
            return self._token(request)
        if refused := self._refused(request):
            return _error(refused)
        path = request.path.removeprefix(BASE)
        if request.method == "POST":
            return self._post(path, request)
        if request.method != "GET":
            return _error(61)
        if path == "/contracts":
            return _json([self._contract(each) for each in self._contract_ids()])
        contract = request.headers.get("x-eccs-contract-id")
        if not contract:
            return _error(25, "X-ECCS-Contract-Id")
        if contract not in self._contract_ids():
            return _error(60, f"no contract {contract}")
        return self._get(path, contract, request.query)

    def _token(self, request: Incoming) -> Answer:
        """Give a token for the client credentials grant; 50 requests a minute, whether they succeed or not."""
        now = time.monotonic()
        with self._lock:
            while self._asked and self._asked[0] <= now - MINUTE:
                self._asked.popleft()
            if len(self._asked) >= self.tokens_per_minute:
                wait = max(1, round(self._asked[0] + MINUTE - now)) if self._asked else int(MINUTE)
                return _error(53, headers={"Retry-After": str(wait)})
            self._asked.append(now)
            form = parse_qs(request.body.decode("latin-1"))
            if request.method != "POST" or form.get("grant_type") != ["client_credentials"]:
                return _json({"error": "unsupported_grant_type", "error_description": "client_credentials"}, 400)
            if request.basic != (self.client_id, self.secret):
                return _json({"error": "invalid_client", "error_description": "The client is unknown."}, 401)
            token = _key(self.options.seed, f"token{len(self._tokens)}")
            self._tokens[token] = now + self.options.token_seconds
        lifetime = str(self.options.token_seconds)  # a text, as Orange sends it
        return _json({"token_type": "Bearer", "access_token": token, "expires_in": lifetime})

    def _refused(self, request: Incoming) -> int | None:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token:
            return 40
        with self._lock:
            until = self._tokens.get(token)
        if until is None:
            return 41
        if until <= time.monotonic():
            return 42
        return None if request.headers.get("x-api-key") == self.api_key else 51

    def _get(self, path: str, contract: str, query: Mapping[str, str]) -> Answer:
        if path == "/contract":
            return _json(self._contract(contract))
        if path == "/documents":
            return self._documents(contract, query)
        if found := re.fullmatch("/documents/([^/]+)/file", path):
            return self._file(unquote(found[1]), contract)
        return _error(60)

    def _documents(self, contract: str, query: Mapping[str, str]) -> Answer:
        asked = query.get("documentType", "")
        if asked and asked not in TYPES:
            return _json({"documents": None})  # an unknown type is no error (vendor facts 2b)
        limit = query.get("limit", "1000000")
        if not limit.isdigit():
            return _error(28, "limit")
        found = self.shelf.ids(contract, asked) if contract in self.contracts else ()  # a new contract has none
        return _json([self.shelf.record(each) for each in islice(found, int(limit))])

    def _file(self, document_id: str, contract: str) -> Answer:
        if not self.shelf.has(document_id, contract):
            return _error(60, f"no document {document_id}")
        disposition = {"Content-Disposition": f'attachment; filename="{self.shelf.filename(document_id)}"'}
        return Answer(200, self.shelf.content(document_id), "application/octet-stream", disposition)

    def _post(self, path: str, request: Incoming) -> Answer:
        """Create a user or a contract; what is created stays."""
        base = "/contracts" if self.path_style == "plural" else "/contract"
        try:
            data = json.loads(request.body)
        except ValueError:
            return _error(22)
        user = re.fullmatch(f"{base}/([^/]+)/user", path)
        wanted = USER_FIELDS if user else CONTRACT_FIELDS
        if not user and path != f"{base}/":
            return _error(60, path)
        if user and user[1] not in self._contract_ids():
            return _error(60, f"no contract {user[1]}")
        if not isinstance(data, dict) or not all(data.get(name) for name in wanted):
            return _error(23, ", ".join(wanted))
        with self._lock:
            if user:
                self.users.append({**data, "id": f"U{len(self.users) + 1:05d}", "contractId": user[1]})
                return _json(self.users[-1], 201)
            self.created.append({**data, "id": f"OCB{9000 + len(self.created):07d}"})
            return _json(self._contract(self.created[-1]["id"]), 201)

    def _contract_ids(self) -> list[str]:
        return [*self.contracts, *(each["id"] for each in self.created)]

    def _contract(self, contract: str) -> dict[str, Any]:
        """Return a contract in the keys of "Example 1"; a created one has no platform yet (vendor facts 2b)."""
        made = next((each for each in self.created if each["id"] == contract), None)
        record = {
            "name": made["contractName"] if made else f"Flexible Engine {contract}",
            "contractType": "prod",
            "offer": {"name": "Flexible Engine", "id": made["offerCode"] if made else "FE"},
            "platformId": contract,
            "customer": {"id": RESELLER.number, "name": RESELLER.name, "segment": "GE"},
            "updatedAt": "2025-01-02T00:00:00Z",
            "id": contract,
            "createdAt": "2021-03-04T00:00:00Z",
            "contact": {
                "lastName": "Doe",
                "firstName": "John",
                "name": "John Doe",
                "email": "john.doe@example.test",
                "title": "M",
            },
        }
        if made:
            del record["platformId"]
        return record


def _error(code: int, description: str = "", headers: Mapping[str, str] | None = None) -> Answer:
    status, message = ERRORS[code]
    body = {"code": code, "message": message, "description": description or message}
    return Answer.json(body, status, headers)


def _key(seed: int, name: str) -> str:
    return hashlib.sha256(f"{seed}/orange/{name}".encode()).hexdigest()[:32]
