"""A sixth vendor in one class, and a server on loopback that answers as a test tells it."""

from __future__ import annotations

import gzip
import http.server
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, ClassVar

from airflow_cloudbilling.errors import RefusedError
from airflow_cloudbilling.model import Notice
from airflow_cloudbilling.settings import Field, Settings, settings_from
from airflow_cloudbilling.source import Again, Ask, Conversation, Ok, Refused, Reply, Request, Source, Verdict

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


class Answer(http.server.BaseHTTPRequestHandler):
    """One request; the test's script writes the answer with the methods below."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        server: Any = self.server
        server.seen.append(self)
        self.number = len(server.seen)
        self.server_port = server.server_port
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


def tiny_settings(host: str = "http://127.0.0.1:1", **extra: Any) -> Settings:
    """Return settings of a connection to the tiny vendor."""
    return settings_from(Tiny(), "tiny_default", conn_type="tiny", host=host, password=KEY, extra=extra)
