"""What one invoice must satisfy by itself: EN 16931's sums BR-CO-10 to BR-CO-17, to the last digit; no I/O.

A rule is checked where its terms are staged. BT-106 (sum of line net amounts) is not: without document level
allowances and charges it equals BT-109, so BR-CO-10 compares the lines with that, and BR-CO-13 does where there are
some. BR-CO-11 and 12 sum up single allowances and charges, which no vendor states. What a vendor rounds, it may round:
lines finer than the currency's smallest unit, and VAT of lines, which EN 16931 does not know.

Of the rules on the VAT breakdown three are checked: each row has its VAT (BR-46), the taxable amounts add up to the
net amount, which is what BR-S-08 and its like for other categories come to together, and where a vendor has no
breakdown, the lines' rates make the VAT of the lines (BR-S-09). EN 16931's own validation lets the sums be off by less
than 1, and a line's rate may not be all of its VAT, so these only warn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from typing import NamedTuple

from airflow_cloudbilling.exact import exact_difference, exact_product, exact_sum
from airflow_cloudbilling.reconcile.currencies import DECIMALS, rounded, subunit

_ZERO = Decimal(0)
_HALF, _HUNDREDTH = Decimal("0.5"), Decimal("0.01")
_STATED = {"net_amount": "net", "tax_amount": "VAT", "gross_amount": "gross", "payable_amount": "due"}
_CATEGORIES = {"Z": "Z", "E": "E", "AE": "AE", "K": "IC", "G": "G", "O": "O", "L": "IG", "M": "IP"}
_BY_CATEGORY = {category: f"BR-{name}-08" for category, name in _CATEGORIES.items()}
BREAKDOWN = frozenset({"BR-S-08", "BR-S-09", *_BY_CATEGORY.values()})


class Head(NamedTuple):
    """An invoice as it is staged, credit notes negative; what nobody stated is None."""

    provider: str
    account: str
    kind: str
    invoice_id: str
    content_hash: str
    document_type: str
    currency: str | None  # BT-5
    net_amount: Decimal | None  # BT-109
    tax_amount: Decimal | None  # BT-110
    gross_amount: Decimal | None  # BT-112
    allowance_total: Decimal | None  # BT-107
    charge_total: Decimal | None  # BT-108
    rounding_amount: Decimal | None  # BT-114
    paid_amount: Decimal | None  # BT-113
    payable_amount: Decimal | None  # BT-115
    totals_origin: str
    status: str | None
    line_count: int
    preceding_invoice: str | None  # BT-25
    buyer_id: str | None
    frozen: bool  # posted, or on its way


class LineSums(NamedTuple):
    """What an invoice's lines come to.

    :param nets: lines that have a net amount; ``taxes``: a VAT amount; ``rates``: a net amount and a VAT rate.
    :param rated: what the rates make of the net amounts, a hundred times.
    """

    lines: int = 0
    nets: int = 0
    net: Decimal = _ZERO
    taxes: int = 0
    tax: Decimal = _ZERO
    rates: int = 0
    rated: Decimal = _ZERO


class Tax(NamedTuple):
    """One row of the VAT breakdown (BG-23)."""

    rate: Decimal | None  # BT-119
    taxable_amount: Decimal | None  # BT-116
    tax_amount: Decimal | None  # BT-117
    category: str | None = None  # BT-118


class Broken(NamedTuple):
    """A rule that does not hold.

    :param actual: names the difference, by which a person who accepts it knows it from another.
    """

    rule: str
    expected: str
    actual: str
    message: str


def money(amount: Decimal, currency: str | None) -> str:
    """Return an amount with at least the decimals of its currency, the same text whatever database it comes from."""
    return f"{_number(amount, currency)}{f' {currency}' if currency else ''}"


def _number(amount: Decimal, currency: str | None) -> str:
    whole, _, fraction = f"{amount:f}".partition(".")
    fraction = fraction.rstrip("0").ljust(DECIMALS.get(currency or "", 2), "0")
    return f"{whole}{'.' * bool(fraction)}{fraction}"


def check(head: Head, sums: LineSums, taxes: Sequence[Tax], rounded_lines: Callable[[], Decimal]) -> Iterator[Broken]:
    """Yield the rules that an invoice breaks.

    :param sums: of the lines that are staged.
    :param rounded_lines: returns the sum of the lines' net amounts, each rounded; asked for only where it matters.
    """
    if head.net_amount is None and head.gross_amount is None:
        message = "No amount is staged; enter it by hand, map the field with field_map, or ask the vendor."
        yield Broken("unreadable-amounts", "a net or a gross amount", "no amount", message)
        return
    if head.currency not in DECIMALS:
        message = "Ask the vendor which currency is meant; the connection's field_map or default_currency names it."
        yield Broken("unknown-currency", "a currency of ISO 4217", head.currency or "no currency", message)
    else:
        yield from _decimals(head)
    if sums.lines != head.line_count:
        message = "Lines are missing or too many in staging; import the period again."
        actual = f"{sums.lines} lines ({sums.lines - head.line_count:+d})"
        yield Broken("count-mismatch", f"{head.line_count} lines", actual, message)
    else:
        yield from _line_sum(head, sums, rounded_lines)
    yield from _tax_sum(head, sums, taxes)
    yield from _taxable(head, sums, taxes)
    yield from _gross(head)
    yield from _due(head)
    yield from _rates(head, taxes)


def _broken(rule: str, head: Head, expected: Decimal, actual: Decimal, what: str) -> Broken:
    sign = " Header and lines differ in sign." if expected == -actual and expected else ""
    message = f"{what}{sign} Ask the vendor for a corrected invoice, or accept the difference."
    off = _number(exact_difference(actual, expected), head.currency)
    told = f"{money(actual, head.currency)} ({'+' * (actual > expected)}{off})"
    return Broken(rule, money(expected, head.currency), told, message)


def _decimals(head: Head) -> Iterator[Broken]:
    """BR-DEC-12, 13, 14 and 18: no total is finer than the currency's smallest unit."""
    if head.totals_origin != "stated":
        return
    fine = {what: amount for name, what in _STATED.items() if (amount := getattr(head, name)) is not None}
    finer = ((what, amount) for what, amount in fine.items() if rounded(amount, head.currency) != amount)
    told = [f"{what} {_number(amount, head.currency)}" for what, amount in finer]
    if told:
        message = "A payment cannot be that exact: ask the vendor which amount is owed, or accept it."
        most = f"at most {DECIMALS[head.currency or '']} decimals of {head.currency}"
        yield Broken("BR-DEC", most, ", ".join(told), message)


