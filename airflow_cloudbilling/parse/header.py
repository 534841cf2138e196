"""What comes of an invoice besides its lines: its members, and their source text."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from functools import lru_cache
from typing import Any

from airflow_cloudbilling.errors import RecordError
from airflow_cloudbilling.parse.events import LARGEST_VALUE, Event
from airflow_cloudbilling.parse.fields import flatten
from airflow_cloudbilling.parse.records import json_text


class Header:
    """What comes of one invoice besides its lines, and what is wrong with it."""

    def __init__(self, members: Mapping[str, Any] = {}, raws: Mapping[str, str] = {}) -> None:
        self.members = dict(members)
        self.raws = list(raws.items())
        self.bad: RecordError | None = None
        self.leaves: list[Event] = []  # those in the present window
        self._size = 0

    def learn(self, event: Event) -> None:
        """Take in some members."""
        self._size += event.size
        if self._size > LARGEST_VALUE:
            self.bad = RecordError(f"expected less than {LARGEST_VALUE} characters besides the lines, came more")
            return
        self.members.update(event.members)
        self.raws.extend(event.raws.items())
        if "" in event.members:  # the record is none, or has a member without a name
            del self.members[""]
            self.raws = [(name, raw) for name, raw in self.raws if name]

    @property
    def flat(self) -> dict[str, Any]:
        """Return the members with those of inner records under dotted names."""
        return flatten(self.members) if dict in set(map(type, self.members.values())) else self.members

    def source_text(self, element: str, written: Callable[[Any], str]) -> str:
        """Return what was sent of the invoice besides its lists; of XML under an element of this name.

        :param written: makes a text of the members whose source texts were not kept.
        """
        if not self.raws:
            return written(self.members)
        if self.raws[0][1].startswith("<"):
            return f"<{element}>{''.join(raw for _, raw in self.raws)}</{element}>"
        return "{" + ", ".join([f"{_name(name)}: {raw}" for name, raw in self.raws]) + "}"


@lru_cache(maxsize=1024)
def _name(name: str) -> str:
    return json_text(name)


def said(value: Any) -> str:
    """Return a value whose source text was not kept as JSON, every number as a text."""
    return json_text(numbers_as_texts(value))


def numbers_as_texts(value: Any) -> Any:
    """Return a value with every number in it as a text."""
    if isinstance(value, Mapping):
        return {name: numbers_as_texts(each) for name, each in value.items()}
    if isinstance(value, list):
        return list(map(numbers_as_texts, value))
    return str(value) if isinstance(value, int | Decimal) and not isinstance(value, bool) else value
