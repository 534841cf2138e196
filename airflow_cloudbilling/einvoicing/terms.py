"""EN 16931's business terms of one staged invoice, and in words what it lacks of them.

Credit notes are staged negative and positive here, under type 381. Nothing is rounded and nothing made up: what is
written in place of a missing term is told as assumed.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any, NamedTuple

from airflow_cloudbilling.einvoicing.defaults import ONE, Defaults, Party
from airflow_cloudbilling.einvoicing.gaps import Gap, broken_rules, header_gaps, line_gaps
from airflow_cloudbilling.exact import exact_difference, exact_product, exact_sum, rounded_to

Row = Mapping[str, Any]
_CENT = Decimal("0.01")
# What XML cannot hold, and what staging may
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")


class Group(NamedTuple):
    """One row of the VAT breakdown (BG-23)."""

    category: str | None  # BT-118
    rate: Decimal | None  # BT-119
    taxable: Decimal  # BT-116
    tax: Decimal | None  # BT-117
    is_assumed: bool = False  # what the rate makes of the taxable amount, since nobody stated it

    @property
    def expected(self) -> Decimal | None:
        """Return the VAT that the rate makes of the taxable amount, to the cent."""
        if self.rate is None:
            return None
        return cents(exact_product(exact_product(self.taxable, self.rate), _CENT))


class Line(NamedTuple):
    """One line (BG-25)."""

    id: str  # BT-126
    net: Decimal  # BT-131
    quantity: Decimal | None  # BT-129
    unit: str  # BT-130
    price: Decimal  # BT-146
    base: Decimal | None  # BT-149
    category: str | None  # BT-151
    rate: Decimal | None  # BT-152
    name: str | None  # BT-153
    item_code: str | None  # BT-155
    object_id: str | None  # BT-128
    start: str | None  # BT-134
    end: str | None  # BT-135


class Draft:
    """One invoice: its lines are taken in once for sums and gaps, then :meth:`line` gives each for writing.

    :param head: a row of ``cloudbilling_invoice``, amounts as ``Decimal``, days as ISO text.
    :param taxes: its rows of ``cloudbilling_invoice_tax``.
    """

    def __init__(self, head: Row, taxes: Iterable[Row], defaults: Defaults) -> None:
        self.head: Row = {name: readable(value) if isinstance(value, str) else value for name, value in head.items()}
        self.defaults = defaults
        self.is_credit = head["document_type"] == "credit_note"
        self.number = readable(head["invoice_number"] or head["invoice_id"])
        self.currency = self.head["currency"]
        buyers = defaults.buyers.get(head["buyer_id"] or "", defaults.buyer)
        self.seller, self.buyer = self._party("seller", defaults.seller), self._party("buyer", buyers)
        self._stated = [self._stated_group(row) for row in taxes]
        self._sums: dict[tuple[str | None, Decimal | None], list[Decimal | None]] = {}
        self._told: Counter[Gap] = Counter()
        self._first: dict[Gap, str] = {}
        self.lines = 0
        self.lines_without_net = 0
        self.line_total = Decimal(0)  # BT-106

    def take(self, row: Row) -> None:
        """Take in a line."""
        self.lines += 1
        if row["net_amount"] is None:
            self.lines_without_net += 1
            return
        line = self.line(row)
        self.line_total = exact_sum(self.line_total, line.net)
        tax = self._signed(row["tax_amount"])
        taxable, taxes = self._sums.get((line.category, line.rate), [Decimal(0), Decimal(0)])
        together = None if tax is None or taxes is None else exact_sum(taxes, tax)
        self._sums[line.category, line.rate] = [exact_sum(taxable or Decimal(0), line.net), together]
        for gap in line_gaps(row, line, self.defaults):
            self._told[gap] += 1
            self._first.setdefault(gap, line.id)

    def line(self, row: Row) -> Line:
        """Return a line that has a net amount, in EN 16931's terms."""
        net, quantity = self._amount(row["net_amount"]), self._signed(row["quantity"])
        category, rate = self._category(row["tax_rate"])
        price, base, quantity = _price(net, quantity, row["unit_price"])
        return Line(
            id=readable(row["line_id"]) or str(row["line_number"]),
            net=net,
            quantity=quantity,
            unit=self.defaults.unit(row["unit"]) or ONE,
            price=price,
            base=base,
            category=category,
            rate=rate,
            name=readable(row["description"]) or readable(row["subscription_name"]) or readable(row["item_code"]),
            item_code=readable(row["item_code"]),
            object_id=readable(row["subscription_id"]),
            start=row["period_start"],
            end=row["period_end"],
        )

    @property
    def unwritable(self) -> list[str]:
        """Return in words why no valid UBL can be written; empty when it can."""
        reasons = {
            "BT-1 readable invoice number": self.number is None,
            "BT-2 issue date": self.head["issue_date"] is None,
            "BT-5 currency": self.currency is None,
            "BG-25: it has no lines": not self.lines,
            f"BT-131 net amount of {self.lines_without_net} lines": bool(self.lines_without_net),
            "BT-115 amount due": self.amount("net_amount") is None and self.amount("gross_amount") is None,
        }
        return [words for words, lacks in reasons.items() if lacks]

    def amount(self, name: str) -> Decimal | None:
        """Return an amount of the invoice: as staged, else worked out from the others."""
        found = self._signed(self.head[name])
        if found is None and name in ("tax_amount", "gross_amount", "payable_amount"):
            return self._worked_out(name)
        return found

    def _worked_out(self, name: str) -> Decimal | None:
        if name == "tax_amount":
            parts = [group.tax for group in self.groups]
            return exact_sum(*(tax for tax in parts if tax is not None)) if parts and None not in parts else None
        if name == "gross_amount":
            net, tax = self.amount("net_amount"), self.amount("tax_amount")
            return None if net is None else exact_sum(net, tax or Decimal(0))
        gross = self.amount("gross_amount")
        paid, rounding = self.known("paid_amount"), self.known("rounding_amount")
        return None if gross is None else exact_sum(gross, paid.copy_negate(), rounding)

    @property
    def groups(self) -> list[Group]:
        """Return the VAT breakdown: the vendor's, else the lines by category and rate."""
        if self._stated:
            return self._stated
        found = [Group(*key, taxable or Decimal(0), tax) for key, (taxable, tax) in self._sums.items()]
        if len(found) == 1:
            whole = self._signed(self.head["tax_amount"])
            beside = exact_difference(self.known("charge_total"), self.known("allowance_total"))
            group = found[0]._replace(taxable=exact_sum(found[0].taxable, beside))
            return [group._replace(tax=group.tax if whole is None else whole)]
        return [g if g.tax is not None else g._replace(tax=g.expected, is_assumed=True) for g in found]

    @property
    def taxable_by_rate(self) -> dict[tuple[str | None, Decimal | None], Decimal]:
        """Return what the lines come to: VAT category and rate → net amount."""
        return {key: taxable or Decimal(0) for key, (taxable, _) in self._sums.items()}

    def gaps(self) -> list[Gap]:
        """Return what the invoice lacks, the header first."""
        from airflow_cloudbilling.einvoicing.rules import code_rules, vat_rules

        told = [*header_gaps(self), *broken_rules(self), *code_rules(self), *vat_rules(self)]
        for gap, count in self._told.items():
            of = f"line {self._first[gap]}" if count == 1 else f"{count} lines, first {self._first[gap]}"
            told.append(gap._replace(words=f"{gap.words} ({of})"))
        return told

    def _party(self, side: str, default: Party) -> Party:
        staged = {name: self.head.get(f"{side}_{name}") for name in ("name", "vat_id", "country", "id")}
        return default._replace(**{name: value for name, value in staged.items() if value})

    def _signed(self, amount: Decimal | None) -> Decimal | None:
        return amount.copy_negate() if amount and self.is_credit else amount

    def _amount(self, amount: Decimal) -> Decimal:
        return amount.copy_negate() if amount and self.is_credit else amount

    def known(self, name: str) -> Decimal:
        """Return an amount of the invoice as staged; nothing is zero."""
        return self._signed(self.head[name]) or Decimal(0)

    def _stated_group(self, row: Row) -> Group:
        category = row["category"] or self._by_rate(row["rate"])
        return Group(
            category, row["rate"], self._signed(row["taxable_amount"]) or Decimal(0), self._signed(row["tax_amount"])
        )

    def _by_rate(self, rate: Decimal | None) -> str | None:
        if rate is None:
            return None
        return "S" if rate else self.defaults.zero_rate_category

    def _category(self, rate: Decimal | None) -> tuple[str | None, Decimal | None]:
        """Return category and rate of a line: the breakdown knows the category, and both where it has one row."""
        of_rate = {group.category for group in self._stated if group.rate == rate}
        if rate is None and len(self._stated) == 1:
            return self._stated[0].category, self._stated[0].rate
        return (of_rate.pop() if len(of_rate) == 1 else self._by_rate(rate)), rate


def _price(
    net: Decimal, quantity: Decimal | None, stated: Decimal | None
) -> tuple[Decimal, Decimal | None, Decimal | None]:
    """Return price (never negative), base quantity and quantity; a price that does not fit is one for the quantity."""
    if stated is not None and stated < 0 and quantity is not None:
        stated, quantity = stated.copy_negate(), quantity.copy_negate()
    fits = (
        stated is not None
        and stated >= 0
        and quantity is not None
        and cents(exact_product(stated, quantity)) == cents(net)
    )
    if fits and stated is not None:
        return stated, None, quantity
    if quantity and (quantity > 0) == (net >= 0):
        return abs(net), abs(quantity), quantity
    return abs(stated) if stated is not None else abs(net), None, quantity


def readable(text: str | None) -> str | None:
    """Return a text without the characters that XML cannot hold, or None when nothing is left to read."""
    found = _FORBIDDEN.sub("", text or "")
    return found if found.strip() else None


def cents(amount: Decimal) -> Decimal:
    """Return an amount with two decimals, which is all that EN 16931 lets amounts have."""
    return rounded_to(_CENT, amount)
