"""JSON and XML bodies as Python values for users of an API, exact and without what must be dropped; and the way back.

Numbers with a fraction or an exponent are ``Decimal``, others ``int``; of members that come twice the last counts.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from decimal import Decimal
from typing import IO, Any

import msgspec

from airflow_cloudbilling.parse.events import Malformed, first_bytes
from airflow_cloudbilling.parse.fields import fold
from airflow_cloudbilling.parse.json_exact import decoded, decoder, next_value
from airflow_cloudbilling.parse.json_stream import Buffer
from airflow_cloudbilling.parse.json_whole import LARGEST
from airflow_cloudbilling.parse.values import Unreadable, shown

EMPTY: tuple[Any, ...] = (None, "", [], {})


def read_value(
    body: IO[bytes],
    dropped: Collection[str] = (),
    charset: str | None = None,
    *,
    camel: bool = True,
    constants: Callable[[str], Any] | None = None,
) -> Any:
    """Return a whole body, JSON or XML, as one value.

    :param body: at its beginning.
    :param dropped: names of members that are left out wherever they stand, in any case.
    :param camel: whether names in XML become JSON's usual ones, as ``invoiceId``; False: they stay as they are.
    :param constants: what becomes of JSON's NaN, Infinity and numbers out of bounds; by default they are refused.
    :raises Malformed: when the body is empty, cut, nested too deeply, or neither JSON nor XML.
    """
    head = first_bytes(body).lstrip(b"\xef\xbb\xbf\xff\xfe\x00 \t\r\n")[:1]
    body.seek(0)
    if not head:
        raise Malformed("an empty body came where a record was expected")
    if head == b"<":
        from airflow_cloudbilling.parse.xml_values import read_xml_value

        return read_xml_value(body, dropped, charset, camel=camel)
    data = body.read(LARGEST)
    value = None if body.read(1) else decoded(data, dropped, charset)
    if value is not None:
        return value
    body.seek(0)
    buffer = Buffer(body, charset, decoder(constants))
    value = next_value(buffer, dropped)
    if buffer.peek():
        raise buffer.error("expected the end")
    return value


def unwrapped(value: Any, names: Collection[str]) -> Any:
    """Return what an envelope holds: the value under the first of the names that it has, and so on inwards.

    :param names: of members, as ``data``; compared without case and ``_``.
    """
    while isinstance(value, dict):
        keys = {fold(key): key for key in value}
        inner = next((keys[fold(name)] for name in names if fold(name) in keys), None)
        if inner is None:
            return value
        value = value[inner]
    return value


def listed(value: Any) -> list[Any]:
    """Return a list that may also be written as nothing, as one record, or as PHP writes a list with gaps.

    PHP encodes such a list as an object: ``{"0": {…}, "2": {…}}``.
    """
    if isinstance(value, list):
        return value
    if value in EMPTY:
        return []
    if isinstance(value, dict) and all(key.isdigit() for key in value):
        return list(value.values())
    return [value]


def json_text(value: Any) -> str:
    """Return JSON with each ``Decimal`` as the number that it is, to the last digit.

    :raises Unreadable: for floats, which are not exact, NaN, infinities and types that JSON does not know.
    """
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_quoted(str(name))}: {json_text(each)}" for name, each in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(json_text, value)) + "]"
    if isinstance(value, Decimal) and value.is_finite():
        return str(value)
    if value is None or isinstance(value, (str, int)):
        return _quoted(value)
    if isinstance(value, float):
        raise Unreadable(f"expected an exact number, came the float {value!r}; write it as Decimal or text")
    raise Unreadable(f"expected what JSON can hold, came {shown(value)} ({type(value).__name__})")


def source_text(value: Any) -> str:
    """Return what :func:`json_text` returns, several times faster, of a value that came as JSON."""
    try:
        written = _ENCODER.encode(value)
        return str(msgspec.json.format(written, indent=0) if isinstance(value, (dict, list)) else written, "utf-8")
    except UnicodeEncodeError:  # half a surrogate pair
        return json_text(value)


def form_encoded(data: Mapping[str, Any]) -> dict[str, str]:
    """Return form fields in PHP's bracket notation: ``items[0][description]``.

    Nothing (``None``) is left out and a bool is ``1`` or ``0``, as PHP's own ``http_build_query`` does it.

    :raises Unreadable: for a float, which is not exact, and for other types; it names the field.
    """
    return {name: text for key, value in data.items() for name, text in _form_fields(str(key), value)}


def _form_fields(name: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for key, each in value.items():
            yield from _form_fields(f"{name}[{key}]", each)
    elif isinstance(value, (list, tuple)):
        for index, each in enumerate(value):
            yield from _form_fields(f"{name}[{index}]", each)
    elif isinstance(value, float):
        raise Unreadable(f"{name}: a float is not exact; give {value!r} as Decimal or as text")
    elif isinstance(value, Decimal) and value.is_finite():
        yield name, f"{value:f}"
    elif isinstance(value, (str, int)):
        yield name, str(int(value) if isinstance(value, bool) else value)
    elif value is not None:
        raise Unreadable(f"{name}: expected a text or a number, came {shown(value)} ({type(value).__name__})")


_ENCODER = msgspec.json.Encoder(decimal_format="number")
_plain = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode
_escaped = json.JSONEncoder(allow_nan=False).encode


def _quoted(value: str | int | None) -> str:
    """Return a JSON scalar; half a surrogate pair, which no file and no database takes, stays escaped."""
    found = _plain(value)
    try:
        found.isascii() or found.encode()
    except UnicodeEncodeError:
        return _escaped(value)
    return found
