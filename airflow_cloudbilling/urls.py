"""Addresses: a connection's base URL, and which other addresses may be asked; no I/O.

Credentials go to the connection's own origin (scheme, host and port) only. Anything else that a vendor names, by a
redirect or in an answer, is asked without them, and only where :func:`target` allows it.
"""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import SplitResult, parse_qsl, quote, urlencode, urlsplit
from urllib.request import getproxies, proxy_bypass

from airflow_cloudbilling.errors import RefusedError

if TYPE_CHECKING:
    from airflow_cloudbilling.settings import Settings
    from airflow_cloudbilling.source import Request

_PORTS = {"http": 80, "https": 443}
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_SIGNING = re.compile(r"sig|token|credential|key|secret|policy|auth|code", re.IGNORECASE)
_UNSAFE = re.compile(r"[\s\\\x00-\x1f\x7f]")  # characters that one URL parser reads otherwise than the next


class Target(NamedTuple):
    """Where a request goes.

    :param url: the address to ask.
    :param shown: the same for logs and errors: of an address that a vendor named the query is left out, it may be a
        signature.
    :param own: whether it is the connection's own origin, so that credentials go with it.
    """

    url: str
    shown: str
    own: bool


def is_loopback(host: str) -> bool:
    """Whether a host name or address means this machine: 127.0.0.0/8, ::1 or localhost."""
    try:
        return host.lower() == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def base_url(host: str, port: int | None, schema: str | None, allow_insecure_http: bool) -> str:
    """Return the base URL that a connection's fields mean, without a slash at the end.

    :param host: a URL, or a host with optional port and base path; without a scheme ``schema`` counts, else https
        (http for this machine).
    :raises ValueError: with words that name the fix.
    """
    if _UNSAFE.search(host):
        raise ValueError("contains a space, a backslash or a control character; write it as https://host/path.")
    if not _SCHEME.match(host):
        host = f"{_scheme(host, schema)}://{_bracketed(host)}"
    try:
        parts = _split(host)
    except ValueError as error:
        raise ValueError(f"{error}; write it as https://host/path, or https://host:port/path.") from None
    if parts.scheme not in _PORTS:
        raise ValueError(f"{parts.scheme}:// is not supported; write it as https://host/path.")
    if parts.username is not None or parts.query or parts.fragment:
        raise ValueError(
            "holds user info, a query or a fragment; write it as https://host/path and use the other fields."
        )
    if parts.scheme == "http" and not allow_insecure_http and not is_loopback(parts.hostname or ""):
        raise ValueError(
            "http:// would send the credentials in clear text; use https://, "
            "or set allow_insecure_http to true in extra if the network is yours."
        )
    suffix = f":{port}" if port and parts.port is None else ""
    return _split(f"{parts.scheme}://{parts.netloc}{suffix}{parts.path}").geturl().rstrip("/")


def target(request: Request, settings: Settings) -> Target:
    """Return where a request goes.

    :raises RefusedError: when its path is an absolute URL that is neither on the connection's own host (another port
        only on this machine) nor on https on ``allowed_hosts``.
    """
    if not _SCHEME.match(request.path):
        url = f"{settings.base_url}/{request.path.lstrip('/')}"
        if "?" in url:  # of an answer's relative address, which may be signed as well
            return Target(url, f"{without_query(url)}?…", own=True)
        shown = f"{url}?{urlencode(request.params, quote_via=quote, safe='/:,')}" if request.params else url
        return Target(url, shown, own=True)
    shown = without_query(request.path)
    if request.configured:
        return Target(request.path, shown, own=False)
    try:
        if _UNSAFE.search(request.path):
            raise ValueError("it contains a space, a backslash or a control character")
        parts = _split(request.path)
    except ValueError as error:
        raise RefusedError(f"{shown!r} is not followed: {error}.", conn_id=settings.conn_id) from None
    own = _split(settings.base_url)
    if reason := _refusal(parts, own, settings):
        raise RefusedError(f"{shown!r} is not followed: {reason}.", conn_id=settings.conn_id, url=shown)
    return Target(request.path, f"{shown}?…" if parts.query else shown, own=_origin(parts) == _origin(own))


