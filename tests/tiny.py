"""A sixth vendor in one class, and a server on loopback that answers as a test tells it."""

from __future__ import annotations

import copy
import gzip
import http.server
import itertools
import json
import os
import secrets
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from airflow_cloudbilling.errors import RefusedError
from airflow_cloudbilling.model import Notice
from airflow_cloudbilling.settings import Field, Settings, settings_from
from airflow_cloudbilling.source import (
    Again,
    Ahead,
    Ask,
    Conversation,
    Credential,
    Ok,
    Refused,
    Renew,
    Reply,
    Request,
    Source,
    Verdict,
)
from airflow_cloudbilling.sources.authentication import basic, read_token, token_url

KEY = "key+/with=signs&more"


class Tiny(Source):
    conn_type = "tiny"
    title = "Tiny Billing"
    hook_class = "airflow_cloudbilling.hooks.billing.BillingHook"
    default_host = "https://api.tiny.example"
    labels: ClassVar[dict[str, str]] = {"host": "Base URL", "login": "Account ID", "password": "API key"}
    required = ("password",)
    fields = (
        Field("version", "Version", default="v2", enum=("v1", "v2")),
        Field("second_api_key", "Second API key", secret=True),
    )
    kinds = ("purchase",)
    default_kind = "purchase"

    def authorise(self, request: Request, settings: Settings, credential: str | None = None) -> Request:
        return replace(request, headers={**request.headers, "X-Key": settings.password})

    def secrets(self, settings: Settings) -> list[str]:
        return [settings.password]

    def verdict(self, reply: Reply, settings: Settings) -> Verdict:
        if reply.status < 300:
            return Ok()
        if reply.status == 429 or reply.status >= 500:
            return Again("Tiny is busy")
        error = RefusedError(f"Tiny refused with HTTP {reply.status}.", conn_id=settings.conn_id, status=reply.status)
        return Refused(error)

    def probe(self, settings: Settings) -> Request:
        return Request("GET", "ping")

    def invoices(self, ask: Ask, settings: Settings) -> Conversation:
        for page in ("one", "two"):
            reply = yield Request("GET", f"{settings.option('version')}/{page}", {"month": ask.period.key})
            assert reply is not None
            yield Notice(reply.body.read().decode())


class TinyTokens(Tiny):
    """The tiny vendor with access tokens, which ``POST /token`` gives."""

    required = ("login", "password")
    fields = (*Tiny.fields, Field("auth_url", "Token URL", default=""), Field("client_id", "Client ID", default=""))

    def credential_request(self, settings: Settings) -> Request | None:
        headers = {"Authorization": f"Basic {basic(settings.login, settings.password)}"}
        form = {"grant_type": "client_credentials", "client_id": settings.option("client_id")}
        url = token_url(settings, f"{settings.base_url}/token")
        return Request("POST", url, headers=headers, form=form, configured=True)

    def credential(self, reply: Reply, settings: Settings) -> Credential:
        return read_token(reply, settings, self.secrets(settings), 3600)

    def authorise(self, request: Request, settings: Settings, credential: str | None = None) -> Request:
        return replace(request, headers={**request.headers, "Authorization": f"Bearer {credential}"})

    def verdict(self, reply: Reply, settings: Settings) -> Verdict:
        if reply.status == 401 and not reply.request.configured:
            return Renew("the access token has expired")
        return super().verdict(reply, settings)

    def budget(self, reply: Reply, settings: Settings) -> float | None:
        return float(reply.headers["x-quiet"]) if "x-quiet" in reply.headers else None


def pages(count: int, *, announced: bool = True) -> Conversation:
    """Ask for ``/0``, ``/1`` … and yield what each answers."""
    requests = [Request("GET", str(number)) for number in range(count)]
    if announced:
        yield Ahead(requests)
    for request in requests:
        reply = yield request
        assert reply is not None
        yield Notice(reply.body.read(100).decode())


