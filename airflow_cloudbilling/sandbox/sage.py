"""The sandbox's Sage Connected Cloud: on-boarding, keys that expire, uploads with scripted states, results."""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections import Counter
from collections.abc import Mapping
from datetime import datetime, timedelta, timezone
from typing import Any, ClassVar
from urllib.parse import unquote

from airflow_cloudbilling.sandbox.sage_files import Shelf, Upload, file_of
from airflow_cloudbilling.sandbox.sage_notifications import notification_url, notify
from airflow_cloudbilling.sandbox.vendor import FILES, Answer, Incoming, Options, Vendor

BASE = "/sage/api"
CREDENTIALS = ("apikey", "authorization", "x-api-key", "cookie")  # which no other host is ever sent
PATH = re.compile(rf"{BASE}/(?P<what>developers|apikey|files)(?P<rest>/.*)?")
FAREWELL = "the key has expired: PATCH apikey"


class Sage(Vendor):
    """One developer with one application.

    For tests: :meth:`expire_key` ends the API key, ``key_uses`` does after so many requests; ``statuses`` are what
    tracking says of the next uploads, one after the other, and ``rejects`` names records that are rejected.
    ``contents`` and ``records`` count how often each content (SHA-256) and each record's id came in, ``rotations`` how
    often a new key was given, ``leaks`` how often a credential reached the host of the files. :meth:`consent` and
    :meth:`publish` call the ``notificationUrl`` that was registered; ``notified`` has the answers' statuses.
    """

    name = "sage_connected_cloud"
    paths = re.compile(rf"({re.escape(BASE)}|{re.escape(FILES)})/")
    prefixes: ClassVar[Mapping[str, str]] = {}

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        self.developer_id, self.application_id = f"dev-{options.seed}", f"app-{options.seed}"
        self.initial_key, self.secret = (_key(options.seed, name) for name in ("initial", "secret"))
        self.key = self.initial_key
        self.key_uses: int = options.sage_key_uses
        self.rotation_seconds = 0.0
        self.statuses = [*filter(None, options.sage_statuses.split(","))]
        self.rejects: set[str] = set()
        self.contents: Counter[str] = Counter()
        self.records: Counter[str] = Counter()
        self.rotations = self.refused_rotations = self.leaks = 0
        self.developers: list[dict[str, Any]] = []
        self.applications: list[dict[str, Any]] = []
        self.passcodes: list[str] = []
        self.consents = 0
        self.notified: list[int] = []
        self.shelf = Shelf(options.seed)
        self._uses = 0
        self._lock = threading.Lock()

    def connections(self, url: str) -> dict[str, dict[str, Any]]:
        """Return the one connection, whose on-boarding is done."""
        return {
            "sage_connected_cloud_default": {
                "conn_type": self.name,
                "host": f"{url}/sage",
                "login": self.developer_id,
                "password": self.initial_key,
                "extra": {"secret": self.secret, "application_id": self.application_id},
            }
        }

    @property
    def uploads(self) -> dict[str, Upload]:
        """The uploads that were begun, by their tracking id."""
        return self.shelf.uploads

    def expire_key(self) -> None:
        """Let the API key in use be out of date from now on."""
        with self._lock:
            self.key = ""

    @property
    def notification_url(self) -> str:
        """The ``notificationUrl`` that was registered last; empty: none was."""
        return next(filter(None, map(notification_url, reversed([*self.developers, *self.applications]))), "")

    def consent(self, passcode: str) -> None:
        """Be the person who enters a passcode and consents: a new initial key goes to the notification URL.

        :raises ValueError: when no such passcode was given.
        """
        if passcode not in self.passcodes:
            raise ValueError(f"{passcode!r} is no passcode that was given")
        with self._lock:
            self.consents += 1
            self._uses = 0
            self.initial_key = self.key = _key(self.options.seed, f"initial of consent {self.consents}")
        self._notify({"apikey": self.initial_key})

    def publish(self, scope: str, records: Any) -> None:
        """Be the Sage product that uploads a scope's file: the notification URL is called."""
        self.shelf.scopes[scope] = json.dumps(records).encode()
        self._notify({"scope": scope})

    def _notify(self, payload: dict[str, str]) -> None:
        if self.notification_url:
            self.notified.append(notify(self.notification_url, payload))

    def state(self) -> dict[str, Any]:
        """Return the counts of keys and contents, and the uploads with their states."""
        counts = {name: getattr(self, name) for name in ("rotations", "refused_rotations", "leaks", "notified")}
        uploads = {name: {"scope": one.scope, "status": one.status} for name, one in self.uploads.items()}
        return {**counts, "contents": dict(self.contents), "records": dict(self.records), "uploads": uploads}

    def steer(self, **changes: Any) -> dict[str, Any]:
        """Change ``statuses``, ``rejects`` or ``key_uses``, ``expire_key``, ``consent`` or ``publish``."""
        if unknown := changes.keys() - {"statuses", "rejects", "key_uses", "expire_key", "consent", "publish"}:
            return super().steer(**dict.fromkeys(unknown))
        if changes.pop("expire_key", False):
            self.expire_key()
        if "consent" in changes:
            self.consent(changes.pop("consent"))
        for scope, records in changes.pop("publish", {}).items():
            self.publish(scope, records)
        for name, value in changes.items():
            setattr(self, name, type(getattr(self, name))(value))
        return self.state()

    def answer(self, request: Incoming) -> Answer:
        """Answer as the vendor would."""
        if request.path.startswith(FILES):
            return self._elsewhere(request, request.path[len(FILES) :])
        found = PATH.fullmatch(request.path)
        if found is None:
            return _error(404, "there is no such operation")
        what, rest = found["what"], tuple(map(unquote, (found["rest"] or "").split("/")[1:]))
        if what == "developers":
            return self._onboarding(request, rest)
        if what == "apikey":
            return self._rotate(request)
        if not self._known(request.headers.get("apikey", "")):
            return _error(401, FAREWELL)
        return self._files(request, rest)

    def _known(self, key: str) -> bool:
        with self._lock:
            if not key or key != self.key:
                return False
            self._uses += 1
            if self.key_uses and self._uses >= self.key_uses:  # this request was the last one
                self.key = ""
            return True

    def _rotate(self, request: Incoming) -> Answer:
        """Give a new key for the initial one and the secret; the one before ends."""
        data = _object(request)
        if request.method != "PATCH":
            return _error(405, "PATCH apikey")
        time.sleep(self.rotation_seconds)
        with self._lock:
            if (data.get("initialApikey"), data.get("secret")) != (self.initial_key, self.secret):
                self.refused_rotations += 1
                return _error(401, "initialApikey or secret is not known")
            self.rotations += 1
            self._uses = 0
            self.key = _key(self.options.seed, f"rotated {self.rotations}")
            return Answer.json({"apikey": self.key, "expires": _moment(days=180)})

    def _onboarding(self, request: Incoming, rest: tuple[str, ...]) -> Answer:
        data = _object(request)
        if request.method != "POST":
            return _error(405, "POST")
        if not rest:
            self.developers.append(data)
            return Answer.json({"registrationUrl": f"https://portal.example.test/captcha/{len(self.developers)}"}, 201)
        if rest[0] != self.developer_id:
            return _error(404, f"no developer {rest[0]}")
        if rest[1:] == ("applications",):
            self.applications.append(data)
            return Answer.json({"registrationUrl": f"https://portal.example.test/app/{len(self.applications)}"}, 201)
        if rest[1:] != ("applications", self.application_id, "passcodes"):
            return _error(404, "no such application")
        if data.get("secret") != self.secret:
            return _error(400, "secret is missing or not known")
        self.passcodes.append(_key(self.options.seed, f"passcode {len(self.passcodes)}")[:9])
        return Answer.json({"passcode": self.passcodes[-1], "expires": _moment(minutes=15)}, 201)

    def _files(self, request: Incoming, rest: tuple[str, ...]) -> Answer:
        if request.method == "GET" and len(rest) == 2 and rest[1] == "tracking":
            upload = self.uploads.get(rest[0])
            return Answer.json(upload.said(self.files_url)) if upload else _error(404, f"no upload {rest[0]}")
        if request.method == "GET" and len(rest) == 1:
            return self.shelf.scope(rest[0], request.headers) or _error(404, f"no scope {rest[0]}")
        if request.method == "POST" and len(rest) == 1:
            return self._upload(request, rest[0])
        return _error(405, "GET or POST")

    def _upload(self, request: Incoming, scope: str) -> Answer:
        try:
            told = json.loads(request.body)
        except ValueError:
            told = None
        if isinstance(told, dict) and {"fileName", "size", "sha256"} <= told.keys():
            upload = self.shelf.begin(scope, self.statuses, told)
            return Answer.json({"uploadUrl": upload.upload_url(self.files_url), "trackingId": upload.tracking_id}, 201)
        content = file_of(request)
        if content is None:
            return _error(400, "a form needs the field 'file'")
        upload = self.shelf.begin(scope, self.statuses)
        self._receive(upload, content)
        return Answer.json({"trackingId": upload.tracking_id}, 202)

    def _receive(self, upload: Upload, content: bytes) -> None:
        with self._lock:
            self.contents[hashlib.sha256(content).hexdigest()] += 1
            self.records.update(upload.receive(content, self.rejects))
        self.shelf.keep(upload, content)

    def _elsewhere(self, request: Incoming, path: str) -> Answer:
        """Answer as the host of the files, which knows signatures only and refuses credentials."""
        if any(name in request.headers for name in CREDENTIALS):
            with self._lock:
                self.leaks += 1
            return _error(400, "only one way to authenticate is allowed: the signature")
        kind, _, name = path.strip("/").partition("/")
        upload = self.uploads.get(name)
        if upload is None or request.query.get("sig") != upload.signature(kind):
            return _error(403, "the signature does not match")
        if request.method == "GET" and kind == "results" and upload.result is not None:
            return Answer(200, (upload.result,), "application/json")
        if request.method != "PUT" or kind != "uploads":
            return _error(404, f"nothing at {path}")
        if wrong := upload.differs(request.body):
            return _error(400, wrong)
        self._receive(upload, request.body)
        return Answer(200)


def _object(request: Incoming) -> dict[str, Any]:
    try:
        data = json.loads(request.body)
    except ValueError:
        return {}
    return data if isinstance(data, dict) else {}


def _error(status: int, message: str) -> Answer:
    return Answer.json({"code": status, "message": message}, status)


def _moment(**span: float) -> str:
    return (datetime.now(tz=timezone.utc) + timedelta(**span)).strftime("%Y-%m-%dT%H:%M:%SZ")


def _key(seed: int, name: str) -> str:
    digest = hashlib.sha256(f"{seed}/sage/{name}".encode()).hexdigest()
    return f"{digest[:20]}+/{digest[20:32]}="