def direct_hosts(settings: Settings) -> set[str]:
    """Return the hosts that no proxy of the environment is asked for: this machine, by whatever name it has.

    A proxy that the connection names itself is asked for everything.
    """
    if settings.proxy:
        return set()
    own = _split(settings.base_url).hostname or ""
    return {"localhost", "127.0.0.1", "[::1]", *([own] if is_loopback(own) and ":" not in own else ())}


def proxy_of(url: str, settings: Settings) -> str | None:
    """Return the address of the proxy that a request goes through, without its user and password; None without one."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    proxy = settings.proxy
    if not proxy and not {host, f"[{host}]"} & direct_hosts(settings) and not proxy_bypass(host):
        proxies = getproxies()
        proxy = proxies.get(parts.scheme) or proxies.get("all")
    if not proxy:
        return None
    found = urlsplit(proxy if _SCHEME.match(proxy) else f"http://{proxy}")
    return f"{found.scheme}://{found.netloc.rpartition('@')[2]}"


def same_origin(url: str, settings: Settings) -> bool:
    """Whether an address, as it is shown, is of the connection's own scheme, host and port."""
    return _origin(_split(url)) == _origin(_split(settings.base_url))


def without_query(url: str) -> str:
    """Return an address without its query and fragment, which may hold a signature."""
    return url.partition("?")[0].partition("#")[0]


def signatures(url: str) -> list[str]:
    """Return what in an address lets anybody use it: the values of its query that are named like a signature."""
    named = parse_qsl(url.partition("?")[2])
    return [value for name, value in named if _SIGNING.search(name) and len(value) >= 8]  # no ordinary word


def path_part(name: str) -> str:
    """Return a name as one part of a path: without a slash, and without dots that mean another folder."""
    return quote(name, safe="", errors="surrogatepass") if name.strip(".") else "%2E" * len(name)


def _refusal(parts: SplitResult, own: SplitResult, settings: Settings) -> str | None:
    if parts.username is not None:
        return "it carries user info"
    if parts.scheme not in _PORTS:
        return f"{parts.scheme}: is neither http nor https"
    if parts.scheme == "http" and own.scheme == "https":
        return "it leads from https to http"
    host = parts.hostname or ""
    if host == own.hostname and (_port(parts) == _port(own) or is_loopback(host)):
        return None
    if parts.scheme == "https" and any(_allows(allowed, parts) for allowed in settings.allowed_hosts):
        return None
    if parts.scheme == "https":
        return f"{parts.netloc!r} is not the connection's own host; add it to allowed_hosts in extra if you trust it"
    return f"{parts.netloc!r} is not the connection's own host, and allowed_hosts are asked over https only"


def _allows(allowed: str, parts: SplitResult) -> bool:
    try:
        wanted = _split(f"https://{allowed.strip()}")
    except ValueError:
        return False
    return wanted.hostname == parts.hostname and _port(wanted) == _port(parts)


def _split(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
    except ValueError:  # whose words quote user and password
        raise ValueError("cannot be read as an address") from None
    if not parts.hostname:
        raise ValueError("has no host name")
    try:
        port = parts.port
    except ValueError:  # it is no number, or too large a one
        port = 0
    if port == 0:
        raise ValueError("its port is not a number from 1 to 65535")
    return parts


def _port(parts: SplitResult) -> int:
    return parts.port or _PORTS.get(parts.scheme, 0)


def _origin(parts: SplitResult) -> tuple[str, str | None, int]:
    return parts.scheme, parts.hostname, _port(parts)


def _bracketed(host: str) -> str:
    try:
        return f"[{host}]" if ipaddress.ip_address(host).version == 6 else host
    except ValueError:
        return host


def _scheme(host: str, schema: str | None) -> str:
    if schema and schema.lower() not in _PORTS:
        raise ValueError(f"the field schema is {schema!r}; it may only be http or https, a base path belongs in host.")
    name = urlsplit(f"//{_bracketed(host)}").hostname or ""
    return (schema or "").lower() or ("http" if is_loopback(name) else "https")
