"""What a staged invoice lacks of EN 16931, in words: terms that are not there, and sums that do not add up."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_cloudbilling.einvoicing.defaults import ONE, Defaults
from airflow_cloudbilling.exact import exact_difference, exact_sum
from airflow_cloudbilling.model import is_issued

if TYPE_CHECKING:
    from airflow_cloudbilling.einvoicing.terms import Draft, Line

MISSING, ASSUMED, BROKEN, UNISSUED = "missing", "assumed", "broken rule", "not issued"
EXEMPT = {"E", "AE", "K", "G", "O"}  # categories that want a reason (BT-120)
_OF_BUYER = {"AE", "K"}  # categories that want to know the buyer's VAT identifier
_ONE = Decimal(1)  # the difference that the norm's own schematron lets pass, since vendors round line by line


class Gap(NamedTuple):
    """What an invoice lacks.

    :param kind: ``missing``, ``assumed`` (something else was written), ``broken rule``, or ``not issued``.
    :param term: business term or rule.
    """

    kind: str
    term: str
    words: str


def line_gaps(row: Mapping[str, Any], line: Line, defaults: Defaults) -> Iterator[Gap]:
    """Yield what a line lacks.

    :param row: as it is staged.
    """
    if line.quantity is None:
        yield Gap(MISSING, "BT-129", "no quantity")
    if defaults.unit(row["unit"]) is None:
        unit = f"unit {row['unit']!r} is no code of UN/ECE Recommendation 20" if row["unit"] else "no unit"
        yield Gap(ASSUMED, "BT-130", f"{unit}; written as {ONE} (one)")
    if line.category is None:
        yield Gap(MISSING, "BT-151", "no VAT category")
    if line.rate is None and line.category != "O":
        yield Gap(MISSING, "BT-152", "no VAT rate")
    if line.name is None:
        yield Gap(MISSING, "BT-153", "no item name")
    if line.start and line.end and line.end < line.start:
        yield Gap(BROKEN, "BR-30", f"the line's period ends on {line.end}, before {line.start}")
    if _is_fine(line.net):
        yield Gap(BROKEN, "BR-DEC-23", "net amount with more than two decimals")


def header_gaps(draft: Draft) -> Iterator[Gap]:
    """Yield the terms that an invoice lacks beside its lines."""
    seller, buyer, defaults = draft.seller, draft.buyer, draft.defaults
    categories = {group.category for group in draft.groups}
    is_due = (draft.amount("payable_amount") or Decimal(0)) > 0
    beside = draft.known("allowance_total") or draft.known("charge_total")
    lacks = {
        "BT-9": ("no due date and no payment terms", is_due and not (draft.head["due_date"] or defaults.payment_terms)),
        "BT-27": ("no seller name", not seller.name),
        "BT-31": ("no seller VAT identifier", bool(categories - {"O", None}) and not seller.vat_id),
        "BT-29": ("no seller identifier at all", not (seller.vat_id or seller.id or seller.registration)),
        "BT-40": ("no seller country", not seller.country),
        "BT-44": ("no buyer name", not buyer.name),
        "BT-48": ("no buyer VAT identifier", bool(categories & _OF_BUYER) and not buyer.vat_id),
        "BT-55": ("no buyer country", not buyer.country),
        "BT-109": ("no total without VAT", draft.amount("net_amount") is None),
        "BT-117": ("no VAT amount of a rate", any(group.tax is None for group in draft.groups)),
        "BT-118": ("no VAT category of a rate", None in categories),
        "BT-120": ("no reason for no VAT", bool(categories & EXEMPT) and not defaults.exemption_reason),
        "BT-95": ("no VAT category of allowances and charges", bool(beside) and len(draft.groups) != 1),
    }
    if not is_issued(status := draft.head["status"]):
        yield Gap(UNISSUED, "BT-3", f"the vendor calls it {status!r}")
    for group in draft.groups:
        if group.is_assumed and group.tax is not None:
            words = f"no VAT amount of {group.rate:f} %; written as {group.tax:f}, which the rate makes of"
            yield Gap(ASSUMED, "BT-117", f"{words} {group.taxable:f}")
    yield from (Gap(MISSING, term, words) for term, (words, is_so) in lacks.items() if is_so)


def broken_rules(draft: Draft) -> Iterator[Gap]:
    """Yield the sums that are not as EN 16931 has them, with both sides, and amounts that are too fine for it."""
    amounts = {name: draft.amount(f"{name}_amount") for name in ("net", "tax", "gross", "payable")}
    net, tax, gross, payable = amounts.values()
    beside = exact_difference(draft.known("charge_total"), draft.known("allowance_total"))
    taxes = [group.tax for group in draft.groups if group.tax is not None]
    less_paid = exact_difference(draft.known("rounding_amount"), draft.known("paid_amount"))
    sums = {
        "BR-CO-13": (net, exact_sum(draft.line_total, beside)),
        "BR-CO-14": (tax, exact_sum(*taxes) if taxes else None),
        "BR-CO-15": (gross, None if net is None or tax is None else exact_sum(net, tax)),
        "BR-CO-16": (payable, None if gross is None else exact_sum(gross, less_paid)),
    }
    for rule, (stated, added) in sums.items():
        if stated is not None and added is not None and stated != added:
            yield Gap(BROKEN, rule, f"{stated:f} is stated, and the parts come to {added:f}")
    for group in draft.groups:
        vat = group.expected
        if vat is not None and group.tax is not None and abs(exact_difference(group.tax, vat)) >= _ONE:
            words = f"{group.tax:f} is stated, and {group.rate:f} % of {group.taxable:f} is {vat:f}"
            yield Gap(BROKEN, "BR-CO-17", words)
    for name, amount in amounts.items():
        if amount is not None and _is_fine(amount):
            yield Gap(BROKEN, "BR-DEC", f"{name}_amount has more than two decimals")


def _is_fine(amount: Decimal) -> bool:
    return len(f"{amount:f}".partition(".")[2].rstrip("0")) > 2
