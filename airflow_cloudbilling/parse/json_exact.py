"""JSON as exact values: numbers with a fraction or an exponent are ``Decimal``, others ``int``; no secrets in them.

msgspec decodes a body at once. What it does not take (another encoding, control characters in texts, NaN, half a
surrogate pair) is left to Python's own decoder, which takes it or says where it breaks.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from decimal import Decimal, InvalidOperation
from itertools import chain
from json import JSONDecoder
from typing import Any

import msgspec

from airflow_cloudbilling.parse.events import Malformed, encoding_of
from airflow_cloudbilling.parse.json_stream import Buffer

REFUSED = (msgspec.DecodeError, RecursionError, ValueError, InvalidOperation)  # what is not for msgspec raises one
DEEPEST = 100  # levels of lists and objects in one value
_NESTED = frozenset({dict, list})
_LONGEST_INT = 1000  # digits; Python itself refuses a few thousand
_WHOLE = msgspec.json.Decoder(float_hook=Decimal)
_OUTLINE = msgspec.json.Decoder(dict[str, msgspec.Raw])


def decoded(data: bytes, dropped: Collection[str] = (), charset: str | None = None) -> Any:
    """Return the value of a whole body; None where it is for the careful decoder, or just ``null``.

    :param dropped: names of members that are left out wherever they stand, in any case.
    :param charset: as the content type states it.
    """
    if encoding_of(data, charset) != "utf-8":
        return None
    try:
        value = _WHOLE.decode(data)
    except REFUSED:
        return None
    return value if trim(value, dropped) else None


def outlined(data: bytes, wanted: Callable[[str], bool]) -> dict[str, Any] | None:
    """Return some members of an object, without a look into the others; None where it is no object that can be read.

    :param wanted: tells by a member's name.
    """
    try:
        return {name: _WHOLE.decode(raw) for name, raw in _OUTLINE.decode(data).items() if wanted(name)}
    except REFUSED:
        return None


def decoder(constants: Callable[[str], Any] | None = None) -> JSONDecoder:
    """Return the careful decoder.

    :param constants: what becomes of NaN, Infinity and numbers out of bounds; by default they are refused.
    """
    odd = constants or _refused
    return JSONDecoder(
        parse_float=lambda text: _decimal(text, odd),
        parse_int=lambda text: int(text) if len(text) <= _LONGEST_INT else _decimal(text, odd),
        parse_constant=odd,
        strict=False,
    )


def next_value(buffer: Buffer, dropped: Collection[str] = ()) -> Any:
    """Decode and consume the value that comes next in a buffer with the careful decoder.

    :param dropped: as of :func:`decoded`.
    :raises Malformed: when it is no value, or nested too deeply.
    """
    try:
        value, buffer.at = buffer.value()
    except Malformed:
        raise
    except ValueError as error:  # of the decoder's own functions
        raise buffer.error(str(error)) from None
    if not trim(value, dropped):
        buffer.at = 0
        raise buffer.error(f"nested more than {DEEPEST} levels deep")
    return value


def trim(value: Any, dropped: Collection[str] = ()) -> bool:
    """Take members that must be dropped out of a value, wherever they stand; false if it is nested too deeply.

    :param dropped: their names, in any case.
    """
    unwanted = frozenset(name.casefold() for name in dropped)
    for depth, level in enumerate(levels(value), 1):
        if depth > DEEPEST:
            return False
        if unwanted:
            _take_out(unwanted, [each for each in level if type(each) is dict])
    return True


def levels(value: Any) -> Iterator[list[Any]]:
    """Yield the objects and lists of a value, those of each level together, the outermost first."""
    level = [value] if type(value) in _NESTED else []
    while level:
        yield level
        within = list(chain.from_iterable(each.values() if type(each) is dict else each for each in level))
        level = [] if _NESTED.isdisjoint(map(type, within)) else [each for each in within if type(each) in _NESTED]


def _take_out(unwanted: Collection[str], records: Collection[dict[str, Any]]) -> None:
    found = {shape: [name for name in shape if name.casefold() in unwanted] for shape in set(map(tuple, records))}
    for record in records if any(found.values()) else ():
        for name in found[tuple(record)]:
            del record[name]


def _decimal(text: str, odd: Callable[[str], Any]) -> Any:
    try:
        return Decimal(text)
    except InvalidOperation:  # an exponent of twenty digits
        return odd(text)


def _refused(text: str) -> Any:
    raise ValueError(f"{text[:40]} is no number within bounds")
