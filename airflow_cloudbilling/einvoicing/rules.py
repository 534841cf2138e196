"""EN 16931's rules on codes, periods and VAT categories, as its schematron 1.3.16 asks for them and names them.

An invoice whose totals add up may break them all the same: a country in words, a VAT identifier without its country, a
category with a rate that it cannot have.
"""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import TYPE_CHECKING

from airflow_cloudbilling.einvoicing.defaults import Party
from airflow_cloudbilling.einvoicing.gaps import BROKEN, MISSING, Gap
from airflow_cloudbilling.exact import exact_difference, exact_sum
from airflow_cloudbilling.reconcile.currencies import DECIMALS

if TYPE_CHECKING:
    from airflow_cloudbilling.einvoicing.terms import Draft, Group

_CODES = """
1A AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT BV BW BY BZ CA
CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH ER ES ET FI FJ FK FM FO FR GA GB
GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR HT HU ID IE IL IM IN IO IQ IR IS IT JE JM JO JP KE KG
KH KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK ML MM MN MO MP MQ MR MS MT MU MV
MW MX MY MZ NA NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PN PR PS PT PW PY QA RE RO RS RU RW SA SB
SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TC TD TF TG TH TJ TK TL TM TN TO TR TT TV TW TZ UA UG UM US
UY UZ VA VC VE VG VI VN VU WF WS XI YE YT ZA ZM ZW
"""
COUNTRIES = frozenset(_CODES.split())  # ISO 3166, and two of the norm's own
_PREFIXES = COUNTRIES | {"EL"}  # of Greek VAT identifiers
_WITHDRAWN = "ANG BGN CUC HRK MRO SLL STN VEF ZWL"  # from the norm's list, not from older invoices
_CURRENCIES = DECIMALS.keys() - frozenset(_WITHDRAWN.split())
_NAMES = {"S": "S", "L": "AF", "M": "AG", "Z": "Z", "E": "E", "AE": "AE", "K": "IC", "G": "G", "O": "O"}
_WITH_VAT = ("S", "L", "M")  # the others' rate is 0, or none
_ONE = Decimal(1)


def code_rules(draft: Draft) -> Iterator[Gap]:
    """Yield what stands where a code is due and is none, and a period that ends before it begins."""
    for side, party in (("seller", draft.seller), ("buyer", draft.buyer)):
        if party.country and party.country not in COUNTRIES:
            yield Gap(BROKEN, "BR-CL-14", f"{side} country {party.country!r} is no code of ISO 3166")
        if party.vat_id and party.vat_id[:2] not in _PREFIXES:
            yield Gap(BROKEN, "BR-CO-09", f"{side} VAT identifier {party.vat_id!r} begins with no country's code")
    if draft.currency and draft.currency not in _CURRENCIES:
        yield Gap(BROKEN, "BR-CL-04", f"currency {draft.currency!r} is no code of ISO 4217")
    start, end = draft.head["period_start"], draft.head["period_end"]
    if start and end and end < start:
        yield Gap(BROKEN, "BR-29", f"the invoicing period ends on {end}, before {start}")


def vat_rules(draft: Draft) -> Iterator[Gap]:
    """Yield what of VAT categories, rates and lines does not go together."""
    groups, lines = draft.groups, draft.taxable_by_rate
    for group in groups:
        if group.category in _NAMES:
            yield from _of_category(group, _NAMES[group.category], draft.seller, draft.buyer)
            yield from _taxable(draft, group, _NAMES[group.category])
        elif group.category is not None:
            yield Gap(BROKEN, "BR-CL-17", f"VAT category {group.category!r} is none that is known here")
        if group.rate is None and group.category != "O":
            yield Gap(MISSING, "BT-119", "no VAT rate in the VAT breakdown")
    for category in sorted({str(of) for of, _ in lines if of} - {group.category for group in groups}):
        words = f"lines have VAT category {category}, which the VAT breakdown lacks"
        yield Gap(BROKEN, f"BR-{_NAMES.get(category, category)}-01", words)
    if any(group.category == "K" for group in groups):
        yield Gap(MISSING, "BT-80", "no country that an intra-community supply was delivered to")
        if not (draft.head["period_start"] or draft.head["period_end"]):
            yield Gap(MISSING, "BT-72", "no delivery date or invoicing period of an intra-community supply")


def _of_category(group: Group, name: str, seller: Party, buyer: Party) -> Iterator[Gap]:
    category, rate, tax = group.category, group.rate, group.tax
    if rate is not None and (rate < 0 or (rate == 0 if category == "S" else bool(rate) and category not in _WITH_VAT)):
        yield Gap(BROKEN, f"BR-{name}-05", f"VAT category {category} has the rate {rate:f} %")
    if tax and category not in _WITH_VAT:
        yield Gap(BROKEN, f"BR-{name}-09", f"VAT category {category} has VAT of {tax:f}")
    if category == "O" and (seller.vat_id or buyer.vat_id):
        yield Gap(BROKEN, "BR-O-02", "a VAT identifier stands beside VAT category O, not subject to VAT")


def _taxable(draft: Draft, group: Group, name: str) -> Iterator[Gap]:
    """Yield the rule that a taxable amount (BT-116) breaks that is not the sum of its lines."""
    by_rate = group.category in _WITH_VAT
    own = {rate: net for (category, rate), net in draft.taxable_by_rate.items() if category == group.category}
    nets = [net for rate, net in own.items() if not by_rate or rate == group.rate]
    beside = [draft.known("charge_total"), draft.known("allowance_total").copy_negate()]
    beside = [amount for amount in beside if amount] if len(draft.groups) == 1 else []
    added = exact_sum(*nets, *beside)
    if not own and not beside and group.category in ("L", "M"):
        yield Gap(BROKEN, f"BR-{name}-01", f"the VAT breakdown has category {group.category}, which no line has")
    off = abs(exact_difference(group.taxable, added))
    of_nothing = group.category == "S" and not nets and not beside  # which is broken even where 0 is stated
    if off >= _ONE or (off and not by_rate) or of_nothing:
        words = f"{group.taxable:f} is stated as taxable, and the lines of it come to {added:f}"
        yield Gap(BROKEN, f"BR-{name}-08", words)
