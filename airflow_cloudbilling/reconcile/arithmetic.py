"""What one invoice must satisfy by itself: EN 16931's sums BR-CO-10 to BR-CO-17, to the last digit; no I/O.

A rule is checked where its terms are staged. BT-106 (sum of line net amounts) is not: without document level
allowances and charges it equals BT-109, so BR-CO-10 compares the lines with that, and BR-CO-13 does where there are
some. BR-CO-11 and 12 sum up single allowances and charges, which no vendor states. What a vendor rounds, it may round:
lines finer than the currency's smallest unit, and VAT of lines, which EN 16931 does not know.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from typing import NamedTuple

from airflow_cloudbilling.exact import exact_product, exact_sum
from airflow_cloudbilling.reconcile.currencies import DECIMALS, rounded, subunit

_ZERO = Decimal(0)
_HALF, _HUNDREDTH = Decimal("0.5"), Decimal("0.01")


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
    line_count: int
    preceding_invoice: str | None  # BT-25
    buyer_id: str | None
    frozen: bool  # posted, or on its way


class LineSums(NamedTuple):
    """What an invoice's lines come to.

    :param nets: lines that have a net amount; ``taxes``: a VAT amount.
    """

    lines: int = 0
    nets: int = 0
    net: Decimal = _ZERO
    taxes: int = 0
    tax: Decimal = _ZERO


class Tax(NamedTuple):
    """One row of the VAT breakdown (BG-23)."""

    rate: Decimal | None  # BT-119
    taxable_amount: Decimal | None  # BT-116
    tax_amount: Decimal | None  # BT-117


class Broken(NamedTuple):
    """A rule that does not hold."""

    rule: str
    expected: str
    actual: str
    message: str


def money(amount: Decimal, currency: str | None) -> str:
    """Return an amount with at least the decimals of its currency, the same text whatever database it comes from."""
    text = f"{amount:f}"
    whole, _, fraction = text.partition(".")
    fraction = fraction.rstrip("0").ljust(DECIMALS.get(currency or "", 2), "0")
    return f"{whole}{'.' * bool(fraction)}{fraction}{f' {currency}' if currency else ''}"


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
    if sums.lines != head.line_count:
        message = "Lines are missing or too many in staging; import the period again."
        yield Broken("count-mismatch", f"{head.line_count} lines", f"{sums.lines} lines", message)
    else:
        yield from _line_sum(head, sums, rounded_lines)
    yield from _tax_sum(head, sums, taxes)
    yield from _gross(head)
    yield from _due(head)
    yield from _rates(head, taxes)


def _broken(rule: str, head: Head, expected: Decimal, actual: Decimal, what: str) -> Broken:
    sign = " Header and lines differ in sign." if expected == -actual and expected else ""
    message = f"{what}{sign} Ask the vendor for a corrected invoice, or accept the difference."
    return Broken(rule, money(expected, head.currency), money(actual, head.currency), message)


def _line_sum(head: Head, sums: LineSums, rounded_lines: Callable[[], Decimal]) -> Iterator[Broken]:
    """BR-CO-10: BT-106 = Σ BT-131; BR-CO-13: BT-109 = Σ BT-131 - BT-107 + BT-108."""
    net, less, more = head.net_amount, head.allowance_total or _ZERO, head.charge_total or _ZERO
    if net is None or not sums.nets:
        return
    expected = exact_sum(sums.net, less.copy_negate(), more)
    if expected == net:
        return
    if sums.nets < sums.lines:  # nobody knows what the others come to
        return
    if rounded(expected, head.currency) != expected:
        by_line = exact_sum(rounded_lines(), less.copy_negate(), more)
        if net in (rounded(expected, head.currency), by_line):
            return
    if less or more:
        what = "The net amount (BT-109) is not the sum of the lines less allowances and with charges."
        yield _broken("BR-CO-13", head, expected, net, what)
    else:
        yield _broken("BR-CO-10", head, expected, net, "The net amount is not the sum of the lines (BT-131).")


def _tax_sum(head: Head, sums: LineSums, taxes: Sequence[Tax]) -> Iterator[Broken]:
    """BR-CO-14: BT-110 = Σ BT-117; without a breakdown the lines' VAT, each of which may have been rounded."""
    tax, stated = head.tax_amount, [row.tax_amount for row in taxes if row.tax_amount is not None]
    if tax is None:
        return
    if taxes:
        expected = exact_sum(*stated)
        if len(stated) == len(taxes) and expected != tax:
            yield _broken("BR-CO-14", head, expected, tax, "The VAT (BT-110) is not the sum of the VAT breakdown.")
    elif sums.lines == sums.taxes == head.line_count > 0:
        tolerated = exact_product(subunit(head.currency), exact_product(Decimal(sums.lines), _HALF))
        if exact_sum(sums.tax, tax.copy_negate()).copy_abs() > tolerated:
            yield _broken("BR-CO-14", head, sums.tax, tax, "The VAT (BT-110) is not the sum of the lines' VAT.")


def _gross(head: Head) -> Iterator[Broken]:
    """BR-CO-15: BT-112 = BT-109 + BT-110."""
    net, tax, gross = head.net_amount, head.tax_amount, head.gross_amount
    if net is not None and tax is not None and gross is not None and (expected := exact_sum(net, tax)) != gross:
        yield _broken("BR-CO-15", head, expected, gross, "The gross amount (BT-112) is not net amount and VAT.")


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
    for rate, taxable, tax in taxes:
        if rate is None or taxable is None or tax is None:
            continue
        expected = rounded(exact_product(exact_product(taxable, rate), _HUNDREDTH), head.currency)
        if expected != tax:
            at = f"{rate.normalize():f} %"
            what = f"The VAT (BT-117) is not {at} of {money(taxable, head.currency)}."
            broken = _broken("BR-CO-17", head, expected, tax, what)
            yield broken._replace(actual=f"{broken.actual} at {at}")
