"""Single values as vendors write them, to canonical text: amounts, days, texts, countries; no I/O."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from decimal import Decimal
from functools import lru_cache
from typing import Any

from airflow_cloudbilling.exact import DECIMALS, INTEGER_DIGITS
from airflow_cloudbilling.redaction import clean as one_line

Reader = Callable[[Any], "str | None"]

_CANONICAL = re.compile(r"-?(?:0|[1-9][0-9]{0,25})(?:\.[0-9]{0,11}[1-9])?")
_PLAIN = re.compile(r"([+-]?)([0-9]*)(?:\.([0-9]*))?(?:[eE]([+-]?[0-9]+))?")
_COMMA = re.compile(r"([+-]?)([0-9]*),([0-9]+)")
_GROUPED = re.compile(r"([+-]?)([1-9][0-9]{0,2}(?:([., \u00a0\u202f])[0-9]{3})(?:\3[0-9]{3})*)(?:(?!\3)[.,]([0-9]+))?")
_AMBIGUOUS = re.compile(r"[+-]?[1-9][0-9]{0,2},[0-9]{3}")
_TIME = r"[T ][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:[.,][0-9]+)?)?"
_ISO_DAY = re.compile(rf"([0-9]{{4}})-([0-9]{{2}})-([0-9]{{2}})(?:{_TIME})?(?: ?(?:Z|[+-][0-9]{{2}}:?[0-9]{{2}}))?")
_BASIC_DAY = re.compile(r"([0-9]{4})([0-9]{2})([0-9]{2})")
_DUTCH_DAY = re.compile(rf"([0-9]{{2}})-([0-9]{{2}})-([0-9]{{4}})(?:{_TIME})?")
_NOT_STORABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")  # nor has XML any of them
_NO_COUNTRY = frozenset({"EU", "EZ", "QO", "UN", "XA", "XB", "ZZ"})  # CLDR regions that are not ISO 3166 countries
_ALSO_CALLED = {"holland": "NL", "the netherlands": "NL", "great britain": "GB", "england": "GB", "scotland": "GB",
                "wales": "GB", "turkey": "TR", "czech republic": "CZ", "united states of america": "US"}  # fmt: skip
_ODD = re.compile(f"{_NOT_STORABLE.pattern}|\r")
_LONGEST_ID = 255  # characters
_TEXT = {str}
_TEXTS_OR_NOTHING = {str, type(None)}
_WITH_NOTHING = {str, int, type(None)}
_WITH_DECIMALS = {*_WITH_NOTHING, Decimal}
_CACHED = 64  # characters of a value that is worth remembering; longer ones would fill the memory
_TOO_LONG = f"expected at most {INTEGER_DIGITS} digits before and {DECIMALS} after the point"


class Unreadable(ValueError):
    """A value is not what its field promises; the message says what was expected and what came."""


def shown(value: object, limit: int = 80) -> str:
    """Return a value for an error message: one line, printable, cut.

    :param limit: characters kept.
    """
    text = value if isinstance(value, str) else str(value) if isinstance(value, int | Decimal) else repr(value)
    return f"{clean(text, limit)!r}"


def clean(data: str | bytes, limit: int = 300) -> str:
    """Return foreign text fit for a log line: control characters escaped, white space collapsed, cut.

    :param data: text, or bytes that are read as UTF-8 (UTF-16 where a byte order mark says so).
    :param limit: characters kept.
    """
    if isinstance(data, bytes):
        coding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
        data = data[: limit * 8].decode(coding, "replace")
    safe = one_line(data[: limit * 8])
    return safe if len(safe) <= limit else safe[:limit] + "…"


def column(read: Reader, values: Sequence[Any]) -> Sequence[str | None]:
    """Return ``[read(value) for value in values]``, several times faster where the values are alike.

    :raises Unreadable: when one of them cannot be read.
    """
    kinds = set(map(type, values))
    of_texts = _OF_TEXTS.get(read)
    found: Sequence[str | None] | None = None
    if of_texts and kinds <= (_WITH_NOTHING if read is day else _WITH_DECIMALS):
        texts = [str(value) for value in values if value is not None] if kinds != _TEXT else values
        found = of_texts(texts) if texts else texts
    if found is None and kinds <= _TEXTS_OR_NOTHING:  # currencies, countries and kinds repeat
        known = {value: read(value) for value in set(values)}
        return [known[value] for value in values]
    if found is None:
        return [read(value) for value in values]
    if len(found) == len(values):
        return found
    following = iter(found)
    return [None if value is None else next(following) for value in values]


def _amounts(values: Sequence[str]) -> Sequence[str | None] | None:
    return list(map(_amount, values)) if len(max(values, key=len)) <= _CACHED else None


def _days(values: Sequence[str]) -> Sequence[str | None] | None:
    return list(map(_day, values)) if len(max(values, key=len)) <= _CACHED else None


def _texts(values: Sequence[str]) -> Sequence[str | None] | None:
    values = list(map(str.strip, values))
    whole = "".join(values)
    if not (whole.isascii() and whole.isprintable()) and _ODD.search(whole):
        return None
    return values if all(values) else [value or None for value in values]


def amount(value: Any) -> str | None:
    """Read a decimal number.

    :param value: an int, a ``Decimal`` or text: ``12.50``, ``12,50``, ``1.234,56``, ``1,234.56``, ``1 234,56``,
        ``1e-06``.
    :return: canonical decimal text (no exponent, no trailing zeros, no ``-0``), or ``None`` for nothing.
    :raises Unreadable: for anything else, for more than 26 digits before or 12 after the point, and for ``1,234``,
        which may be thousands or decimals.
    """
    if type(value) is str:
        return _amount(value) if len(value) <= _CACHED else _amount.__wrapped__(value)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise Unreadable(f"expected a decimal amount, came {shown(value)}")
    if isinstance(value, int) and value.bit_length() > 100:  # str() of a huge int is slow, or refused by Python
        raise Unreadable(f"{_TOO_LONG}, came a longer whole number")
    return _amount(str(value))


@lru_cache(maxsize=16384)  # prices, quantities and rates repeat
def _amount(value: str) -> str | None:
    if _CANONICAL.fullmatch(value):
        return value if value != "-0" else "0"
    value = value.strip()
    return _parsed(value) if value else None


def _parsed(text: str) -> str:
    if match := _PLAIN.fullmatch(text):
        sign, whole, decimals, exponent = match.groups(default="")
    elif _AMBIGUOUS.fullmatch(text):
        raise Unreadable(f"expected a decimal amount, came {shown(text)}, which may mean thousands or decimals")
    elif match := _COMMA.fullmatch(text):
        (sign, whole, decimals), exponent = match.groups(), ""
    elif match := _GROUPED.fullmatch(text):
        sign, whole, separator, decimals = match.groups(default="")
        whole, exponent = whole.replace(separator, ""), ""
    else:
        raise Unreadable(f"expected a decimal amount, came {shown(text)}")
    if not whole + decimals:
        raise Unreadable(f"expected a decimal amount, came {shown(text)}")
    return _canonical(sign, whole, decimals, exponent, text)


def _canonical(sign: str, whole: str, decimals: str, exponent: str, text: str) -> str:
    digits = (whole + decimals).lstrip("0")
    if not digits:
        return "0"
    if len(exponent) > 6:  # its value is never worked out: 1e999999999 must not cost memory
        raise Unreadable(f"{_TOO_LONG}, came {shown(text)}")
    point = len(digits) - len(decimals) + int(exponent or 0)
    digits = digits.rstrip("0")
    if point > INTEGER_DIGITS or len(digits) - point > DECIMALS:
        raise Unreadable(f"{_TOO_LONG}, came {shown(text)}")
    minus = "-" if sign == "-" else ""
    if point <= 0:
        return f"{minus}0.{'0' * -point}{digits}"
    if point >= len(digits):
        return f"{minus}{digits}{'0' * (point - len(digits))}"
    return f"{minus}{digits[:point]}.{digits[point:]}"


def day(value: Any) -> str | None:
    """Read a date.

    :param value: ``20200605`` (text or int), ``2020-06-05``, ISO 8601 with a time (the day as written, in whatever
        zone), or ``05-06-2020``.
    :return: ISO text, or ``None`` for nothing and for ``0001-01-01``, which is how .NET writes nothing.
    :raises Unreadable: for anything else, and for days that no calendar has.
    """
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, str | int) or (isinstance(value, int) and value > 10**8):
        raise Unreadable(f"expected a date, came {shown(value)}")
    written = value if isinstance(value, str) else str(value)
    return _day(written) if len(written) <= _CACHED else _day.__wrapped__(written)


@lru_cache(maxsize=4096)
def _day(value: str) -> str | None:
    text = value.strip()
    if not text:
        return None
    try:
        if match := _ISO_DAY.fullmatch(text) or _BASIC_DAY.fullmatch(text):
            found = date(int(match[1]), int(match[2]), int(match[3]))
        elif match := _DUTCH_DAY.fullmatch(text):
            found = date(int(match[3]), int(match[2]), int(match[1]))
        else:
            raise ValueError("no known form")
    except ValueError:
        raise Unreadable(f"expected a date (2020-06-05, 20200605 or 05-06-2020), came {shown(text)}") from None
    return None if found == date.min else found.isoformat()


def text(value: Any) -> str | None:
    r"""Read a text: outer white space off, ``\r\n`` as ``\n`` (as XML has it), what no database stores as U+FFFD.

    :param value: text, an int or a bool (``true``, ``false``).
    :return: the text, or ``None`` for nothing and for white space alone.
    :raises Unreadable: for lists and objects.
    """
    if type(value) is str:
        value = value.strip()
        if value.isascii() and value.isprintable():
            return value or None
        return _NOT_STORABLE.sub("�", value.replace("\r\n", "\n").replace("\r", "\n")).strip() or None
    if value is None:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | Decimal):
        return str(value)
    raise Unreadable(f"expected a text, came {shown(value)}")


def identifier(value: Any) -> str | None:
    """Read a record's id as text.

    :raises Unreadable: for one that is longer than staging keeps.
    """
    found = text(value)
    if found and len(found) > _LONGEST_ID:
        raise Unreadable(f"expected at most {_LONGEST_ID} characters, came {shown(found)}")
    return found


def _identifiers(values: Sequence[str]) -> Sequence[str | None] | None:
    return _texts(values) if len(max(values, key=len)) <= _LONGEST_ID else None


_OF_TEXTS: Mapping[Reader, Callable[[Sequence[str]], Sequence[str | None] | None]] = {
    amount: _amounts,
    day: _days,
    text: _texts,
    identifier: _identifiers,
}


def currency(value: Any) -> str | None:
    """Read a currency's ISO 4217 code, in upper case.

    :raises Unreadable: for anything but three letters.
    """
    code = text(value)
    if code is not None and not re.fullmatch("[A-Za-z]{3}", code):
        raise Unreadable(f"expected a currency's three letters (ISO 4217), came {shown(code)}")
    return code.upper() if code else None


def document_type(value: Any) -> str | None:
    """Return ``credit_note`` when a type in words ("Credit") or a type's number (UNTDID 1001: 381) says so, else None.

    Either suffices: a credit taken for an invoice is the worse mistake, and few values are documented.
    """
    said = (text(value) or "").casefold()
    return "credit_note" if said == "381" or "credit" in said else None


def country(value: Any) -> str | None:
    """Read a country: an ISO 3166 code in any case, or its name in English, Dutch, German or French.

    :return: the two-letter code; an unknown name stays as it is.
    """
    name = text(value)
    if name is None:
        return None
    if len(name) == 2 and name.isascii() and name.isalpha():
        return name.upper()
    return _country_codes().get(name.casefold(), name)


@lru_cache(maxsize=1)
def _country_codes() -> dict[str, str]:
    from babel import Locale  # Airflow's own dependency; 0.1 s to import, so only where a name has to be looked up

    codes = dict(_ALSO_CALLED)
    for language in ("en", "nl", "de", "fr"):
        for code, name in Locale(language).territories.items():
            if len(code) == 2 and code not in _NO_COUNTRY:
                codes.setdefault(name.casefold(), code)
    return codes
