"""Give the grammar library only numbers that it takes as they are meant.

The library holds every number of a schema as a 64-bit float and integers in 64 bits, its reader
of decimals is sometimes off by the last bit, and some of its exclusive bounds let the bound itself
pass. So bounds become inclusive, and one that would change is moved inwards to the next that
doesn't: a few numbers fewer, none that is wrong. A constant that would change is refused. Numbers
are compared as the decimals that JSON writes.
"""

import math
from collections.abc import Collection
from decimal import ROUND_CEILING, Context, Decimal
from fractions import Fraction
from typing import Any, Final

import msgspec

Number = int | float

_EXACT: Final = 2**53
"""Up to here floats hold every integer."""
_MOST: Final = 2**63 - 1024
"""The largest float that 64-bit integers hold."""
_WIDE: Final = 10**18
"""A bound beyond it needs one on the other side: the library overflows where it looks for it."""
_DIGITS: Final = 15
"""Decimals of so many digits come through any reader."""
_CEILING: Final = Context(prec=_DIGITS, rounding=ROUND_CEILING)
_NEXT_TO_ZERO: Final = Decimal("1e-50")
"""In the place of an excluded 0; what is nearer nests the library's patterns too deeply."""
_PRODUCT_END: Final = 2**32
"""The library multiplies two `multipleOf` in 32 bits and doesn't see an overflow."""


class NumberError(ValueError):
    """A number that can't be enforced: whose it is, and a clause that goes on after "expected"."""

    def __init__(self, keyword: str, expected: str) -> None:
        self.keyword = keyword
        super().__init__(expected)


def constant(value: Number, *, integers: bool) -> Number:
    """Write a number of an enum or a const.

    Args:
        value: as the schema has it.
        integers: whether it might have to be an integer besides, which ends at 64 bits.

    Raises:
        NumberError: another number would come out.
    """
    if abs(value) > 10**300:
        raise NumberError("", "numbers of at most 300 digits")
    held = float(value)
    if abs(value) <= _EXACT:
        if _as_read(held) != held:
            raise NumberError("", f"numbers of at most {_DIGITS} digits")
    elif abs(value) <= _MOST and (integers or isinstance(value, int)):
        if int(held) != _decimal(value):
            raise NumberError("", f"integers that a 64-bit float holds, as {int(held)}")
    elif integers or _decimal(held) != _decimal(value) or _as_read(held) != held:
        # without the limit to 64 bits, the library writes a float's digits and then noughts
        raise NumberError("", f"integers of at most {_DIGITS} digits before noughts")
    return held if abs(value) > _MOST else value


def _as_read(value: float) -> float:
    """Read a float's digits as serde_json does without its feature float_roundtrip."""
    decimal = _decimal(abs(value))
    exponent = _exponent(decimal)
    digits = decimal.as_tuple().digits
    read = float(int("".join(map(str, digits))))
    if exponent < -308:
        read, exponent = read / 1e308, exponent + 308
    read = read * float(f"1e{exponent}") if exponent >= 0 else read / float(f"1e{-exponent}")
    return math.copysign(read, value)


def bounds(schema: dict[str, Any], *, integers: bool) -> dict[str, Number]:
    """Write the bounds of a schema as `minimum` and `maximum`.

    Args:
        schema: its bounds are numbers, or in draft 4's way an exclusive one is a boolean.
        integers: whether no other numbers can come.

    Returns:
        Neither, one or both.

    Raises:
        NumberError: they lie beyond what can be enforced, or leave nothing between them that can.
    """
    # an upper bound is a lower one of the negated numbers
    low = _lower(schema, "minimum", "exclusiveMinimum", 1, integers=integers)
    high = _lower(schema, "maximum", "exclusiveMaximum", -1, integers=integers)
    nothing_between = low is not None and high is not None and low.excludes(high)
    try:
        return _moved(low, high)
    except NumberError:
        if nothing_between:  # as the schema has it; beside another type that may be meant
            return {"minimum": 1, "maximum": 0}
        raise


