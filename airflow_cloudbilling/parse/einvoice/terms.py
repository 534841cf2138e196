"""EN 16931 business terms in XML: where each stands in a syntax, and reading them with errors that name them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, NamedTuple

from airflow_cloudbilling.errors import RecordError
from airflow_cloudbilling.exact import DECIMALS, canonical, exact_sum
from airflow_cloudbilling.parse.values import Unreadable, amount, column, day, shown

if TYPE_CHECKING:
    from lxml.etree import _Element as Element

# EN 16931 code list for BT-3 (UNTDID 1001): those that credit.
CREDIT_NOTES = frozenset({"81", "83", "261", "262", "296", "308", "381", "396", "420", "458", "502", "503", "532"})
Said = Sequence["str | None"]  # by an element, at each place where terms may stand
_PREFIX = re.compile(r"(\w+):(?=\w)")


class Term(NamedTuple):
    """One value.

    :param name: of the model, or a helper's.
    :param number: EN 16931's, for messages.
    :param read: from text to canonical text.
    :param paths: where it may stand, best first, as lxml's ``find`` has them; ``/@name`` at the end is an attribute.
    """

    name: str
    number: str
    read: Callable[[str | None], str | None]
    paths: tuple[str, ...]


class Allowances(NamedTuple):
    """Where a line's allowances and charges stand, and in each its indicator and its amount."""

    each: str
    indicator: str
    amount: str


def expander(namespaces: Mapping[str, str]) -> Callable[[str], str]:
    """Return a function that writes a path's prefixes out, which is how lxml finds fastest."""
    return lambda path: _PREFIX.sub(lambda match: f"{{{namespaces[match[1]]}}}", path)


class _Place(NamedTuple):
    """Where a term may stand.

    :param term: its number among the terms.
    :param slot: of the element that a walk finds by the path, or by as much of it as comes before a condition.
    :param rest: the whole path, where it has a condition.
    """

    term: int
    slot: int
    rest: str
    attribute: str


class _Step(NamedTuple):
    """What a walk does with the children of one tag: -1 finds nothing here."""

    slot: int
    below: dict[str, _Step]


class Terms:
    """Reads some terms of one kind of element.

    One walk over each element finds what they say: lxml's ``find`` for each path takes four times as long. What many
    elements say is then read term by term.

    :param terms: what is read.
    """

    def __init__(self, *terms: Term) -> None:
        self.terms = terms
        self._steps: dict[str, _Step] = {}
        self._slots = 0
        self._places = [self._place(number, path) for number, term in enumerate(terms) for path in term.paths]

    def values(self, element: Element) -> dict[str, str | None]:
        """Return all terms of one element by name; parameters and errors as of :meth:`columns`."""
        columns = self.columns([self.said(element)])
        return {name: value for name, (value,) in columns.items()}

    def said(self, element: Element) -> Said:
        """Return what an element says at each of the terms' places.

        :raises RecordError: for a day that is not written as EN 16931 has it.
        """
        found: list[Element | None] = [None] * self._slots
        _walk(element, self._steps, found)
        said: list[str | None] = []
        for number, slot, rest, attribute in self._places:
            at = found[slot]
            if at is not None and rest:
                at = element.find(rest)
            said.append(None if at is None else at.get(attribute) if attribute else _text(at, self.terms[number]))
        return said

    def columns(self, said: Sequence[Said]) -> dict[str, list[str | None]]:
        """Return by name what each term says in each element, at the first of its places that says anything.

        :raises RecordError: when one cannot be read.
        """
        columns: dict[str, list[str | None]] = {}
        for place, texts in zip(self._places, zip(*said, strict=True), strict=True):
            term = self.terms[place.term]
            known = columns.get(term.name)
            try:
                if known is None:
                    columns[term.name] = list(column(term.read, texts))
                elif None in known:
                    pairs = zip(known, texts, strict=True)
                    columns[term.name] = [term.read(text) if value is None else value for value, text in pairs]
            except Unreadable as error:
                raise RecordError(f"{term.number} ({term.name}): {error}") from None
        return columns

    def _place(self, term: int, path: str) -> _Place:
        path, _, attribute = path.partition("/@")
        plain, condition, _ = path.partition("[")
        return _Place(term, self.slot(plain), path if condition else "", attribute)

    def slot(self, path: str) -> int:
        """Return the slot of the element at the end of a path, a new one where no term has asked for it."""
        steps, tags = self._steps, path.split("/")
        for tag in tags[:-1]:
            steps = steps.setdefault(tag, _Step(-1, {})).below
        last = steps.get(tags[-1], _Step(-1, {}))
        if last.slot < 0:
            last = steps[tags[-1]] = last._replace(slot=self._slots)
            self._slots += 1
        return last.slot


