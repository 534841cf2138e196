"""The sandbox's HTTP server: vendors, faults and control endpoints on a loopback port, files on a second one."""

from __future__ import annotations

import ipaddress
import socket
import ssl
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import date
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

from airflow_cloudbilling.model import Period
from airflow_cloudbilling.sandbox import control, wire
from airflow_cloudbilling.sandbox.books import InvoiceTruth, Truth
from airflow_cloudbilling.sandbox.cloudonex import CloudOnex
from airflow_cloudbilling.sandbox.faults import Fault, Faults, from_json
from airflow_cloudbilling.sandbox.orange import Orange
from airflow_cloudbilling.sandbox.sage import Sage
from airflow_cloudbilling.sandbox.store365 import Store365
from airflow_cloudbilling.sandbox.twotcloud import TwoTCloud
from airflow_cloudbilling.sandbox.vendor import FILES, Answer, Incoming, Options, Vendor

VENDORS: tuple[type[Vendor], ...] = (TwoTCloud, Orange, CloudOnex, Store365, Sage)
SECRET_HEADERS = ("authorization", "x-api-key", "apikey", "cookie", "proxy-authorization")
SECRET_PARAMS = ("api_key", "sig")
Custom = Answer | Callable[[Incoming], Answer]


class Seen(NamedTuple):
    """A request that came in, without its secrets; ``status`` is the one answered, ``fault`` what was injected."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    source: str
    status: int
    fault: str | None


class Sandbox:
    """The vendors on a loopback port, from entering the context until leaving it.

    :param host: a loopback address; any other is refused.
    :param port: 0 for any free one.
    :param faults: rules in force from the beginning.
    :param tls: paths of a certificate and its key; the address is then ``https://``.
    :param options: the data set and what is enforced, see :class:`~airflow_cloudbilling.sandbox.vendor.Options`:
        ``seed``, ``months``, ``invoices`` (in each month and kind), ``last_month``, ``huge_invoice_mb``,
        ``strict_versions``, ``empty_shape`` (list, null, no_content), ``registered_ip``, ``contracts``,
        ``token_seconds``, ``file_kb``, ``unreadable_files``, ``sage_statuses``, ``sage_key_uses``.
    :raises ValueError: when the host is not a loopback address.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        faults: list[Fault] | None = None,
        tls: tuple[str, str] | None = None,
        **options: Any,
    ) -> None:
        self.host = loopback(host)
        self.options = Options(**{"registered_ip": self.host, **options})
        self.vendors = {kind.name: kind(self.options) for kind in VENDORS}
        self.faults = Faults(self.options.seed)
        self.faults.add(*faults or ())
        self.stopping = threading.Event()
        self._custom: dict[str, Custom] = {}
        self._requests: deque[Seen] = deque(maxlen=10_000)
        self._servers = [_Server((self.host, port), self, tls), _Server((self.host, 0), self, tls, FILES)]
        shown = f"[{self.host}]" if ":" in self.host else self.host
        ports = (server.server_address[1] for server in self._servers)
        self.url, self.files_url = (f"{'https' if tls else 'http'}://{shown}:{port}" for port in ports)
        for vendor in self.vendors.values():
            vendor.files_url = self.files_url

    def __enter__(self) -> Sandbox:
        for server in self._servers:
            threading.Thread(target=server.serve_forever, args=(0.02,), name="sandbox", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        for server in self._servers:
            server.shutdown()
            server.server_close()
            server.drop_connections()

    @property
    def requests(self) -> list[Seen]:
        """Return the requests to vendors so far, the last 10,000."""
        return list(self._requests)

    @property
    def months(self) -> list[str]:
        """Return the months of the data set, ``YYYY-MM``, ascending."""
        return [month.key for month in next(iter(self.vendors.values())).books.reseller.months]

    def connections(self) -> dict[str, dict[str, Any]]:
        """Return connection id → Airflow connection (conn_type, host, login, password, extra)."""
        return {key: one for vendor in self.vendors.values() for key, one in vendor.connections(self.url).items()}

    def environment(self) -> dict[str, str]:
        """Return the connections as Airflow reads them from the environment: ``AIRFLOW_CONN_…`` → JSON."""
        return {f"AIRFLOW_CONN_{key.upper()}": control.text(one) for key, one in self.connections().items()}

    def truth(self, vendor: str, kind: str, start: date | str, end: date | None = None) -> dict[str, Truth]:
        """Return what staging must hold: currency → counts and exact sums of every amount column.

        :param start: the first day, or a period such as ``2026-10`` and then no ``end``.
        :param end: the day after the last.
        """
        return self.vendors[vendor].books.truth(kind, *_span(start, end))

    def records(self, vendor: str, kind: str, start: date | str, end: date | None = None) -> Iterator[InvoiceTruth]:
        """Return what staging must hold of each invoice, in the vendor's order; parameters as of :meth:`truth`."""
        return self.vendors[vendor].books.records(kind, *_span(start, end))

    def inject(self, fault: str, **rule: Any) -> None:
        """Let requests go wrong from now on; see :class:`~airflow_cloudbilling.sandbox.faults.Fault`."""
        self.faults.add(*from_json({"fault": fault, **rule}))

    def clear_faults(self) -> None:
        """Drop every fault."""
        self.faults.clear()

    def change(self, change: str, *, vendor: str = "twotcloud", **where: Any) -> str:
        """Change a vendor's data; see :meth:`airflow_cloudbilling.sandbox.books.Books.change`."""
        return self.vendors[vendor].books.change(change, **where)

    def serve(self, path: str, answer: Custom | str | bytes, content_type: str = "application/json") -> None:
        """Answer every request for a path in your own way, without the vendor's checks.

        :param answer: the body, or an :class:`Answer`, or a function from the request to one.
        """
        if isinstance(answer, (str, bytes)):
            body = answer.encode() if isinstance(answer, str) else answer
            answer = Answer(200, (body,), content_type)
        self._custom[path] = answer

    def answer(self, request: Incoming) -> Answer:
        """Answer a request as its vendor would, without faults."""
        custom = self._custom.get(request.path)
        if custom is not None:
            return custom(request) if callable(custom) else custom
        if request.path.startswith(control.PREFIX):
            return control.answer(self, request)
        for vendor in self.vendors.values():
            if vendor.paths.match(request.path):
                return vendor.answer(request)
        return Answer.text(404, f"No vendor of the sandbox has a path {request.path}.")

    def seen(self, request: Incoming, status: int, fault: Fault | None) -> None:
        """Note a request."""
        headers = {k: "***" if k in SECRET_HEADERS else v for k, v in request.headers.items()}
        query = {k: "***" if k in SECRET_PARAMS else v for k, v in request.query.items()}
        name = fault.fault if fault else None
        self._requests.append(Seen(request.method, request.path, query, headers, request.source, status, name))


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(
        self, address: tuple[str, int], sandbox: Sandbox, tls: tuple[str, str] | None, folder: str = ""
    ) -> None:
        self.sandbox = sandbox
        self.folder = folder  # stands before every path, so that vendors tell the second host from the first
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self._open: set[socket.socket] = set()
        super().__init__(address, _Handler)
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*tls)
            self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a client that goes away in the middle is an ordinary guest here."""

    def drop_connections(self) -> None:
        """End connections that clients keep alive; their threads would answer for ever."""
        for connection in tuple(self._open):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def __getattr__(self, name: str) -> Any:
        if name.startswith("do_"):
            return self._serve
        raise AttributeError(name)

    def log_message(self, *_: Any) -> None:
        """Requests are kept in :attr:`Sandbox.requests`, not printed."""

    def _serve(self) -> None:
        sandbox = self.server.sandbox
        request = self._incoming()
        controls = request.path.startswith(control.PREFIX)
        fault = None if controls else sandbox.faults.pick(request.method, self.server.folder + self.path)
        answer = Answer(404) if fault and fault.refuses else sandbox.answer(request)
        answer = fault.replaced(answer) if fault else answer
        if not controls:
            sandbox.seen(request, answer.status, fault)
        self._send(answer, fault)

    def _incoming(self) -> Incoming:
        parts = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = self.rfile.read(int(headers.get("content-length", 0)))
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        return Incoming(self.command, self.server.folder + parts.path, query, headers, body, self.client_address[0])

    def _send(self, answer: Answer, fault: Fault | None) -> None:
        stopping = self.server.sandbox.stopping
        kind = fault.fault if fault else None
        if self.command == "HEAD":
            answer = Answer(answer.status, (), answer.content_type, answer.headers)
        stream = wire.frame(answer, chunks=self.request_version != "HTTP/1.0", close=self.close_connection)
        if fault and kind == "delay":
            stopping.wait(fault.seconds)
        elif fault and kind == "reset":
            stream = wire.first_bytes(stream, fault.at or 0)
        elif fault and kind == "cut":
            stream = wire.cut(answer, fault)
        elif fault and kind == "drip":
            stream = wire.dripped(stream, fault, stopping)
        for piece in stream:
            self.wfile.write(piece)
        if kind == "reset":
            wire.reset(self.connection)
        self.close_connection = self.close_connection or kind in ("reset", "cut") or stopping.is_set()


def loopback(host: str) -> str:
    """Return the address of a loopback host.

    :raises ValueError: when it is any other: the sandbox has known keys and a control endpoint without any.
    """
    address = "127.0.0.1" if host == "localhost" else host
    try:
        if ipaddress.ip_address(address).is_loopback:
            return address
    except ValueError:
        pass
    raise ValueError(f"host {host!r} is not a loopback address; the sandbox serves this machine only, e.g. 127.0.0.1")


def _span(start: date | str, end: date | None) -> tuple[date, date]:
    period = Period.parse(start) if isinstance(start, str) else Period(start, end or date.max)
    return period.start, period.end
