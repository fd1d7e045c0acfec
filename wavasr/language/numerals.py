"""Numbers in words: cardinals, ordinals, years, digits one by one."""

from __future__ import annotations

_ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
).split()
_TENS = "_ ten twenty thirty forty fifty sixty seventy eighty ninety".split()
_SCALES = ((10**12, "trillion"), (10**9, "billion"), (10**6, "million"), (1000, "thousand"), (100, "hundred"))
_LARGEST = 10**15  # from here on digits are read one by one
_ORDINALS = {"one": "first", "two": "second", "three": "third", "five": "fifth", "eight": "eighth", "nine": "ninth"}
_ORDINALS |= {"twelve": "twelfth"}


def cardinal(number: int) -> str:
    """205 as "two hundred five"."""
    if number < 0:
        return f"minus {cardinal(-number)}"
    if number >= _LARGEST:
        return digits(str(number))
    if number < 20:
        return _ONES[number]
    if number < 100:
        return f"{_TENS[number // 10]} {_ONES[number % 10]}" if number % 10 else _TENS[number // 10]
    size, name = next((size, name) for size, name in _SCALES if number >= size)
    rest = f" {cardinal(number % size)}" if number % size else ""
    return f"{cardinal(number // size)} {name}{rest}"


def ordinal(number: int) -> str:
    """23 as "twenty third"."""
    *before, last = cardinal(number).split()
    regular = f"{last[:-1]}ieth" if last.endswith("y") else f"{last}th"
    return " ".join([*before, _ORDINALS.get(last, regular)])


def year(number: int) -> str:
    """1905 as "nineteen oh five"."""
    century, rest = divmod(number, 100)
    if (century % 10 == 0 and rest < 10) or not 1100 <= number < 2100:
        return cardinal(number)
    if rest == 0:
        return f"{cardinal(century)} hundred"
    return f"{cardinal(century)} {'oh ' if rest < 10 else ''}{cardinal(rest)}"


def digits(text: str) -> str:
    """107 as "one oh seven": digits one by one, others left out."""
    return " ".join("oh" if digit == "0" else _ONES[int(digit)] for digit in text if digit.isdecimal())


def number(text: str) -> str:
    """A number as it is written, with thousands' commas and a decimal point: "one thousand point five"."""
    whole, _, decimals = text.replace(",", "").partition(".")
    if not whole or (len(whole) > 1 and whole.startswith("0")):
        said = digits(whole)
    else:
        said = cardinal(int(whole)) if len(whole) <= 15 else digits(whole)
    return f"{said} point {' '.join(_ONES[int(digit)] for digit in decimals)}".lstrip() if decimals else said
