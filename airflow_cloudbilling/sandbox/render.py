"""Records as JSON and as XML, piece by piece: exact decimals, bounded memory, and the spellings that vendors send."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date
from decimal import Decimal
from functools import lru_cache
from typing import Any

Value = Any  # str, int, Decimal, date, None, a mapping, or an iterable of values
LINE_MARK, KEY_MARK = 9876543210, "the key of this line"
LEAVES = frozenset((str, int, Decimal, date, type(None)))
BATCH = 65536
_raw = json.JSONEncoder(ensure_ascii=False).encode
_escaped = json.JSONEncoder(ensure_ascii=True).encode


class Ordered(dict[str, Value]):
    """A record whose keys keep their own order in JSON."""


class Repeating:
    """Records that are rendered once and sent many times, each time with its running number and key.

    :param records: what repeats, with ``LINE_MARK`` and ``KEY_MARK`` where those stand.
    :param values: index → number and key.
    """

    def __init__(self, records: Sequence[Value], count: int, values: Callable[[int], tuple[int, str]]) -> None:
        self.records = records
        self.count = count
        self.values = values

    def texts(self, render: Callable[[Value], Iterable[str]]) -> Iterator[tuple[str]]:
        """Yield every record as one piece of text."""
        templates = ["".join(render(record)) for record in self.records]
        for index in range(self.count):
            line, key = self.values(index)
            text = templates[index % len(templates)]
            yield (text.replace(str(LINE_MARK), str(line)).replace(KEY_MARK, key),)


def number(value: Decimal | int) -> str:
    """Return the exact number; of the very small ones some have an exponent, as serializers of floats write them."""
    if not isinstance(value, Decimal):
        return str(value)
    if value and value.adjusted() < -4:
        digits = "".join(map(str, value.as_tuple().digits))
        if int(digits) % 2:
            point = "." if digits[1:] else ""
            return f"{'-' if value < 0 else ''}{digits[0]}{point}{digits[1:]}e{value.adjusted():03d}"
    return f"{value:f}"


def to_json(value: Value, *, ascii_only: bool = False) -> Iterator[str]:
    """Yield the JSON text of a value, object keys in alphabetical order as the vendor's serializer has them."""
    if isinstance(value, Mapping):
        yield "{"
        keys = tuple(value) if isinstance(value, Ordered) else _alphabetical(tuple(value))
        for nth, key in enumerate(keys):
            name, item = f'{"," if nth else ""}"{key}":', value[key]
            if type(item) in LEAVES:
                yield name + _json_leaf(item, ascii_only)
            else:
                yield name
                yield from to_json(item, ascii_only=ascii_only)
        yield "}"
    elif type(value) in LEAVES:
        yield _json_leaf(value, ascii_only)
    else:
        yield "["
        for nth, pieces in enumerate(_each(value, lambda item: to_json(item, ascii_only=ascii_only))):
            yield "," if nth else ""
            yield from pieces
        yield "]"


def to_xml(name: str, value: Value) -> Iterator[str]:
    """Yield one element: empty values are self-closing, a list ``Xs`` holds elements ``X``."""
    if value is None or value == "":
        yield f"<{name} />"
    elif type(value) in LEAVES:
        yield f"<{name}>{_xml_leaf(value)}</{name}>"
    else:
        yield f"<{name}>"
        if isinstance(value, Mapping):
            for key, item in value.items():
                yield from to_xml(key, item)
        else:
            for pieces in _each(value, lambda item: to_xml(name[:-1], item)):
                yield from pieces
        yield f"</{name}>"


def batches(pieces: Iterable[str]) -> Iterator[bytes]:
    """Yield the pieces in UTF-8, gathered so that each is worth a write."""
    held: list[str] = []
    size = 0
    for piece in pieces:
        held.append(piece)
        size += len(piece)
        if size >= BATCH:
            yield "".join(held).encode()
            held, size = [], 0
    yield "".join(held).encode()


def _each(values: Any, render: Callable[[Value], Iterable[str]]) -> Iterable[Iterable[str]]:
    return values.texts(render) if isinstance(values, Repeating) else map(render, values)


@lru_cache(maxsize=1000)
def _alphabetical(keys: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted(keys, key=str.lower))


def _json_leaf(value: Value, ascii_only: bool) -> str:
    if value is None:
        return "null"
    if isinstance(value, (int, Decimal)):
        return number(value)
    return f'"{value}"' if isinstance(value, date) else (_escaped if ascii_only else _raw)(value)


def _xml_leaf(value: Value) -> str:
    if isinstance(value, (int, Decimal)):
        return number(value).replace("e", "E")
    if isinstance(value, date):
        return value.isoformat()
    text: str = value.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return text