class Answer(http.server.BaseHTTPRequestHandler):
    """One request; the test's script writes the answer with the methods below."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else a body waits 40 ms for the acknowledgement of its headers

    def do_GET(self) -> None:
        server: Any = self.server
        self.sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server_port = server.server_port
        self.at = time.monotonic()
        server.seen.append(copy.copy(self))  # one handler serves all requests of a connection
        self.number = len(server.seen)
        try:
            server.script(self)
        except (BrokenPipeError, ConnectionResetError):  # the client hung up, as some tests want
            self.close_connection = True

    do_POST = do_GET

    def give(self, status: int = 200, body: bytes = b"fine", **headers: str) -> None:
        self.send_response_only(status)
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        for name, value in {"Content-Length": str(len(body)), **names}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def give_gzip(self, body: bytes, keep: int | None = None) -> None:
        self.give(body=gzip.compress(body)[:keep], Content_Encoding="gzip")

    def log_message(self, *args: object) -> None:
        """Stay quiet."""


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128  # many connect at once; with the five of the class some would wait a second

    def __init__(self, script: Callable[[Answer], None]) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.script = script
        self.seen: list[Answer] = []
        self.sockets: list[Any] = []

    def get_request(self) -> Any:
        accepted = super().get_request()
        self.sockets.append(accepted[1])
        return accepted

    def handle_error(self, *args: object) -> None:
        """A client that hangs up is no news."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@contextmanager
def serving(script: Callable[[Answer], None], tls: ssl.SSLContext | None = None) -> Iterator[Server]:
    """Run a server on loopback that answers each request by the script."""
    server = Server(script)
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class TokenVendor:
    """A script: gives tokens at ``/token`` and answers the rest, to the bearer of a good one, with its path.

    :param expires_in: seconds that it says a token lives.
    :param delay: seconds before an answer.
    """

    def __init__(self, expires_in: object = 3600, delay: float = 0.0) -> None:
        self.expires_in = expires_in
        self.delay = delay
        self.given: list[str] = []
        self.good: set[str] = set()
        self.asked = 0  # for a token
        self.instead: Callable[[Answer], None] | None = None  # answers who asks for a token
        self.says: Callable[[Answer], None] = lambda answer: answer.give(body=answer.path.encode())
        self._lock = threading.Lock()

    def __call__(self, answer: Answer) -> None:
        time.sleep(self.delay)
        if answer.path == "/token":
            with self._lock:
                self.asked += 1
                give = self.instead or self._give
            give(answer)
        elif str(answer.headers["Authorization"]).removeprefix("Bearer ") in self.good:
            self.says(answer)
        else:
            answer.give(401, b"who are you?")

    def revoke(self) -> None:
        """Take none of the tokens that were given so far any longer."""
        self.good.clear()

    def _give(self, answer: Answer) -> None:
        token = f"token+/{secrets.token_urlsafe(20)}="
        self.given.append(token)
        self.good.add(token)
        answer.give(body=json.dumps({"access_token": token, "expires_in": self.expires_in}).encode())


def tiny_settings(host: str = "http://127.0.0.1:1", **extra: Any) -> Settings:
    """Return settings of a connection to the tiny vendor."""
    return settings_from(Tiny(), "tiny_default", conn_type="tiny", host=host, password=KEY, extra=extra)


_numbers = itertools.count()


def token_settings(host: str, conn_id: str = "", login: str = "acc", password: str = KEY, **extra: Any) -> Settings:
    """Return settings of a connection to the vendor with tokens, which no other test has used."""
    conn_id = conn_id or f"tiny_{next(_numbers)}"
    return settings_from(
        TinyTokens(), conn_id, conn_type="tiny", host=host, login=login, password=password, extra=extra
    )


class FileStore:
    """Keeps texts in files, for processes of this machine.

    :param folder: of the files; the environment's ``TINY_STORE`` when Airflow's configuration names the class.
    """

    def __init__(self, folder: Path | None = None, *, writable: bool = True) -> None:
        self.folder = folder or Path(os.environ["TINY_STORE"])
        self.writable = writable

    def read(self, conn_id: str) -> str | None:
        """Return what was written last for the connection, if anything."""
        file = self.folder / conn_id
        return file.read_text() if file.exists() else None

    def write(self, conn_id: str, text: str) -> None:
        """Keep a text."""
        assert self.writable
        scratch = self.folder / f"{conn_id}.{os.getpid()}.{threading.get_ident()}"
        scratch.write_text(text)
        scratch.replace(self.folder / conn_id)
