"""The keys of a connection's ``extra``: what the form shows and which values are read; no I/O but the look for a CA."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Field:
    """One key of a connection's ``extra``: what the form shows and what is accepted.

    :param name: the key; Airflow masks ``extra`` by key name, so a secret's name contains ``api_key``, ``secret``,
        ``password``, ``token`` or ``proxy``, and no other name does.
    :param type: ``string``, ``integer``, ``number``, ``boolean``, ``object`` or ``array`` (of strings).
    :param default: the value when the key is absent, null or empty.
    :param enum: the values allowed, if not any.
    :param minimum: the least number allowed; ``maximum`` the greatest.
    """

    name: str
    label: str
    help: str = ""
    type: str = "string"
    default: Any = None
    enum: tuple[str, ...] = ()
    secret: bool = False
    minimum: float | None = None
    maximum: float | None = None

    def read(self, value: Any) -> Any:
        """Return the value in the field's type.

        :raises ValueError: with words that say what was expected; it never quotes a secret.
        """
        if value is None or value == "":
            return self.default
        result = _READERS[self.type](value)
        if self.enum and result not in self.enum:
            raise ValueError(f"{_shown(self, value)} is none of {', '.join(self.enum)}.")
        if self.minimum is not None and result < self.minimum:
            raise ValueError(f"{value!r} is less than {self.minimum:g}.")
        if self.maximum is not None and result > self.maximum:
            raise ValueError(f"{value!r} is more than {self.maximum:g}.")
        if self.secret and has_control_characters(result):
            raise ValueError(PASTED)
        return result


PASTED = "contains a line break or another control character; enter it again without."
_DAY = 86_400

COMMON_FIELDS: tuple[Field, ...] = (
    Field(
        "timeout", "Timeout (s)", "Seconds without a byte before a request is given up.", "number", 60.0, minimum=0.01
    ),
    Field(
        "total_timeout", "Total timeout (s)", "Seconds for one request with its body.", "number", 1800.0, minimum=0.01
    ),
    Field(
        "max_wait",
        "Longest wait (s)",
        "A vendor that asks for a longer wait fails the task.",
        "number",
        float(_DAY),
        minimum=0,
        maximum=31 * _DAY,
    ),
    Field("max_body", "Largest answer (bytes)", "A larger answer is refused.", "integer", 2 * 1024**3, minimum=1),
    Field("verify", "TLS trust", "true, or the path of a CA bundle (PEM) on the worker.", default="true"),
    Field("max_connections", "Connections", "At most so many at once.", "integer", 8, minimum=1, maximum=100),
    Field("max_attempts", "Attempts", "How often one request is tried.", "integer", 5, minimum=1, maximum=100),
    Field("field_map", "Field map", "Canonical name → dotted path in the vendor's record.", "object"),
    Field("proxy", "Proxy URL", "http://user:password@proxy:3128; empty: as the environment says.", secret=True),
    Field("user_agent", "User agent", "Sent with every request; empty: this package and its version."),
    Field("account", "Account", "Overrides the account that slices are kept under."),
    Field(
        "allowed_hosts", "Allowed hosts", "Further https hosts that files may come from: host or host:port.", "array"
    ),
    Field("allow_insecure_http", "Allow http://", "Needed for a plain http host off this machine.", "boolean", False),
)


def has_control_characters(value: Any) -> bool:
    """Whether a text has characters that must not stand in an HTTP header."""
    return isinstance(value, str) and any(ord(c) < 32 or ord(c) == 127 for c in value)


def _shown(target: Field, value: Any) -> str:
    return "the value" if target.secret else repr(value)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (str, int)):
        return str(value).strip()
    raise ValueError(f"a text was expected, not {type(value).__name__}.")


def _number(value: Any) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{value!r} is not a number.")
    return number


def _integer(value: Any) -> int:
    number = _number(value)
    if number != int(number):
        raise ValueError(f"{value!r} is not a whole number.")
    return int(number)


def _boolean(value: Any) -> bool:
    text = str(value).strip().lower()
    if text in ("true", "1", "yes", "on"):
        return True
    if text in ("false", "0", "no", "off"):
        return False
    raise ValueError(f"{value!r} is neither true nor false.")


def _object(value: Any) -> Mapping[str, Any]:
    value = _from_json(value)
    if not isinstance(value, Mapping):
        raise ValueError(f'{value!r} is not a JSON object such as {{"name": "value"}}.')
    return value


def _array(value: Any) -> tuple[str, ...]:
    if isinstance(value, str) and not value.lstrip().startswith(("[", "{")):
        value = [part.strip() for part in value.split(",") if part.strip()]
    value = _from_json(value)
    if not isinstance(value, (list, tuple)) or not all(isinstance(item, str) for item in value):
        raise ValueError(f'{value!r} is not a list of texts such as ["a", "b"].')
    return tuple(value)


def _from_json(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    with suppress(ValueError):
        return json.loads(value)
    return value


def _verify(value: str) -> str:
    if value.lower() == "true":
        return "true"
    if value.lower() == "false":
        raise ValueError("false would accept any server; give the path of a CA bundle (PEM) that you trust instead.")
    if not Path(value).is_file():
        raise ValueError(f"{value!r} is neither true nor an existing CA bundle (PEM) on this machine.")
    return value


def _proxy(value: str | None) -> str | None:
    if value is None:
        return None
    try:
        parts = urlsplit(value)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        good = False
    if not good:
        raise ValueError("is not a proxy's URL, such as http://proxy.example.com:3128.")
    return value


def _field_map(value: Mapping[str, Any] | None) -> Mapping[str, str] | None:
    for name, path in (value or {}).items():
        if not isinstance(path, str) or not path:
            raise ValueError(f"{name!r} must be given a dotted path such as 'Totals.Amount', not {path!r}.")
    return value


def _hosts(value: tuple[str, ...] | None) -> tuple[str, ...] | None:
    for host in value or ():
        if not re.fullmatch(r"(\[[0-9a-fA-F:]+\]|[\w.-]+)(:\d{1,5})?", host.strip()):
            raise ValueError(f"{host!r} is not a host or host:port, such as files.example.com.")
    return value


def _user_agent(value: str | None) -> str | None:
    if has_control_characters(value) or not (value or "").isascii():
        raise ValueError("must be plain ASCII text on one line.")
    return value


_READERS: Mapping[str, Callable[[Any], Any]] = {
    "string": _text,
    "number": _number,
    "integer": _integer,
    "boolean": _boolean,
    "object": _object,
    "array": _array,
}
CHECKS: Mapping[str, Callable[[Any], Any]] = {
    "verify": _verify,
    "proxy": _proxy,
    "field_map": _field_map,
    "allowed_hosts": _hosts,
    "user_agent": _user_agent,
}
