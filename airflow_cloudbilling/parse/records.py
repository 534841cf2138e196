"""JSON and XML bodies as Python values for users of an API, exact and without what must be dropped; and the way back.

Numbers with a fraction or an exponent are ``Decimal``, others ``int``; of members that come twice the last counts.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Generator, Iterator, Mapping
from decimal import Decimal, InvalidOperation
from json import JSONDecoder
from typing import IO, Any

from airflow_cloudbilling.parse.events import Malformed, first_bytes, found
from airflow_cloudbilling.parse.fields import fold
from airflow_cloudbilling.parse.json_stream import Buffer
from airflow_cloudbilling.parse.values import Unreadable, shown

DEEPEST = 100  # levels of lists and objects in one record
_LONGEST_INT = 1000  # digits; Python itself refuses a few thousand
_EMPTY: tuple[Any, ...] = (None, "", [], {})


def read_value(
    body: IO[bytes], dropped: Collection[str] = (), charset: str | None = None, *, camel: bool = True
) -> Any:
    """Return a whole body, JSON or XML, as one value.

    :param body: at its beginning.
    :param dropped: names of members that are left out wherever they stand, in any case.
    :param camel: whether names in XML become JSON's usual ones, as ``invoiceId``; False: they stay as they are.
    :raises Malformed: when the body is empty, cut, nested too deeply, or neither JSON nor XML.
    """
    head = first_bytes(body).lstrip(b"\xef\xbb\xbf\xff\xfe\x00 \t\r\n")[:1]
    body.seek(0)
    if not head:
        raise Malformed("an empty body came where a record was expected")
    if head == b"<":
        from airflow_cloudbilling.parse.xml_values import read_xml_value

        return read_xml_value(body, dropped, charset, camel=camel)
    buffer = Buffer(body, charset, decoder(dropped))
    value = _value(buffer)
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
    if value in _EMPTY:
        return []
    if isinstance(value, dict) and all(key.isdigit() for key in value):
        return list(value.values())
    return [value]


class Records:
    """The records of a JSON body one at a time, in memory that does not grow with their number.

    They stand in a bare list, in a list under one of the names (at any depth of such names), or the body is one record.

    :param body: at its beginning.
    :param lists: names of members that hold the list, or an object that holds it: ``data``, ``invoices`` …
    :param marks: names of members by which an object is known as a record rather than an envelope.
    :param dropped: names of members that are left out wherever they stand.
    :param constants: what becomes of NaN, Infinity and numbers out of bounds; by default they are refused.
    """

    def __init__(
        self,
        body: IO[bytes],
        lists: Collection[str],
        marks: Collection[str],
        dropped: Collection[str] = (),
        constants: Callable[[str], Any] | None = None,
    ) -> None:
        self._buffer = Buffer(body, None, decoder(dropped, constants))
        self._lists = {fold(name) for name in lists}
        self._marks = {fold(name) for name in marks}
        self._dropped = {name.casefold() for name in dropped}
        self.around: dict[str, Any] = {}  # members of the envelopes, whole when the last record has come

    def __iter__(self) -> Iterator[Any]:
        """Yield the records in their order.

        :raises Malformed: when the body is empty, cut, or holds neither a list nor a record.
        """
        start = self._buffer.text[:200]
        kind = self._buffer.peek()
        if not kind or kind not in "[{":
            raise Malformed(f"expected a JSON object or list, {found(start)}")
        if not (yield from self._elements() if kind == "[" else self._members(outermost=True)):
            raise Malformed(f"the JSON holds no list of records, {found(start)}")
        if self._buffer.peek():
            raise self._buffer.error("expected the end")

    def _elements(self) -> Generator[Any, None, bool]:
        buffer = self._buffer
        buffer.take("[")
        if buffer.peek() == "]":
            buffer.take("]")
            return True
        yield _value(buffer)
        while buffer.take(",]") == ",":
            yield _value(buffer)
        return True

    def _members(self, *, outermost: bool = False) -> Generator[Any, None, bool]:
        """Read an object: an envelope, a list with gaps, or a record; return whether it is one of these."""
        members: dict[str, Any] = {}
        held = None
        self._buffer.take("{")
        for name in self._buffer.names():
            kind = self._buffer.peek()
            if fold(name) in self._lists and kind in ("[", "{") and held is None and not self._marked(members):
                held = yield from self._elements() if kind == "[" else self._members()
            elif name.casefold() in self._dropped:
                _value(self._buffer)
            else:
                members[name] = _value(self._buffer)
        if held is None and self._marked(members):
            yield members
            return True
        if held is None and members and all(name.isdigit() for name in members):
            yield from members.values()
            return True
        self.around = {**members, **self.around}
        said_empty = any(fold(name) in self._lists and value in _EMPTY for name, value in members.items())
        return held if held is not None else said_empty or not (members or outermost)

    def _marked(self, members: Mapping[str, Any]) -> bool:
        return any(fold(name) in self._marks for name in members)


def decoder(dropped: Collection[str] = (), constants: Callable[[str], Any] | None = None) -> JSONDecoder:
    """Return a decoder of exact values.

    :param dropped: names of members that are left out wherever they stand.
    :param constants: what becomes of NaN, Infinity and numbers out of bounds; by default they are refused.
    """
    unwanted = frozenset(name.casefold() for name in dropped)
    odd = constants or _refused

    def kept(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        return {name: value for name, value in pairs if name.casefold() not in unwanted}

    return JSONDecoder(
        object_pairs_hook=kept if unwanted else None,
        parse_float=lambda text: _decimal(text, odd),
        parse_int=lambda text: int(text) if len(text) <= _LONGEST_INT else _decimal(text, odd),
        parse_constant=odd,
        strict=False,
    )


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


def _value(buffer: Buffer) -> Any:
    """Decode and consume the value that comes next."""
    try:
        value, buffer.at = buffer.value()
    except Malformed:
        raise
    except ValueError as error:  # of the decoder's own functions
        raise buffer.error(str(error)) from None
    if _depth_exceeded(value):
        buffer.at = 0
        raise buffer.error(f"nested more than {DEEPEST} levels deep")
    return value


def _depth_exceeded(value: Any) -> bool:
    level = [value]
    for _ in range(DEEPEST):
        nested = [each for each in level if isinstance(each, (dict, list))]
        if not nested:
            return False
        level = [inner for each in nested for inner in (each.values() if isinstance(each, dict) else each)]
    return True


def _decimal(text: str, odd: Callable[[str], Any]) -> Any:
    try:
        return Decimal(text)
    except InvalidOperation:  # an exponent of twenty digits
        return odd(text)


def _refused(text: str) -> Any:
    raise ValueError(f"{text[:40]} is no number within bounds")
