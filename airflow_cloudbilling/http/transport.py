"""The only module that speaks HTTP: one exchange with its redirects, within the bounds of the connection."""

from __future__ import annotations

import asyncio
import http.cookiejar
import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, fields, replace
from typing import Any
from urllib.parse import quote, unquote, urlencode, urljoin

import httpx

from airflow_cloudbilling import __version__
from airflow_cloudbilling.errors import ConfigurationError, InDoubtError, RefusedError, VendorError
from airflow_cloudbilling.http.in_flight import Asked
from airflow_cloudbilling.http.spool import BodyError, CutError, receive
from airflow_cloudbilling.parse.records import json_text
from airflow_cloudbilling.parse.values import Unreadable
from airflow_cloudbilling.redaction import Secrets, clean, redact
from airflow_cloudbilling.settings import Settings
from airflow_cloudbilling.source import Reply, Request, Source
from airflow_cloudbilling.urls import Target, direct_hosts, proxy_of, signatures, target

MAX_REDIRECTS = 5
_REDIRECTS = (301, 302, 303, 307, 308)
_NO_TLS = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "UNKNOWN_PROTOCOL", "HTTP_REQUEST")
_UNSENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError)

log = logging.getLogger(__name__)


@dataclass
class Counters:
    """What a client has done so far; ``bytes`` after content decoding, ``waited`` in seconds between attempts."""

    requests: int = 0
    retries: int = 0
    bytes: int = 0
    waited: float = 0.0

    def since(self, before: Counters) -> Counters:
        """Return what was done after these were as they were before."""
        return Counters(*(getattr(self, one.name) - getattr(before, one.name) for one in fields(self)))


class LostError(Exception):
    """No complete answer came; the message says what happened.

    :param sent: whether the request may have reached the vendor.
    """

    def __init__(self, message: str, *, sent: bool) -> None:
        super().__init__(message)
        self.sent = sent


