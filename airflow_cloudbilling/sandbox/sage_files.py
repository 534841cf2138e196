"""Files of the sandbox's Sage: uploads with their states and results, and scopes to download."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from collections.abc import Collection, Mapping, Sequence
from email.utils import formatdate
from typing import Any

from airflow_cloudbilling.sandbox.catalogue import CUSTOMERS, PRODUCTS
from airflow_cloudbilling.sandbox.vendor import Answer, Incoming

_FIRST_MOMENT = 1_793_491_200  # 2026-11-01; each change of a file is a second later
FINAL = ("accepted", "failed")  # "When 'accepted' or 'failed', the Sage product upload a file with the results"


class Upload:
    """One file on its way.

    :param statuses: what tracking says, one after the other; the last one stays.
    :param told: of a presigned upload what was said of the file.
    """

    def __init__(self, tracking_id: str, scope: str, statuses: Sequence[str], told: dict[str, Any] | None) -> None:
        self.tracking_id = tracking_id
        self.scope = scope
        self.statuses = [*statuses]
        self.told = told
        self.polls = 0
        self.received = 0
        self.result: bytes | None = None

    @property
    def status(self) -> str:
        """What tracking said last."""
        return self.statuses[min(max(self.polls, 1), len(self.statuses)) - 1] if self.received else "awaiting_upload"

    def signature(self, kind: str) -> str:
        """Return the signature of one of the upload's addresses."""
        return hashlib.sha256(f"{kind}/{self.tracking_id}".encode()).hexdigest()[:24]

    def upload_url(self, files_url: str) -> str:
        """Return the address that takes the file."""
        return f"{files_url}/uploads/{self.tracking_id}?sig={self.signature('uploads')}&X-Expires=3600"

    def said(self, files_url: str) -> dict[str, Any]:
        """Return what tracking says, and let the upload go on."""
        if self.received:
            self.polls += 1
        done = self.status in FINAL and self.result is not None
        result = f"{files_url}/results/{self.tracking_id}?sig={self.signature('results')}" if done else None
        progress = 100 * min(self.polls, len(self.statuses)) // len(self.statuses)
        return {"id": self.tracking_id, "scope": self.scope, "status": self.status, "progress": progress,
                "downloadResultUrl": result}  # fmt: skip

    def differs(self, content: bytes) -> str | None:
        """Return what of a presigned upload is not as it was told."""
        told = self.told or {}
        if told.get("size") != len(content):
            return f"size is {len(content)}, not {told.get('size')}"
        digest = hashlib.sha256(content).hexdigest()
        return None if told.get("sha256") == digest else f"sha256 is {digest}"

    def receive(self, content: bytes, rejects: Collection[str]) -> list[str]:
        """Take the file, validate it and return the ids of its records."""
        self.received += 1
        try:
            records = json.loads(content)
            ids = [str(record["id"]) for record in (records if isinstance(records, list) else [records])]
        except (ValueError, TypeError, KeyError) as error:
            self.statuses = ["validating", "failed"]
            words = f"{type(error).__name__}: expected a list of objects with an id"
            self.result = json.dumps({"status": "failed", "errors": [words]}).encode()
            return []
        results = [
            {"id": each, "status": "rejected", "errors": [f"{each} is not wanted"]}
            if each in rejects
            else {"id": each, "status": "accepted", "errors": []}
            for each in ids
        ]
        self.result = json.dumps(results).encode()
        return ids


class Shelf:
    """Uploads by their tracking id, and the last version of each scope's file.

    For tests: ``validators`` are the headers that say whether a scope's file has changed.
    """

    def __init__(self, seed: int) -> None:
        self.uploads: dict[str, Upload] = {}
        self.scopes: dict[str, bytes] = {"Customers": _customers(), "Products": _products()}
        self.validators: Collection[str] = ("ETag", "Last-Modified")
        self._tags: dict[str, str] = {}
        self._moments: dict[str, str] = {}
        self._changes = 0
        self._seed = seed
        self._lock = threading.Lock()

    def begin(self, scope: str, statuses: Sequence[str], told: dict[str, Any] | None = None) -> Upload:
        """Return a new upload."""
        with self._lock:
            name = hashlib.sha256(f"{self._seed}/upload/{len(self.uploads)}".encode()).hexdigest()[:12]
            self.uploads[name] = Upload(name, scope, statuses, told)
            return self.uploads[name]

    def keep(self, upload: Upload, content: bytes) -> None:
        """Make a file the last version of its scope."""
        self.scopes[upload.scope] = content

    def scope(self, name: str, headers: Mapping[str, str]) -> Answer | None:
        """Return a scope's file, all of its data, or that it is as the request's ``If-…`` headers know it."""
        content = self.scopes.get(name)
        if content is None:
            return None
        now = self._validators(name, content)
        asked = {"ETag": headers.get("if-none-match"), "Last-Modified": headers.get("if-modified-since")}
        if any(value == asked[header] for header, value in now.items()):
            return Answer(304, (), None, now)
        return Answer(200, (content,), "application/json", now)

    def touch(self, name: str) -> None:
        """Let a scope's file have been written again, as it is."""
        with self._lock:
            self._tags.pop(name, None)

    def _validators(self, name: str, content: bytes) -> dict[str, str]:
        tag = hashlib.sha256(content).hexdigest()[:16]
        with self._lock:
            if self._tags.get(name) != tag:
                self._tags[name], self._changes = tag, self._changes + 1
                self._moments[name] = formatdate(_FIRST_MOMENT + self._changes, usegmt=True)
            known = {"ETag": f'"{tag}"', "Last-Modified": self._moments[name]}
        return {header: value for header, value in known.items() if header in self.validators}


def file_of(request: Incoming) -> bytes | None:
    """Return the file of an upload: the body, or the form's field ``file``."""
    boundary = re.search(r"multipart/form-data;.*boundary=\"?([^\";]+)", request.headers.get("content-type", ""))
    if boundary is None:
        return request.body
    for part in request.body.split(f"--{boundary[1]}".encode())[1:-1]:
        head, _, content = part.partition(b"\r\n\r\n")
        if b'name="file"' in head and b"filename=" in head:
            return content.removesuffix(b"\r\n")
    return None


def _customers() -> bytes:
    """Return the scope ``Customers`` in the fields of the e-commerce solution (vendor facts 4b)."""
    moment = "2026-11-01T00:00:00Z"
    return json.dumps(
        [
            {"id": str(one.account), "idNumber": one.number, "firstName": "", "lastName": one.name,
             "email": f"{one.number.lower()}@example.test", "addresses": [], "timestamp": moment}
            for one in CUSTOMERS
        ]
    ).encode()  # fmt: skip


def _products() -> bytes:
    return json.dumps(
        [
            {"id": one.sku, "reference": one.sku, "name": one.name, "netPrice": one.price, "tax": "21"}
            for one in PRODUCTS
        ]
    ).encode()
