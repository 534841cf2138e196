"""From a staged invoice to the record that a scope of Sage wants; no I/O.

The fields of ``Orders`` are those of the e-commerce solution (vendor facts 4b: Address, Customer, Order); those of its
lines, and ``currency``, are assumed (4d). There is no documented scope for invoices, so that any field can be mapped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

from airflow_cloudbilling.errors import ConfigurationError
from airflow_cloudbilling.model import KINDS
from airflow_cloudbilling.parse.events import Malformed
from airflow_cloudbilling.parse.json_exact import decoder

Row = Mapping[str, Any]
Mapper = Callable[[Row, Sequence[Row]], Any]
Path = tuple[str, ...]

_ADDRESS = {"id": "buyer_id", "contactName": "buyer_name", "country": "buyer_country", "timestamp": "issue_date"}
ORDER = {
    "id": "invoice_id",
    "orderDate": "issue_date",
    "eta": None,
    "orderStatus": None,
    **{f"{kind}.{name}": column for kind in ("deliveryAddress", "invoiceAddress") for name, column in _ADDRESS.items()},
    "customer.id": "buyer_id",
    "customer.idNumber": "buyer_vat_id",
    "customer.lastName": "buyer_name",
    "customer.currency": "currency",
    "customer.timestamp": "issue_date",
    "discount": "allowance_total",
    "totalShipping": "charge_total",  # the only place that an order has for charges
    "currency": "currency",
}
LINE = {
    "productId": "item_code",
    "description": "description",
    "quantity": "quantity",
    "netPrice": "unit_price",
    "tax": "tax_rate",
    "discount": "discount",
    "netAmount": "net_amount",
}
_REQUIRED_OF_ADDRESS = ("id", "address1", "city", "country", "postCode", "telephone1", "timestamp")
REQUIRED = (
    "id",
    "orderDate",
    *(f"{kind}.{name}" for kind in ("deliveryAddress", "invoiceAddress") for name in _REQUIRED_OF_ADDRESS),
    *(f"customer.{name}" for name in ("id", "firstName", "lastName", "email", "addresses", "timestamp")),
    "discount",
    "currencyRate",
    "paymentMethod",
    "totalShipping",
)
# What an invoice does not state it has not (EN 16931: BT-107 and BT-108 are left out when there are none).
_NONE_STATED = {"discount": 0, "totalShipping": 0, "customer.addresses": []}
_MOMENTS = ("orderDate", "eta", "timestamp")  # fields that are a moment in UTC; staging has days


class Records:
    """Makes the records of one file, and remembers which fields could not be filled.

    :param scope: of the file; ``Orders`` is documented, any other needs a mapping.
    :param kind: of the invoices; only ``sales`` has a mapping of its own.
    :param mapping: a function from an invoice and its lines to the record, which is then all of it; or field →
        expression, such as ``{"customer.email": "invoice.buyer_id", "lines.productId": "line.match_key"}``: a dotted
        path that begins with ``invoice`` or ``line`` and may go on into what the vendor sent
        (``invoice.raw.Receiver.City``). For ``Orders`` it comes before the built-in mapping, else it is all.
    :param defaults: field → value, for what staging and the mapping leave open; dotted or nested.
    :raises ConfigurationError: when a mapping is missing or is none, or there is no such kind.
    """

    def __init__(
        self, scope: str, kind: str | None, mapping: Mapper | Mapping[str, str] | None, defaults: Row | None = None
    ) -> None:
        if kind and kind not in KINDS:
            raise ConfigurationError(f"{kind!r} is none of {', '.join(KINDS)}.", field="kind")
        orders = scope.casefold() == "orders"
        if mapping is None and not (orders and kind == "sales"):
            raise ConfigurationError(
                f"{kind or 'mixed'} invoices have no mapping to the scope {scope!r}: only sales invoices to Orders have"
                " one; give a function, or field → expression.",
                field="mapping",
            )
        self._defaults = {path: _exact(value) for path, value in _flat(defaults or {})}
        self._mapper = mapping if callable(mapping) else None
        given = {} if mapping is None or callable(mapping) else dict(mapping)
        self.required = ("id",) if self._mapper or not orders else REQUIRED
        built_in = _plan(ORDER, LINE) if orders and not self._mapper else {}
        self._plan = {**built_in, **{_path(field): _steps(field, text) for field, text in given.items()}}
        self._fixed = {_path(field): value for field, value in _NONE_STATED.items()} if built_in else {}
        self.missing: dict[str, list[str]] = {}
        self.lacking = 0

    def record(self, invoice: Row, lines: Sequence[Row]) -> dict[str, Any]:
        """Return the record of an invoice.

        :raises ConfigurationError: when the mapping names what an invoice or a line has not.
        """
        record = self._mapped(invoice, lines) if self._mapper else self._planned(invoice, lines)
        missing = [field for field in self.required if _at(record, _path(field)) in (None, "")]
        for field in missing:
            self.missing.setdefault(field, []).append(str(invoice["invoice_id"]))
            del self.missing[field][3:]
        self.lacking += bool(missing)
        return record

    def check(self) -> None:
        """Refuse to go on when fields that Sage requires could not be filled.

        :raises ConfigurationError: naming every one of them, and at most three invoices that lack it.
        """
        if self.missing:
            alike: dict[str, list[str]] = {}  # mostly all invoices lack the same
            for field, ids in self.missing.items():
                alike.setdefault(", ".join(ids), []).append(field)
            told = "; ".join(f"{', '.join(fields)} ({ids})" for ids, fields in alike.items())
            raise ConfigurationError(
                f"{self.lacking} invoices lack fields that Sage requires, so nothing was sent: {told}. Give them as"
                f" defaults, e.g. defaults={{{next(iter(self.missing))!r}: …}}, or map them.",
                field="defaults",
            )

    def _mapped(self, invoice: Row, lines: Sequence[Row]) -> dict[str, Any]:
        assert self._mapper is not None
        record = self._mapper(invoice, lines)
        if not isinstance(record, Mapping):
            kind = type(record).__name__
            message = f"the function returned {kind} for invoice {invoice['invoice_id']!r}; return the record's fields."
            raise ConfigurationError(message, field="mapping")
        return self._filled(dict(record))

    def _planned(self, invoice: Row, lines: Sequence[Row]) -> dict[str, Any]:
        record: dict[str, Any] = {}
        own = {path: steps for path, steps in self._plan.items() if path[0] != "lines"}
        for path, steps in own.items():
            _put(record, path, _value(path, steps, {"invoice": invoice}))
        of_lines = {path[1:]: steps for path, steps in self._plan.items() if path[0] == "lines"}
        if of_lines:
            record["lines"] = [self._line(invoice, line, of_lines) for line in lines]
        return self._filled(record)

    def _line(self, invoice: Row, line: Row, plan: Mapping[Path, Sequence[str]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for path, steps in plan.items():
            _put(found, path, _value(path, steps, {"invoice": invoice, "line": line}))
        for path, value in self._defaults.items():
            if path[0] == "lines" and _at(found, path[1:]) is None:
                _put(found, path[1:], value)
        return found

    def _filled(self, record: dict[str, Any]) -> dict[str, Any]:
        for fallback in (self._defaults, self._fixed):
            for path, value in fallback.items():
                if path[0] != "lines" and _at(record, path) in (None, ""):
                    _put(record, path, value)
        return record


def _plan(order: Mapping[str, str | None], line: Mapping[str, str]) -> dict[Path, Sequence[str]]:
    plan = {_path(field): ("invoice", column) for field, column in order.items() if column}
    return {**plan, **{("lines", field): ("line", column) for field, column in line.items()}}


def _path(field: str) -> Path:
    return tuple(field.split("."))


def _steps(field: str, text: object) -> Sequence[str]:
    """Read an expression."""
    steps = text.split(".") if isinstance(text, str) else []
    if len(steps) == 1:
        steps = ["line" if field.startswith("lines.") else "invoice", *steps]
    allowed = ("invoice", "line") if field.startswith("lines.") else ("invoice",)
    if not steps or steps[0] not in allowed or "" in steps:
        raise ConfigurationError(
            f"{field!r}: {text!r} is no expression such as {allowed[-1]}.description; values that are always the same "
            "go into defaults.",
            field="mapping",
        )
    return steps


def _value(path: Path, steps: Sequence[str], rows: Mapping[str, Row]) -> Any:
    row, name = rows[steps[0]], steps[1]
    if name not in row:
        words = f"{'.'.join(path)!r}: {steps[0]}.{name} is not staged; there are {', '.join(row)}."
        raise ConfigurationError(words, field="mapping")
    value = row[name]
    for step in steps[2:]:
        value = _inside(value, step)
    day = path[-1] in _MOMENTS and isinstance(value, str) and len(value) == 10
    return f"{value}T00:00:00Z" if day else value


def _inside(value: Any, step: str) -> Any:
    """Return a member of what the vendor sent, where it sent JSON."""
    if isinstance(value, str):
        try:
            value = decoder().decode(value)
        except (ValueError, Malformed):
            return None
    if isinstance(value, list):
        return value[int(step)] if step.isdigit() and int(step) < len(value) else None
    return value.get(step) if isinstance(value, dict) else None


def _at(record: Any, path: Path) -> Any:
    for step in path:
        if not isinstance(record, Mapping):
            return None
        record = record.get(step)
    return record


def _put(record: dict[str, Any], path: Path, value: Any) -> None:
    """Set a field, unless it has no value: what nobody knows is left out."""
    if value is None:
        return
    for step in path[:-1]:
        inner = record.get(step)
        record[step] = inner = dict(inner) if isinstance(inner, Mapping) else {}
        record = inner
    record[path[-1]] = value


def _flat(values: Row, before: Path = ()) -> Iterator[tuple[Path, Any]]:
    for name, value in values.items():
        path = (*before, *_path(str(name)))
        if isinstance(value, Mapping):
            yield from _flat(value, path)
        else:
            yield path, value


def _exact(value: Any) -> Any:
    """Return a value of a DAG file; a float there is exactly what somebody typed."""
    return Decimal(repr(value)) if isinstance(value, float) else value
