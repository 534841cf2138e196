"""From the fields of an Airflow connection to validated settings; no I/O besides looking for a CA bundle.

The same function serves connections from the UI, from ``AIRFLOW_CONN_…`` as JSON or URI and from a secrets backend:
a URI knows only text, so numbers, booleans, objects and arrays are accepted as text too.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from airflow_cloudbilling.connection_fields import CHECKS, COMMON_FIELDS, PASTED, Field, has_control_characters
from airflow_cloudbilling.errors import ConfigurationError
from airflow_cloudbilling.urls import base_url, is_loopback

if TYPE_CHECKING:
    from airflow_cloudbilling.source import Source


__all__ = ["COMMON_FIELDS", "Field", "Settings", "check_conn_type", "extra_of", "settings_from"]
_DEFAULTS = {f.name: f.default for f in COMMON_FIELDS}


@dataclass(frozen=True)
class Settings:
    """A connection, validated; its ``repr`` shows no secret.

    :param base_url: scheme, host, port and base path, without a slash at the end.
    :param options: every key of ``extra`` that the source or :data:`COMMON_FIELDS` know, defaults filled in.
    :param secrets: the secret texts of the connection as they were entered.
    :param warnings: what a reader of the log should know, such as unknown keys.
    :param misspelt: known key → the unknown key of ``extra`` that looks like it.
    """

    conn_id: str
    conn_type: str
    base_url: str
    login: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)
    warnings: tuple[str, ...] = ()
    misspelt: Mapping[str, str] = field(default_factory=dict)

    def option(self, name: str) -> Any:
        """Return an option, or the default of the common field when the settings were made by hand."""
        return self.options[name] if name in self.options else _DEFAULTS[name]

    def instead_of(self, name: str) -> str:
        """Return what to add to an error about an option that is empty, when another key of ``extra`` looks like it."""
        return f" There is {self.misspelt[name]!r} in extra: is that a misspelling?" if name in self.misspelt else ""

    timeout = property(lambda self: float(self.option("timeout")))
    total_timeout = property(lambda self: float(self.option("total_timeout")))
    max_wait = property(lambda self: float(self.option("max_wait")))
    max_body = property(lambda self: int(self.option("max_body")))
    max_connections = property(lambda self: int(self.option("max_connections")))
    max_attempts = property(lambda self: int(self.option("max_attempts")))

    @property
    def verify(self) -> str | None:
        """The path of a CA bundle, or None for the default trust."""
        value = str(self.option("verify"))
        return None if value == "true" else value

    @property
    def field_map(self) -> Mapping[str, str]:
        """Canonical name → dotted path in the vendor's record."""
        return self.option("field_map") or {}

    @property
    def proxy(self) -> str | None:
        """The proxy's URL, or None to do as the environment says."""
        return self.option("proxy") or None

    @property
    def user_agent(self) -> str | None:
        """The User-Agent to send, or None for the package's own."""
        return self.option("user_agent") or None

    @property
    def account(self) -> str | None:
        """The account that overrides the source's own, if any."""
        return self.option("account") or None

    @property
    def allowed_hosts(self) -> tuple[str, ...]:
        """Further https hosts (``host`` or ``host:port``) that files and results may come from."""
        return tuple(self.option("allowed_hosts") or ())


def check_conn_type(conn_id: str, conn_type: str | None, known: Iterable[str]) -> str:
    """Return the connection type as Airflow spells it.

    :raises ConfigurationError: when it is empty or not among the known ones.
    """
    normal = (conn_type or "").lower().replace("-", "_")
    known = tuple(known)
    if normal in known:
        return normal
    uri = " In a URI connection types are written with hyphens (sage-connected-cloud://)."
    if not normal:
        message = f"is empty; it must be {' or '.join(known)}.{uri}"
    else:
        message = f"{conn_type!r} is not {' or '.join(known)}; use a connection of that type.{uri}"
    raise ConfigurationError(message, conn_id=conn_id, field="conn_type")