def _walk(element: Element, steps: dict[str, _Step], found: list[Element | None]) -> None:
    """Put the first element at each path into its slot."""
    for child in element:
        step = steps.get(child.tag)
        if step is not None:
            slot, below = step
            if slot >= 0 and found[slot] is None:
                found[slot] = child
            if below:
                _walk(child, below, found)


class Syntax(NamedTuple):
    """One of EN 16931's two syntaxes.

    :param line: the line's element.
    :param within: path from the root to the element that holds the lines, empty for the root itself.
    :param head: the invoice's terms; of those that are amounts (``money``) only those in its currency count.
    :param lines: a line's terms.
    :param breakdown: path to the rows of the VAT breakdown (BG-23), whose terms are ``taxes``.
    """

    line: str
    within: str
    head: Terms
    money: tuple[Term, ...]
    lines: Terms
    allowances: Allowances
    breakdown: str
    taxes: Terms


def _text(element: Element, term: Term) -> str | None:
    # CII says how a day is written; EN 16931 knows 102 (CCYYMMDD) alone.
    if term.read is day and element.get("format", "102") != "102":
        raise RecordError(
            f"{term.number} ({term.name}): expected a day as CCYYMMDD (format 102), came {shown(element.text)} in"
            f" format {shown(element.get('format'))}"
        )
    return element.text


def _read(text: str | None, term: Term) -> str | None:
    try:
        return term.read(text)
    except Unreadable as error:
        raise RecordError(f"{term.number} ({term.name}): {error}") from None


def money(root: Element, term: Term, currency: str) -> str | None:
    """Return an amount that may be stated in several currencies (BT-110 and BT-111 are), in the invoice's.

    :raises RecordError: when it is stated twice, cannot be read, or (but for taxes) in another currency alone.
    """
    stated = [element for path in term.paths for element in root.iterfind(path)]
    own = [element for element in stated if element.get("currencyID", currency) == currency]
    if len(own) > 1:
        raise RecordError(f"{term.number} ({term.name}): expected one amount in {currency}, came {len(own)}")
    if stated and not own and term.name != "tax_amount":
        came = shown(stated[0].get("currencyID"))
        raise RecordError(f"{term.number} ({term.name}): expected an amount in {currency} (BT-5), came one in {came}")
    return _read(own[0].text, term) if own else None


def discount(line: Element, where: Allowances) -> str | None:
    """Return a line's allowances (BT-136) less its charges (BT-141).

    So quantity times unit price less the discount is the line's net amount.
    """
    parts = list(_signed(line, where))
    return canonical(exact_sum(*parts)) if parts else None


def _signed(line: Element, where: Allowances) -> Iterator[Decimal]:
    for each in line.iterfind(where.each):
        said = (each.findtext(where.indicator) or "").strip().lower()
        if said not in ("true", "false", "1", "0"):
            raise RecordError(f"BG-27 (allowance or charge): expected the indicator true or false, came {shown(said)}")
        charge = said in ("true", "1")
        number = "BT-141" if charge else "BT-136"
        found = Decimal(_read(each.findtext(where.amount), Term("amount", number, amount, ())) or 0)
        yield found.copy_negate() if charge else found  # -found would round to 28 digits


def unit_price(price: str | None, base: str | None, *, same_unit: bool) -> str | None:
    """Return the price of one unit, from the price (BT-146) of a base quantity (BT-149).

    :return: ``None`` where no decimal says it exactly (10 for 3), or where the base is in another unit than the
        quantity: the line's net amount holds all the same, and a price of three would be read as the price of one.
    :raises RecordError: for a base of nothing or less.
    """
    if price is None or (base in (None, "1") and same_unit):
        return price
    base = base or "1"
    if Fraction(base) <= 0:
        raise RecordError(f"BT-149 (base quantity): expected more than 0, came {shown(base)}")
    each = Fraction(price) / Fraction(base) * 10**DECIMALS
    if not same_unit or each.denominator != 1:
        return None
    try:
        return canonical(Decimal(f"{each.numerator}e-{DECIMALS}"))
    except ValueError:
        return None
