"""A JSON body without some of its members, all others as they were written: what nobody may store is not stored."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

import msgspec

from airflow_cloudbilling.parse.json_exact import REFUSED, levels, trim

_VERBATIM = msgspec.json.Decoder(float_hook=msgspec.Raw)
_BLANKS = b" \t\r\n"


class _Object(list[tuple[str, Any]]):
    """A JSON object as it was written: in order, with members that came twice."""


class _Number(str):
    """A JSON number as it was written."""

    __slots__ = ()


def without_fields(body: bytes, names: Collection[str]) -> bytes:
    """Return a JSON body without the members of these names, at any depth; the same bytes when there are none.

    :param names: in any case.
    :raises ValueError: when the body is neither JSON nor empty, or nested too deeply to be written anew.
    """
    if not body.strip():
        return body
    try:
        value = _VERBATIM.decode(body)
        members = _members(value)
        if body.translate(None, _BLANKS).count(b'":') == members and trim(value, names):
            return body if _members(value) == members else msgspec.json.format(msgspec.json.encode(value), indent=0)
    except REFUSED:
        pass
    try:
        return _rewritten(body, names)
    except RecursionError:
        raise ValueError("the JSON is nested too deeply") from None


def _members(value: Any) -> int:
    """Return how many members there are: fewer than were written, if two of one name stood in one object."""
    return sum(len(each) for level in levels(value) for each in level if type(each) is dict)


def _rewritten(body: bytes, names: Collection[str]) -> bytes:
    """Return what :func:`without_fields` does, of a body that msgspec does not take as it is, value by value."""
    wanted = {name.casefold() for name in names}
    found = False

    def keep(pairs: list[tuple[str, Any]]) -> _Object:
        nonlocal found
        kept = _Object((name, value) for name, value in pairs if name.casefold() not in wanted)
        found = found or len(kept) < len(pairs)
        return kept

    numbers: dict[str, Any] = dict.fromkeys(("parse_int", "parse_float", "parse_constant"), _Number)
    value = json.loads(body, object_pairs_hook=keep, strict=False, **numbers)
    return _text(value).encode() if found else body


def _text(value: Any) -> str:
    if isinstance(value, _Number):
        return str(value)
    if isinstance(value, _Object):
        return "{" + ", ".join([f"{json.dumps(name)}: {_text(each)}" for name, each in value]) + "}"
    if isinstance(value, list):
        return "[" + ", ".join([_text(each) for each in value]) + "]"
    return json.dumps(value)