def settings_from(
    source: Source,
    conn_id: str,
    *,
    conn_type: str | None,
    host: str | None = None,
    port: int | None = None,
    schema: str | None = None,
    login: str | None = None,
    password: str | None = None,
    extra: str | Mapping[str, Any] | None = None,
) -> Settings:
    """Validate a connection before any request.

    :param source: the vendor that the connection is of.
    :param extra: as Airflow stores it, JSON text of an object, or the object.
    :raises ConfigurationError: naming the connection, the field and the fix.
    """
    conn_type = check_conn_type(conn_id, conn_type, (source.conn_type,))
    host = (host or "").strip() or source.default_host
    _check_required(source, conn_id, {"host": host, "login": login, "password": password})
    given = extra_of(conn_id, extra)
    fields = (*source.fields, *COMMON_FIELDS)
    options = {f.name: _guarded(conn_id, f.name, f.read, given.get(f.name)) for f in fields}
    for name, check in CHECKS.items():
        options[name] = _guarded(conn_id, name, check, options[name])
    insecure = options["allow_insecure_http"]
    base = _guarded(conn_id, "host", lambda text: base_url(text, port, schema, insecure), host or "")
    near = _unknown(given, [f.name for f in fields])
    return Settings(
        conn_id=conn_id,
        conn_type=conn_type,
        base_url=base,
        login=login or "",
        password=password or "",
        options=MappingProxyType(options),
        secrets=_secrets(password, [options[f.name] for f in fields if f.secret], options["proxy"]),
        warnings=(*_ignored(conn_id, near, [f.name for f in fields]), *_in_clear(conn_id, base)),
        misspelt={known: name for name, known in near.items() if known},
    )


def _check_required(source: Source, conn_id: str, values: Mapping[str, str | None]) -> None:
    for name, value in values.items():
        label = source.labels.get(name, name)
        if name in source.required and not (value or "").strip():
            raise ConfigurationError(f"is empty; enter the {label}.", conn_id=conn_id, field=name)
        if has_control_characters(value):
            raise ConfigurationError(f"({label}) {PASTED}", conn_id=conn_id, field=name)
        if name != "host" and value and value != value.strip():
            message = f"({label}) begins or ends with a space; enter it again without."
            raise ConfigurationError(message, conn_id=conn_id, field=name)


def extra_of(conn_id: str, extra: str | Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Return what a connection's ``extra`` holds; Airflow's own ``extra_dejson`` makes nothing of what is no JSON.

    :raises ConfigurationError: when it is no JSON object.
    """
    if isinstance(extra, str) and extra.strip():
        try:
            extra = json.loads(extra)
        except ValueError as error:
            where = f"line {error.lineno}, column {error.colno}" if isinstance(error, json.JSONDecodeError) else "it"
            raise ConfigurationError(
                f"is not valid JSON (at {where}); write it as a JSON object.", conn_id=conn_id, field="extra"
            ) from None
    if extra is None or extra == "" or (isinstance(extra, str) and not extra.strip()):
        return {}
    if not isinstance(extra, Mapping):
        raise ConfigurationError('is not a JSON object such as {"timeout": 60}.', conn_id=conn_id, field="extra")
    return extra


def _guarded(conn_id: str, name: str, read: Callable[[Any], Any], value: Any) -> Any:
    try:
        return read(value)
    except ValueError as error:
        raise ConfigurationError(str(error), conn_id=conn_id, field=name) from None


def _unknown(given: Mapping[str, Any], known: list[str]) -> Mapping[str, str]:
    """Return unknown key → the known one that it looks like, if any."""
    return {name: next(iter(difflib.get_close_matches(name, known, 1)), "") for name in sorted(set(given) - set(known))}


def _ignored(conn_id: str, unknown: Mapping[str, str], known: list[str]) -> Iterable[str]:
    for name, near in unknown.items():
        hint = f"did you mean {near!r}?" if near else f"known are {', '.join(known)}."
        yield f"Connection {conn_id!r}: unknown key {name!r} in extra is ignored; {hint}"


def _in_clear(conn_id: str, base: str) -> Iterable[str]:
    parts = urlsplit(base)
    if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        yield f"Connection {conn_id!r}: credentials go to {base} in clear text, since allow_insecure_http is set."


def _secrets(password: str | None, fields: list[Any], proxy: str | None) -> tuple[str, ...]:
    proxy_password = unquote(urlsplit(proxy).password or "") if proxy else ""
    return tuple(dict.fromkeys(text for text in (password, *fields, proxy_password) if text))
