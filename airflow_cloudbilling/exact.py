"""Exact decimals: arithmetic that refuses to round, and the one text form in which amounts are kept."""

from __future__ import annotations

from contextlib import AbstractContextManager
from decimal import ROUND_HALF_UP, Context, Decimal, DivisionByZero, Inexact, InvalidOperation, Overflow, localcontext

INTEGER_DIGITS = 26  # NUMERIC(38,12), the narrowest of the supported databases
DECIMALS = 12

_EXACT = Context(prec=200, traps=[Inexact, InvalidOperation, DivisionByZero, Overflow])
_ROUNDING = Context(prec=200, rounding=ROUND_HALF_UP)


def exactly() -> AbstractContextManager[Context]:
    """Let operators on decimals in a ``with`` block be exact, which is quicker for very many; they never round.

    What needs more than 200 digits raises ``decimal.Inexact``.
    """
    return localcontext(_EXACT)


def exact_sum(*amounts: Decimal) -> Decimal:
    """Return the sum, to the last digit.

    :raises decimal.Inexact: when 200 digits do not hold it; it is never rounded.
    """
    total = Decimal(0)
    for amount in amounts:
        total = _EXACT.add(total, amount)
    return total


def exact_difference(one: Decimal, other: Decimal) -> Decimal:
    """Return the first less the second, to the last digit; a minus sign would round to 28.

    :raises decimal.Inexact: when 200 digits do not hold it; it is never rounded.
    """
    return exact_sum(one, other.copy_negate())


def exact_product(one: Decimal, other: Decimal) -> Decimal:
    """Return the product, to the last digit.

    :raises decimal.Inexact: when 200 digits do not hold it; it is never rounded.
    """
    return _EXACT.multiply(one, other)


def rounded_to(step: Decimal, amount: Decimal) -> Decimal:
    """Return an amount with the decimals of a step such as 0.01, halves away from zero as EN 16931 has it."""
    return amount.quantize(step, context=_ROUNDING)


def canonical(amount: Decimal) -> str:
    """Return the decimal text without exponent, trailing zeros or negative zero.

    :raises ValueError: for NaN, infinities, more than 26 digits before or 12 after the point.
    """
    if not amount.is_finite():
        raise ValueError(f"{amount} is not a number")
    if not amount:
        return "0"
    if amount.adjusted() >= INTEGER_DIGITS:
        raise ValueError(f"more than {INTEGER_DIGITS} digits before the point")
    if amount.adjusted() < -DECIMALS:
        raise ValueError(f"more than {DECIMALS} decimals")
    text = format(amount, "f")
    text = text.rstrip("0").rstrip(".") if "." in text else text
    if len(text.partition(".")[2]) > DECIMALS:
        raise ValueError(f"more than {DECIMALS} decimals")
    return text