class Transport:
    """One connection pool to one vendor.

    :param secrets: no log, error or body shows them.
    :param counters: told what is done.
    """

    def __init__(self, source: Source, settings: Settings, secrets: Secrets, counters: Counters) -> None:
        self.source = source
        self.settings = settings
        self.counters = counters
        self._secrets = secrets
        self._http: httpx.AsyncClient | None = None
        self._opening = asyncio.Lock()

    async def send(self, asked: Asked, credential: str | None) -> Reply:
        """Return the answer to one attempt of a request, whatever it says, and note the exchanges.

        :raises LostError: when no complete answer came.
        :raises VendorError: when what came may not be taken or followed.
        """
        try:
            return await self._follow(asked, credential)
        except (httpx.TransportError, CutError) as error:
            raise LostError(self._words(error, asked.request), sent=not isinstance(error, _UNSENT)) from None

    async def aclose(self) -> None:
        """Close the connections."""
        if self._http is not None:
            await self._http.aclose()
            self._http = None
        self._opening = asyncio.Lock()  # the next use may be on another event loop

    def _words(self, error: Exception, request: Request) -> str:
        text = clean(redact(str(error), self._secrets))
        if "CERTIFICATE_VERIFY_FAILED" in text:
            shown = redact(target(request, self.settings).shown, self._secrets)
            message = f"the certificate of {shown} is not trusted ({text}); {_mends(text)}"
            raise ConfigurationError(message, conn_id=self.settings.conn_id, field="verify") from None
        if isinstance(error, httpx.TimeoutException):
            text = f"nothing came for {self.settings.timeout:g} s"
        told = f"{type(error).__name__}: {text}" if text else type(error).__name__
        return f"{told}; {self._way(text, request)}" if isinstance(error, _UNSENT) else told

    def _way(self, text: str, request: Request) -> str:
        """Return what to compare when a server was not reached at all."""
        where = target(request, self.settings)
        if any(sign in text for sign in _NO_TLS):
            return "what answers there speaks no https: compare scheme and port"
        if proxy := proxy_of(where.url, self.settings):
            return f"it was to go through the proxy {proxy}: compare proxy in extra, or HTTPS_PROXY where this runs"
        field = "host" if where.own else "the address in extra" if request.configured else "allowed_hosts in extra"
        return f"compare {field}, and see that this machine can reach it"

    async def _follow(self, asked: Asked, credential: str | None) -> Reply:
        """Send the request and follow redirects as far as :func:`target` allows."""
        hop = request = asked.request
        for _ in range(MAX_REDIRECTS + 1):
            where = target(hop, self.settings)
            if not (where.own or hop.configured) and self._tells(hop.path):
                raise self._refused(f"{where.shown} is not asked: its address would carry a credential.", where.shown)
            self._secrets.hide(*signatures(hop.path))
            sent = hop
            if where.own and not (hop.configured or hop.anonymous):
                sent = self.source.authorise(hop, self.settings, credential)
            elif not hop.configured:  # what the vendor's own headers say is no other host's business
                sent = replace(hop, headers={k: v for k, v in hop.headers.items() if k.lower() == "accept"})
            reply = await self._send(asked, sent, where)
            location = reply.headers.get("location")
            if reply.status not in _REDIRECTS or not location:
                return reply
            reply.body.close()
            if request.method != "GET" or request.configured:  # a request for a token carries secrets of its own
                raise self._elsewhere(request, reply)
            hop = replace(request, path=urljoin(where.url, location), params={}, configured=False)
        raise self._refused(f"GET {reply.url} was redirected more than {MAX_REDIRECTS} times.", reply.url)

    async def _send(self, asked: Asked, sent: Request, where: Target) -> Reply:
        shown = redact(where.shown, self._secrets)
        self._check_headers(sent)
        status = digest = None
        self.counters.requests += 1
        try:
            async with self._stream(await self._pool(), sent, where) as response:
                status, headers = response.status_code, {k.lower(): v for k, v in response.headers.items()}
                encoding = headers.get("content-encoding", "")
                forms = () if sent.configured else self._secrets.echoes  # a token that comes again is no echo
                spooled = await receive(response.aiter_raw(), encoding, self.settings.max_body, forms)
            body, size, digest, echoed = spooled
            if echoed:
                log.warning(
                    "The answer of %s repeats secrets of the connection %s times; *** replaces them.", shown, echoed
                )
            self.counters.bytes += size
            return Reply(asked.request, shown, status, headers, body, size, digest)
        except httpx.InvalidURL as error:
            raise self._refused(f"{shown} is no valid address ({clean(str(error))}).", shown) from None
        except BodyError as error:
            message = f"the answer of {shown} {error}."
            raise error.becomes(message, conn_id=self.settings.conn_id, url=shown, status=status) from None
        finally:
            asked.exchanges.append((shown, status, None if sent.configured else digest))

    async def _pool(self) -> httpx.AsyncClient:
        """Return the connection pool, made in a thread: reading all trusted certificates would block the loop."""
        if (pool := self._http) is not None:
            return pool
        async with self._opening:
            if (pool := self._http) is None:
                pool = self._http = await asyncio.to_thread(_pool, self.settings)
        return pool

    def _stream(
        self, pool: httpx.AsyncClient, sent: Request, where: Target
    ) -> AbstractAsyncContextManager[httpx.Response]:
        url = where.url
        if sent.params:  # a slash stays one: CloudOnex's PHP reads ng=api/v2/customers from the query
            url += ("&" if "?" in url else "?") + urlencode(sent.params, quote_via=quote, safe="/")
        headers = dict(sent.headers)
        content: str | AsyncIterator[bytes] | None = None
        if sent.json is not None:
            headers, content = {"Content-Type": "application/json", **headers}, self._json(sent.json)
        elif (file := sent.content) is not None:
            headers = {"Content-Type": file.media, **headers, "Content-Length": str(file.length)}
            content = file.pieces()
        return pool.stream(sent.method, url, headers=headers, content=content, data=sent.form)

    def _check_headers(self, sent: Request) -> None:
        """Refuse what no header can carry; the HTTP library's error would hold the whole header.

        :raises ConfigurationError: naming the field of the connection that it comes from.
        """
        settings = self.settings
        for name, value in sent.headers.items():
            if not value.isascii():
                entered = {"password": settings.password, "login": settings.login, **settings.options}
                fields = (n for n, text in entered.items() if isinstance(text, str) and text and text in value)
                message = f"holds a character that is not ASCII, which the header {name} cannot carry; enter it again."
                raise ConfigurationError(message, conn_id=settings.conn_id, field=next(fields, None))

    def _json(self, data: Any) -> str:
        try:
            return json_text(data)
        except Unreadable as error:
            raise ConfigurationError(f"{error}.", conn_id=self.settings.conn_id, field="data") from None

    def _tells(self, path: str) -> bool:
        return any(form.decode() in text for text in (path, unquote(path)) for form in self._secrets.echoes)

    def _elsewhere(self, request: Request, reply: Reply) -> VendorError:
        """Return the error of a redirect that is not followed: 302 and 303 mostly follow what was carried out."""
        message = f"{request.method} {reply.url} was redirected; only GET is followed."
        if request.safe or reply.status not in (302, 303):
            return self._refused(message, reply.url)
        message += " It may have been carried out; look at the vendor's side, and compare host and paths."
        return InDoubtError(message, conn_id=self.settings.conn_id, url=reply.url)

    def _refused(self, message: str, url: str) -> RefusedError:
        return RefusedError(message, conn_id=self.settings.conn_id, url=url)


def _mends(text: str) -> str:
    if "expired" in text or "not yet valid" in text:
        return "whoever runs that server must renew it, unless this machine's clock is wrong."
    if "mismatch" in text:
        return "it is another host's: look at the host, and at who answers there."
    return "give the path of a CA bundle that signs it."


def _pool(settings: Settings) -> httpx.AsyncClient:
    size = settings.max_connections
    agent = settings.user_agent or f"airflow-provider-cloudbilling/{__version__}"
    try:
        return httpx.AsyncClient(
            verify=_trust(settings),
            proxy=settings.proxy,
            mounts={f"all://{host}": None for host in direct_hosts(settings)},
            limits=httpx.Limits(max_connections=size, max_keepalive_connections=size),
            timeout=settings.timeout,
            headers={"User-Agent": agent, "Accept-Encoding": "gzip"},
            cookies=http.cookiejar.CookieJar(http.cookiejar.DefaultCookiePolicy(allowed_domains=[])),
        )
    except (ValueError, ImportError) as error:
        message = f"the proxy cannot be used ({clean(redact(str(error), settings.secrets))}); look at HTTPS_PROXY too."
        raise ConfigurationError(message, conn_id=settings.conn_id, field="proxy") from None


def _trust(settings: Settings) -> ssl.SSLContext | bool:
    path = settings.verify
    try:
        return ssl.create_default_context(cafile=path) if path else True
    except OSError as error:  # ssl.SSLError is one
        message = f"{path!r} cannot be read as a CA bundle in PEM format ({error})."
        raise ConfigurationError(message, conn_id=settings.conn_id, field="verify") from None
