"""Where a record's canonical values stand: look-up by alias, worked out once for each *shape* of record."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from airflow_cloudbilling.errors import RecordError
from airflow_cloudbilling.parse.values import Reader, Unreadable, column

Record = Mapping[str, Any]
Values = tuple["str | None", ...]
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
        if type(value) is dict and depth:
            flat.update(flatten(value, f"{prefix}{name}.", depth - 1))
        else:
            flat[prefix + name] = value
    return flat


class Wanted(NamedTuple):
    """One canonical value: its name, how it is read, and the dotted paths where it may stand, best first."""

    name: str
    read: Reader
    paths: tuple[str, ...]


class _Place(NamedTuple):
    """Where a wanted value may stand in records of one shape."""

    slot: int  # of the wanted value
    key: str
    rest: str  # of the path, below the key
    read: Reader
    number: int  # of the key in the shape


_Plan = tuple[_Place, ...]  # the first place of each value, then further ones for values that it left empty


class Fields:
    """The canonical values of one kind of record, read column by column: records of one shape are many.

    :param wanted: what to read, in the order in which :meth:`read` returns it.
    """

    def __init__(self, wanted: Sequence[Wanted]) -> None:
        self.wanted = tuple(wanted)
        self._plans: dict[tuple[str, ...], _Plan] = {}

    def read(self, record: Record) -> Values:
        """Return the record's canonical values; the first path with a value that is not empty wins.

        :raises RecordError: when a value cannot be read; it names the field, what was expected and what came.
        """
        (found,) = self.read_all([record])
        if isinstance(found, RecordError):
            raise found
        return found

    def columns(self, records: Sequence[Record]) -> list[Sequence[str | None]]:
        """Return the canonical values of records column by column.

        :raises RecordError: as of :meth:`read`, when one of them cannot be read.
        """
        shapes = set(map(tuple, records))
        if len(shapes) == 1:
            came = list(zip(*[record.values() for record in records], strict=True))
            return self._columns(shapes.pop(), came, len(records))
        rows = self.read_all(records)
        if bad := next((row for row in rows if isinstance(row, RecordError)), None):
            raise bad
        return [*zip(*rows, strict=True)] if rows else [()] * len(self.wanted)

    def read_all(self, records: Sequence[Record]) -> list[Values | RecordError]:
        """Return of each record what :meth:`read` returns or raises."""
        shapes = list(map(tuple, records))
        if shapes.count(shapes[0]) == len(shapes) if shapes else True:
            return self._read_alike(records) if shapes else []
        places: dict[tuple[str, ...], list[int]] = {}
        for number, shape in enumerate(shapes):
            places.setdefault(shape, []).append(number)
        found: dict[int, Values | RecordError] = {}
        for numbers in places.values():
            found |= zip(numbers, self._read_alike([records[number] for number in numbers]), strict=True)
        return [found[number] for number in range(len(records))]

    def _read_alike(self, records: Sequence[Record]) -> list[Values | RecordError]:
        return self.read_rows(tuple(records[0]), [record.values() for record in records])

    def read_rows(self, shape: tuple[str, ...], rows: Sequence[Iterable[Any]]) -> list[Values | RecordError]:
        """Return of each record what :meth:`read` returns or raises; here they come as rows of values.

        :param shape: the names of the values.
        """
        try:
            return list(zip(*self._columns(shape, list(zip(*rows, strict=True)), len(rows)), strict=True))
        except RecordError as error:  # each by itself
            if len(rows) == 1:
                return [error]
        return [found for row in rows for found in self.read_rows(shape, [row])]

    def _columns(
        self, shape: tuple[str, ...], came: Sequence[Sequence[Any]], length: int
    ) -> list[Sequence[str | None]]:
        nothing = [None] * length
        columns: list[Sequence[str | None]] = [nothing] * len(self.wanted)
        plan = self._plans.get(shape)
        for place in self._plan(shape) if plan is None else plan:
            known = columns[place.slot]
            if None not in known:
                continue
            values = came[place.number]
            if place.rest:
                values = tuple(_dig(value, place.rest) for value in values)
            try:
                if known is nothing:
                    columns[place.slot] = column(place.read, values)
                else:
                    pairs = zip(known, values, strict=True)
                    columns[place.slot] = [place.read(value) if one is None else one for one, value in pairs]
            except Unreadable as error:
                where = _NAMESPACE.sub("", f"{place.key}.{place.rest}" if place.rest else place.key)
                raise RecordError(f"field {self.wanted[place.slot].name} ({where}): {error}") from None
        return columns

    def _plan(self, shape: tuple[str, ...]) -> _Plan:
        if len(self._plans) >= _SHAPES_KEPT:
            self._plans.clear()
        keys = {fold(key): key for key in shape}
        numbers = {key: number for number, key in enumerate(shape)}
        first: list[_Place] = []
        further: list[_Place] = []
        for slot, wanted in enumerate(self.wanted):
            found = [place for path in wanted.paths for place in _places(path, keys)]
            for rank, (key, rest) in enumerate(found):
                place = _Place(slot, key, rest, wanted.read, numbers[key])
                (further if rank else first).append(place)
        plan = (*first, *further)
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
