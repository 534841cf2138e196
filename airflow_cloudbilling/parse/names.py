"""A vendor's table of names: where its records hold the canonical values, and at which level of records."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from airflow_cloudbilling.errors import ConfigurationError
from airflow_cloudbilling.model import Invoice, InvoiceLine
from airflow_cloudbilling.parse.events import Shape
from airflow_cloudbilling.parse.fields import Fields, Wanted, fold
from airflow_cloudbilling.parse.nesting import Nesting, Surrounding
from airflow_cloudbilling.parse.values import amount, country, currency, day, document_type, identifier, text

LINE_NAMES = InvoiceLine._fields[:-1]  # all but raw
HEAD_NAMES = tuple(n for n in Invoice._fields if n not in ("totals_origin", "raw", "source_sha256", "sign", "taxes"))
_AMOUNTS = (*("quantity", "unit_price", "discount", "tax_rate"), "_amount", "_total")  # or what their names end in
_DAYS = ("_date", "period_start", "period_end")
_OTHERS = {
    "invoice_id": identifier,
    "document_type": document_type,
    "currency": currency,
    "seller_country": country,
    "buyer_country": country,
}

Table = Mapping[str, "tuple[Callable[[Any], str | None], tuple[str, ...]]"]
Paths = Mapping[str, Sequence[str]]


class Names(NamedTuple):
    """Where a vendor's records hold the canonical values.

    :param shape: how lists hold each other.
    :param head: canonical name of an invoice → how it is read, and its dotted paths in the invoice's record.
    :param line: the same of a line; paths may lead into a record around it by one of the prefixes in ``around``.
    :param around: level → prefix, such as ``{2: "Customer."}``.
    """

    shape: Shape
    head: Table
    line: Table
    around: Mapping[int, str]

    @classmethod
    def of(cls, shape: Shape, head: Paths, line: Paths) -> Names:
        """Return the names of a vendor whose records have flat lines; each value is read as its name asks for.

        :param head: canonical name of an invoice → its dotted paths in the invoice's record, best first. Names that are
            left out can be given by ``field_map``.
        :param line: the same of a line.
        :raises ConfigurationError: for a name that is no canonical one.
        """
        return cls(shape, _table(HEAD_NAMES, head), _table(LINE_NAMES, line), {})

    def mapped(self, field_map: Mapping[str, str], conn_id: str) -> Names:
        """Return the names with a user's ``field_map``, whose paths come first.

        A name that invoices and lines both have means the invoice; ``line.<name>`` always means the line.

        :raises ConfigurationError: for a name that is not known.
        """
        head, line = dict(self.head), dict(self.line)
        for name, path in field_map.items():
            bare = name.removeprefix("line.")
            table, key = (head, name) if name in head else (line, bare)
            if key not in table:
                known = ", ".join([*head, *(n if n not in head else f"line.{n}" for n in line)])
                raise ConfigurationError(
                    f"{name!r} is no canonical name; known are {known}.", conn_id=conn_id, field="field_map"
                )
            read, paths = table[key]
            table[key] = (read, (path, *paths))
        return self._replace(head=head, line=line)


def _table(names: Sequence[str], given: Paths) -> Table:
    """Return a table of all names, with the paths that are given."""
    if unknown := set(given) - set(names):
        raise ConfigurationError(f"{', '.join(unknown)}: no canonical name; known are {', '.join(names)}.")
    return {name: (_reader(name), tuple(given.get(name, ()))) for name in names}


def _reader(name: str) -> Callable[[Any], str | None]:
    """Return what reads a canonical value, by what its name says it is."""
    if name in _OTHERS:
        return _OTHERS[name]
    return amount if name.endswith(_AMOUNTS) else day if name.endswith(_DAYS) else text


def undivided_amounts(names: Names) -> dict[str, str]:
    """Return the folded names of members that are amounts themselves, not objects that hold one, with what they are."""
    amounts = [(name, paths) for name, (reads, paths) in names.head.items() if reads is amount]
    return {
        fold(path): name
        for name, paths in amounts
        for path in paths
        if not any(fold(other).startswith(f"{fold(path)}.") for other in paths)
    }


def line_fields(names: Names) -> tuple[Fields, Nesting]:
    """Return what reads lines, and the records around them: the lines' paths split by the level that they lead to."""
    own: list[Wanted] = []
    around: dict[int, list[tuple[Wanted, int, bool]]] = {level: [] for level in range(2, names.shape.leaf)}
    for slot, name in enumerate(LINE_NAMES):
        read, paths = names.line[name]
        level_of = [_level(path, names.around) for path in paths]
        own.append(Wanted(name, read, tuple(path for path, level in zip(paths, level_of, strict=True) if not level)))
        for level in set(level_of) - {0}:
            prefix = len(names.around[level])
            theirs = tuple(path[prefix:] for path, of in zip(paths, level_of, strict=True) if of == level)
            around[level].append((Wanted(name, read, theirs), slot, level_of[0] == level))
    levels = {
        level: Surrounding([wanted for wanted, _, _ in each], [(slot, wins) for _, slot, wins in each])
        for level, each in around.items()
    }
    return Fields(own), Nesting(levels)


def _level(path: str, around: Mapping[int, str]) -> int:
    return next((level for level, prefix in around.items() if path.lower().startswith(prefix.lower())), 0)