def _net_of_lines(head: Head, sums: LineSums) -> Decimal:
    """Return what the lines come to, less allowances (BT-107) and with charges (BT-108)."""
    less, more = head.allowance_total or _ZERO, head.charge_total or _ZERO
    return exact_sum(sums.net, less.copy_negate(), more)


def _line_sum(head: Head, sums: LineSums, rounded_lines: Callable[[], Decimal]) -> Iterator[Broken]:
    """BR-CO-10: BT-106 = Σ BT-131; BR-CO-13: BT-109 = Σ BT-131 - BT-107 + BT-108."""
    net = head.net_amount
    if net is None or not sums.nets:
        return
    expected = _net_of_lines(head, sums)
    if expected == net:
        return
    if sums.nets < sums.lines:  # nobody knows what the others come to
        return
    if rounded(expected, head.currency) != expected:
        by_line = _net_of_lines(head, sums._replace(net=rounded_lines()))
        if net in (rounded(expected, head.currency), by_line):
            return
    if head.allowance_total or head.charge_total:
        what = "The net amount (BT-109) is not the sum of the lines less allowances and with charges."
        yield _broken("BR-CO-13", head, expected, net, what)
    else:
        yield _broken("BR-CO-10", head, expected, net, "The net amount is not the sum of the lines (BT-131).")


def _tax_sum(head: Head, sums: LineSums, taxes: Sequence[Tax]) -> Iterator[Broken]:
    """BR-CO-14: BT-110 = Σ BT-117; without a breakdown the lines' VAT, each of which may have been rounded.

    BR-S-09: BT-117 = BT-116 x BT-119; without a breakdown what the lines' rates make of them, where VAT is stated.
    """
    tax, stated = head.tax_amount, [row.tax_amount for row in taxes if row.tax_amount is not None]
    if tax is None:
        return
    if taxes:
        expected = exact_sum(*stated)
        if len(stated) == len(taxes) and expected != tax:
            yield _broken("BR-CO-14", head, expected, tax, "The VAT (BT-110) is not the sum of the VAT breakdown.")
    elif sums.lines == head.line_count > 0:
        yield from _tax_of_lines(head, sums, tax)


