"""Where a record's canonical values stand: look-up by alias, worked out once for each *shape* of record."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from airflow_cloudbilling.errors import RecordError
from airflow_cloudbilling.parse.values import Unreadable

Record = Mapping[str, Any]
Reader = Callable[[Any], "str | None"]
_SHAPES_KEPT = 256
_NAMES_KEPT = 500  # in one shape
_CACHED = 200  # characters of a name that is worth remembering
_DEPTH = 16
_NAMESPACE = re.compile(r"\{[^}]*\}")


def fold(name: str) -> str:
    """Return a field's name as names are compared: without case, ``_`` and XML namespace."""
    return _fold(name) if len(name) <= _CACHED else _fold.__wrapped__(name)


@lru_cache(maxsize=4096)
def _fold(name: str) -> str:
    return _NAMESPACE.sub("", name).replace("_", "").lower()


def flatten(record: Record, prefix: str = "", depth: int = _DEPTH) -> dict[str, Any]:
    """Return a record of records as one record with dotted names.

    :param depth: levels that are flattened; what lies deeper stays nested.
    """
    flat: dict[str, Any] = {}
    for name, value in record.items():
        if isinstance(value, dict) and depth:
            flat.update(flatten(value, f"{prefix}{name}.", depth - 1))
        else:
            flat[prefix + name] = value
    return flat


class Wanted(NamedTuple):
    """One canonical value: its name, how it is read, and the dotted paths where it may stand, best first."""

    name: str
    read: Reader
    paths: tuple[str, ...]


class _Plan(NamedTuple):
    """Where the wanted values stand in records of one shape: (slot, key, rest of the path, reader)."""

    first: tuple[tuple[int, str, str, Reader], ...]  # one place for each value
    further: tuple[tuple[int, str, str, Reader], ...]  # for values that the first place left empty


class Fields:
    """The canonical values of one kind of record.

    :param wanted: what to read, in the order in which :meth:`read` returns it.
    """

    def __init__(self, wanted: Sequence[Wanted]) -> None:
        self.wanted = tuple(wanted)
        self._plans: dict[tuple[str, ...], _Plan] = {}

    def read(self, record: Record) -> list[str | None]:
        """Return the record's canonical values; the first path with a value that is not empty wins.

        :raises RecordError: when a value cannot be read; it names the field, what was expected and what came.
        """
        shape = tuple(record)
        plan = self._plans.get(shape) or self._plan(shape)
        values: list[str | None] = [None] * len(self.wanted)
        slot, key, rest = 0, "", ""
        try:
            for slot, key, rest, read in plan.first:
                values[slot] = read(_dig(record[key], rest) if rest else record[key])
            for slot, key, rest, read in plan.further:
                if values[slot] is None:
                    values[slot] = read(_dig(record[key], rest) if rest else record[key])
        except Unreadable as error:
            where = _NAMESPACE.sub("", f"{key}.{rest}" if rest else key)
            raise RecordError(f"field {self.wanted[slot].name} ({where}): {error}") from None
        return values

    def _plan(self, shape: tuple[str, ...]) -> _Plan:
        if len(self._plans) >= _SHAPES_KEPT:
            self._plans.clear()
        keys = {fold(key): key for key in shape}
        places = [
            (place, (slot, *found, wanted.read))
            for slot, wanted in enumerate(self.wanted)
            for place, found in enumerate(found for path in wanted.paths for found in _places(path, keys))
        ]
        first = tuple(entry for place, entry in places if place == 0)
        plan = _Plan(first, tuple(entry for place, entry in places if place > 0))
        if len(shape) <= _NAMES_KEPT:
            self._plans[shape] = plan
        return plan


def _places(path: str, keys: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    if fold(path) in keys:
        yield keys[fold(path)], ""
        return
    first, _, rest = path.partition(".")
    if rest and fold(first) in keys:
        yield keys[fold(first)], rest


def _dig(value: Any, path: str) -> Any:
    """Return what stands at a dotted path below ``value``; of a list the first element counts."""
    for part in path.split("."):
        value = value[0] if isinstance(value, list) and value else value
        if not isinstance(value, dict):
            return None
        value = next((value[key] for key in value if fold(key) == fold(part)), None)
    return value
