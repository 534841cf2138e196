"""What a user says of sellers, buyers and taxes, for what no cloud vendor's invoice states."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from airflow_cloudbilling.errors import ConfigurationError

# Units of measure by the words that vendors use, as codes of UN/ECE Recommendation 20. "GB" itself is a code there: a
# gallon (US) per day.
_PIECES = (
    *("one", "unit", "units", "piece", "pieces", "pcs", "each", "item", "items", "device", "devices", "seat", "seats"),
    *("user", "users", "license", "licenses", "licence", "licences", "subscription", "subscriptions"),
)
_UNITS = {
    **dict.fromkeys(_PIECES, "C62"),
    **dict.fromkeys(("hour", "hours", "h", "hrs", "1 hour"), "HUR"),
    **dict.fromkeys(("day", "days"), "DAY"),
    **dict.fromkeys(("month", "months"), "MON"),
    **dict.fromkeys(("year", "years"), "ANN"),
    **dict.fromkeys(("mb", "mbyte", "megabyte"), "4L"),
    **dict.fromkeys(("gb", "gbyte", "gigabyte"), "E34"),
    **dict.fromkeys(("tb", "tbyte", "terabyte"), "E35"),
}
ONE = "C62"
_CODES = frozenset((*_UNITS.values(), "H87", "EA", "KWH", "MIN", "SEC", "WEE", "MTR", "KGM", "LTR", "XPP"))


class Party(NamedTuple):
    """A seller or a buyer: BG-4 and BG-7."""

    name: str | None = None  # BT-27, BT-44
    id: str | None = None  # BT-29, BT-46
    registration: str | None = None  # BT-30, BT-47
    vat_id: str | None = None  # BT-31, BT-48
    endpoint: str | None = None  # BT-34, BT-49
    endpoint_scheme: str | None = None
    street: str | None = None  # BT-35, BT-50
    city: str | None = None  # BT-37, BT-52
    postcode: str | None = None  # BT-38, BT-53
    country: str | None = None  # BT-40, BT-55


class Defaults(NamedTuple):
    """What stands in where staging has nothing; what is staged wins.

    :param buyers: by buyer id (BT-46), before ``buyer``.
    :param zero_rate_category: UNCL5305 code of what is taxed at 0 %: Z, E, AE, K, G or O.
    :param units: a vendor's word → code of UN/ECE Recommendation 20.
    """

    seller: Party = Party()
    buyer: Party = Party()
    buyers: Mapping[str, Party] = {}
    payment_terms: str | None = None  # BT-20
    note: str | None = None  # BT-22
    buyer_reference: str | None = None  # BT-10
    zero_rate_category: str | None = None  # BT-118, BT-151
    exemption_reason: str | None = None  # BT-120
    allowance_reason: str = "Discount"  # BT-97
    charge_reason: str = "Charge"  # BT-104
    units: Mapping[str, str] = {}

    @classmethod
    def read(cls, given: Mapping[str, Any] | None) -> Defaults:
        """Read them from plain data, as a DAG has it.

        :raises ConfigurationError: for a name that is none, or a text where names are due, as templates render.
        """
        _check(given or {}, cls._fields, "defaults")
        values = dict(given or {})
        for name in ("seller", "buyer"):
            if name in values:
                values[name] = _party(values[name], f"defaults.{name}")
        for name in {"buyers", "units"} & set(values):
            _check(values[name], None, f"defaults.{name}")
        if "buyers" in values:
            values["buyers"] = {str(k): _party(v, "defaults.buyers") for k, v in values["buyers"].items()}
        return cls(**values)

    def unit(self, word: str | None) -> str | None:
        """Return the code of a unit, or None when the word is not known."""
        if word is None:
            return None
        return self.units.get(word) or _UNITS.get(word.strip().lower()) or (word if word in _CODES else None)


def _party(value: Mapping[str, Any], field: str) -> Party:
    _check(value, Party._fields, field)
    return Party(**{name: None if text is None else str(text) for name, text in value.items()})


def _check(value: Any, known: tuple[str, ...] | None, field: str) -> None:
    if not isinstance(value, Mapping):
        message = f"is {type(value).__name__}, no mapping; a template needs render_template_as_native_obj on the DAG."
        raise ConfigurationError(message, field=field)
    if known is None:
        return
    if unknown := sorted(set(value) - set(known)):
        raise ConfigurationError(f"has no {', '.join(unknown)}; it has {', '.join(known)}.", field=field)