def _tax_of_lines(head: Head, sums: LineSums, tax: Decimal) -> Iterator[Broken]:
    def is_far(expected: Decimal) -> bool:
        tolerated = exact_product(subunit(head.currency), exact_product(Decimal(sums.lines), _HALF))
        return exact_difference(expected, tax).copy_abs() > tolerated

    by_rate = exact_product(sums.rated, _HUNDREDTH)
    adds_up = head.net_amount in (sums.net, rounded(sums.net, head.currency))  # else that is what is told
    # VAT of some lines alone says nothing of the others, and where none is owed, as by reverse charge, no rate counts.
    whole = tax and sums.taxes in (0, sums.lines) and sums.lines == sums.rates
    if sums.lines == sums.taxes and is_far(sums.tax):
        yield _broken("BR-CO-14", head, sums.tax, tax, "The VAT (BT-110) is not the sum of the lines' VAT.")
    elif whole and adds_up and head.totals_origin == "stated" and is_far(by_rate):
        expected, what = rounded(by_rate, head.currency), "The VAT (BT-110) is not what the lines' rates make of them."
        yield _broken("BR-S-09", head, expected, tax, what)


def _taxable(head: Head, sums: LineSums, taxes: Sequence[Tax]) -> Iterator[Broken]:
    """BR-46: each row of the VAT breakdown has its VAT; BR-S-08 and its like: Σ BT-116 = Σ BT-131 - BT-107 + BT-108.

    Where the net amount is not the sum of the lines, which is told as such, either will do.
    """
    if without := [row for row in taxes if row.tax_amount is None]:
        message = "Ask the vendor what VAT it charges at that rate, or accept it."
        rates = ", ".join("no rate" if row.rate is None else f"{row.rate.normalize():f} %" for row in without)
        yield Broken("BR-46", "VAT of each row of the VAT breakdown", f"none at {rates}", message)
    stated = [row.taxable_amount for row in taxes if row.taxable_amount is not None]
    if head.net_amount is None or not stated or len(stated) < len(taxes):
        return
    taxable = exact_sum(*stated)
    if taxable not in (head.net_amount, _net_of_lines(head, sums) if sums.nets == sums.lines > 0 else None):
        categories = {row.category for row in taxes}
        rule = _BY_CATEGORY.get(categories.pop() or "", "BR-S-08") if len(categories) == 1 else "BR-S-08"
        what = "The taxable amounts of the VAT breakdown (BT-116) do not add up to the net amount."
        yield _broken(rule, head, head.net_amount, taxable, what)


def _gross(head: Head) -> Iterator[Broken]:
    """BR-CO-15: BT-112 = BT-109 + BT-110, where nobody states any VAT that is none."""
    net, tax, gross = head.net_amount, head.tax_amount, head.gross_amount
    if net is not None and gross is not None and (expected := exact_sum(net, tax or _ZERO)) != gross:
        what = "The gross amount (BT-112) is not net amount and VAT."
        yield _broken("BR-CO-15", head, expected, gross, what if tax is not None else f"{what} No VAT is stated.")


def _due(head: Head) -> Iterator[Broken]:
    """BR-CO-16: BT-115 = BT-112 - BT-113 + BT-114."""
    gross, payable, paid = head.gross_amount, head.payable_amount, head.paid_amount
    if gross is None or payable is None or (paid is None and not payable):  # settled, the vendor does not say how
        return
    expected = exact_sum(gross, (paid or _ZERO).copy_negate(), head.rounding_amount or _ZERO)
    if expected != payable:
        what = "The amount due (BT-115) is not the gross amount less what was paid, with rounding."
        yield _broken("BR-CO-16", head, expected, payable, what)


def _rates(head: Head, taxes: Sequence[Tax]) -> Iterator[Broken]:
    """BR-CO-17: BT-117 = BT-116 x BT-119 / 100, rounded to the currency's smallest unit."""
    for rate, taxable, tax, _ in taxes:
        if rate is None or taxable is None or tax is None:
            continue
        expected = rounded(exact_product(exact_product(taxable, rate), _HUNDREDTH), head.currency)
        if expected != tax:
            at = f"{rate.normalize():f} %"
            what = f"The VAT (BT-117) is not {at} of {money(taxable, head.currency)}."
            broken = _broken("BR-CO-17", head, expected, tax, what)
            yield broken._replace(actual=f"{broken.actual} at {at}")