def _moved(low: "_Lower | None", high: "_Lower | None") -> dict[str, Number]:
    written: dict[str, Number] = {}
    if low is not None:
        written["minimum"] = low.moved()
    elif high is not None and high.value >= _WIDE:
        written["minimum"] = -_MOST
    if high is not None:
        written["maximum"] = -high.moved()
    elif low is not None and low.value >= _WIDE:
        written["maximum"] = _MOST
    possible = low is not None and high is not None and not low.excludes(high)
    if possible and written["minimum"] > written["maximum"]:
        limit = f"bounds with a number of at most {_DIGITS} digits between them"
        raise NumberError("minimum" if "minimum" in written else "maximum", limit)
    return written


class _Lower(msgspec.Struct, frozen=True, order=True):
    """A lower bound; of two, the greater one is stricter."""

    value: Decimal
    exclusive: bool
    keyword: str
    integer: bool = False

    def excludes(self, negated: "_Lower") -> bool:
        """Whether no number is between this one and an upper bound."""
        strict = self.exclusive or negated.exclusive
        upper = negated.value.copy_negate()
        return self.value > upper or (self.value == upper and strict)

    def moved(self) -> Number:
        """Give an inclusive bound, the same or a little above, that comes through unchanged.

        Raises:
            NumberError: there is none.
        """
        if self.value <= -_MOST:
            return -_MOST
        if self.value <= _EXACT and self.value >= -_EXACT:
            return self._moved_decimal()
        if self.value > _MOST:
            raise NumberError(self.keyword, "bounds between -2**63 and 2**63")
        number = float(self.value)
        # integers are written as they are, other numbers with a float's shortest digits
        while not self._allows(Decimal(int(number))) or not (
            self.integer or self._allows(Decimal(repr(number)))
        ):
            number = math.nextafter(number, math.inf)
        if number > _MOST:
            raise NumberError(self.keyword, "bounds between -2**63 and 2**63")
        return int(number)

    def _moved_decimal(self) -> Number:
        value = self.value
        if abs(value) < _NEXT_TO_ZERO:
            return float(_NEXT_TO_ZERO) if not self._allows(Decimal(0)) else 0
        long = len(value.as_tuple().digits) > _DIGITS or abs(_exponent(value)) > 22
        if self.exclusive or long:
            value = _CEILING.next_plus(value)
        return int(value) if value == value.to_integral_value() else float(value)

    def _allows(self, value: Decimal) -> bool:
        return value > self.value or (value == self.value and not self.exclusive)


def _lower(
    schema: dict[str, Any], keyword: str, exclusive_keyword: str, sign: int, *, integers: bool
) -> _Lower | None:
    """Find the stricter one of a schema's bounds on one side."""
    found: list[_Lower] = []
    value, exclusive = schema.get(keyword), schema.get(exclusive_keyword)
    if value is not None:
        found.append(_Lower(_decimal(value, sign), exclusive is True, keyword))
    if exclusive is not None and not isinstance(exclusive, bool):
        found.append(_Lower(_decimal(exclusive, sign), True, exclusive_keyword))
    bound = max(found, default=None)
    if bound is None or not integers:
        return bound
    least = math.floor(bound.value) + 1 if bound.exclusive else math.ceil(bound.value)
    return _Lower(Decimal(least), False, bound.keyword, integer=True)


def _decimal(value: Number, sign: int = 1) -> Decimal:
    decimal = Decimal(repr(value))
    return decimal if sign > 0 else decimal.copy_negate()  # a minus sign would round


def _exponent(value: Decimal) -> int:
    exponent = value.as_tuple().exponent
    assert isinstance(exponent, int), "JSON has no NaN and no infinity"
    return exponent


def check_multiples(values: Collection[Number]) -> None:
    """Check that multiples of all of `values` at once can be enforced.

    Raises:
        NumberError: their product overflows in the library.
    """
    fractions = [Fraction(repr(value)) for value in values]
    power = 10 ** max(max(0, -_exponent(_decimal(value))) for value in values)
    scaled = [int(value * power) for value in fractions]
    if math.lcm(*scaled) * max(scaled) >= _PRODUCT_END:
        raise NumberError("multipleOf", "factors with a smaller common multiple")
