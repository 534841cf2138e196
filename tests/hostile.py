"""Values that vendors should never send, put in place of those that they do."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from typing import Any


def verbatim(text: str) -> str:
    """Return what stands for a number that is written as it is given, such as ``1e400``."""
    return f"<number>{text}</number>"


NUMBERS = [*map(verbatim, ("1e400", "-1e400", "1e-400", "1e99999999999", "NaN", "Infinity", "-Infinity"))]
NUMBERS += [verbatim("1" * 50), verbatim("0." + "1" * 50), verbatim("-0"), verbatim("00012")]
DAYS = ["9999-99-99", "0000-00-00", "2026-02-30", "20261301", "99999999", "2026-10-05T25:61:61Z", "-2026-10-05", "0"]
TEXTS = [
    "",
    " ",
    "null",
    "\0",
    "a\0b",
    "\ud800",
    "\udfff\ud800",
    "\u202eevil\u202c",
    "\ufeff",
    "\uffff",
    "😀" * 50,
    "x" * 4096,
]
TEXTS += [
    "=cmd|' /C calc'!A0",
    "\nERROR forged \x1b[31m",
    "\r\n2026-10-05 CRITICAL forged",
    "../../etc/passwd",
    "'; DROP TABLE x; --",
]
TEXTS += [
    "NaN",
    "Infinity",
    "1e400",
    "1,234.56.78",
    "１２",
    "0x1F",
    "1_000",
    "{{ conn.x.password }}",
    "${jndi:ldap://x}",
]
KINDS = [None, True, False, [], {}, [[]], [{}], {"a": {"b": []}}, [None], 0, -1, 10**50]
VALUES: list[Any] = [*NUMBERS, *DAYS, *TEXTS, *KINDS]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of everything in a JSON value, itself first."""
    yield path
    if isinstance(value, dict):
        for name in value:
            yield from places(value[name], (*path, name))
    elif isinstance(value, list):
        for number, each in enumerate(value):
            yield from places(each, (*path, number))


def replaced(value: Any, path: tuple[Any, ...], other: Any) -> Any:
    """Return a JSON value with another one at a path."""
    if not path:
        return other
    first, *rest = path
    if isinstance(value, dict):
        return {name: replaced(one, tuple(rest), other) if name == first else one for name, one in value.items()}
    return [replaced(one, tuple(rest), other) if number == first else one for number, one in enumerate(value)]


def mutations(body: bytes, count: int, seed: int) -> Iterator[tuple[tuple[Any, ...], Any, bytes]]:
    """Yield a JSON body with one value replaced: where, by what, and the body.

    :param count: how many of all, drawn at random.
    """
    value = json.loads(body, parse_float=verbatim)
    every = [(path, other) for path in places(value) for other in VALUES]
    for path, other in random.Random(seed).sample(every, min(count, len(every))):
        yield path, other, written(replaced(value, path, other))


def written(value: Any) -> bytes:
    """Return a value as JSON."""
    return re.sub(r'"<number>(.*?)</number>"', r"\1", json.dumps(value)).encode()
