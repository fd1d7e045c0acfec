"""Written English as it is said: numbers, dates, times, money, units, symbols and abbreviations become words.

    "On May 3, 1999 Dr. Lee paid $2.50 for 3 kg."
    -> "On May third, nineteen ninety nine doctor Lee paid two dollars and fifty cents for three kilograms."

Words, punctuation and letter case stay. What is ambiguous is read in the commonest way: four digits from 1100 to 2099
that stand alone are a year, "St." before a name is a saint.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

_ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
).split()
_TENS = "_ ten twenty thirty forty fifty sixty seventy eighty ninety".split()
_SCALES = ((10**12, "trillion"), (10**9, "billion"), (10**6, "million"), (1000, "thousand"), (100, "hundred"))
_LARGEST = 10**15  # from here on digits are read one by one
_ORDINALS = {"one": "first", "two": "second", "three": "third", "five": "fifth", "eight": "eighth", "nine": "ninth"}
_ORDINALS |= {"twelve": "twelfth"}
_MONTHS = ("January February March April May June July August September October November December").split()
_SHORT_MONTHS = {month[:3]: month for month in _MONTHS} | {"Sept": "September"}
_MONEY = {"$": ("dollar", "cent"), "£": ("pound", "penny"), "€": ("euro", "cent"), "¥": ("yen", "")}
_PLURALS = {"penny": "pence", "foot": "feet", "inch": "inches", "yen": "yen", "hertz": "hertz"}
_UNITS = {
    "km": "kilometer", "m": "meter", "cm": "centimeter", "mm": "millimeter", "ft": "foot", "in": "inch", "mi": "mile",
    "kg": "kilogram", "g": "gram", "mg": "milligram", "lb": "pound", "lbs": "pound", "oz": "ounce", "l": "liter",
    "ml": "milliliter", "s": "second", "ms": "millisecond", "min": "minute", "h": "hour", "hr": "hour", "hz": "hertz",
    "khz": "kilohertz", "mhz": "megahertz", "ghz": "gigahertz", "kb": "kilobyte", "mb": "megabyte", "gb": "gigabyte",
    "tb": "terabyte", "w": "watt", "kw": "kilowatt", "v": "volt", "mph": "mile per hour", "kmh": "kilometer per hour",
    "km/h": "kilometer per hour", "°c": "degree Celsius", "°f": "degree Fahrenheit", "°": "degree",
}  # fmt: skip
_ABBREVIATIONS = {
    "Mr.": "mister", "Mrs.": "missus", "Ms.": "miss", "Dr.": "doctor", "Prof.": "professor", "Rev.": "reverend",
    "Gen.": "general", "Col.": "colonel", "Capt.": "captain", "Lt.": "lieutenant",
    "Sgt.": "sergeant", "Gov.": "governor", "Sen.": "senator", "Rep.": "representative",
    "Hon.": "honorable", "Jr.": "junior", "Sr.": "senior",
    "etc.": "et cetera",
    "e.g.": "for example", "i.e.": "that is", "vs.": "versus", "approx.": "approximately", "Inc.": "incorporated",
    "Ltd.": "limited", "Corp.": "corporation", "Co.": "company", "Ave.": "avenue", "Blvd.": "boulevard", "Rd.": "road",
    "Mt.": "mount", "Ft.": "fort", "Fig.": "figure", "Vol.": "volume", "pp.": "pages", "Mr": "mister", "Mrs": "missus",
    "Ms": "miss", "Dr": "doctor",
}  # fmt: skip
_SYMBOLS = {
    "&": " and ",
    "+": " plus ",
    "=": " equals ",
    "@": " at ",
    "%": " percent ",
    "#": " number ",
    "*": " ",
    "_": " ",
}
_SYMBOLS |= {"×": " times ", "÷": " divided by ", "<": " less than ", ">": " greater than ", "~": " about ", "^": " "}
_FRACTIONS = {"½": " one half", "¼": " one quarter", "¾": " three quarters", "⅓": " one third", "⅔": " two thirds"}
_QUOTES = str.maketrans(
    {"’": "'", "‘": "'", "“": '"', "”": '"', "–": "-", "—": " - ", "…": "...", "−": "-", "\u00a0": " "}
)
_MONTH_NAMES = "|".join([*_MONTHS, *(rf"{short}\.?" for short in _SHORT_MONTHS)])
_UNIT_NAMES = "|".join(re.escape(unit) for unit in sorted(_UNITS, key=len, reverse=True))
_SCALE_NAMES = "hundred|thousand|million|billion|trillion"
_NUMBER = r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?"


def spoken(text: str) -> str:
    """A text as a reader would say it; texts without digits, symbols and abbreviations stay as they are."""
    text = text.translate(_QUOTES)
    for pattern, say in _RULES:
        text = pattern.sub(say, text)
    return re.sub(r" +([,.;:!?])", r"\1", re.sub(r"[ \t]+", " ", text)).strip()


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
    if len(whole) > 1 and whole.startswith("0"):
        said = digits(whole)
    else:
        said = cardinal(int(whole)) if len(whole) <= 15 else digits(whole)
    return f"{said} point {' '.join(_ONES[int(digit)] for digit in decimals)}" if decimals else said


def _plural(noun: str, count: str) -> str:
    if count == "1":
        return noun
    first, space, rest = noun.partition(" ")
    return _PLURALS.get(first, f"{first}s") + space + rest


def _money(found: re.Match[str]) -> str:
    main, part = _MONEY[found["sign"]]
    amount = found["amount"]
    if found["scale"]:
        return f"{number(amount)} {found['scale']} {_plural(main, '2')}"
    whole, _, cents = amount.replace(",", "").partition(".")
    if len(cents) != 2 or not part:
        return f"{number(amount)} {_plural(main, amount)}"
    said = [f"{number(whole)} {_plural(main, whole)}"] if int(whole) or not int(cents) else []
    if int(cents):
        said.append(f"{cardinal(int(cents))} {_plural(part, str(int(cents)))}")
    return " and ".join(said)


def _date(month: str, day: str, written_year: str | None) -> str:
    name = _SHORT_MONTHS.get(month.rstrip("."), month)
    return f"{name} {ordinal(int(day))}" + (f", {year(int(written_year))}" if written_year else "")


def _iso_date(found: re.Match[str]) -> str:
    month, day = int(found["month"]), int(found["day"])
    if not (1 <= month <= 12 and 1 <= day <= 31):
        return digits(found[0])
    return _date(_MONTHS[month - 1], found["day"], found["year"])


def _time(found: re.Match[str]) -> str:
    hour, minute = int(found["hour"]), int(found["minute"])
    said = cardinal(hour)
    if minute:
        said += f" {'oh ' if minute < 10 else ''}{cardinal(minute)}"
    elif not found["half"]:
        said += " o'clock" if 1 <= hour <= 12 else " hundred"
    return said + _half_of_day(found["half"])


def _half_of_day(half: str | None) -> str:
    return f" {half[0].upper()} M" if half else ""


def _decade(found: re.Match[str]) -> str:
    said = year(int(found[1])) if len(found[1]) == 4 else cardinal(int(found[1]))
    return f"{said[:-1]}ies" if said.endswith("y") else f"{said}s"


def _fraction(found: re.Match[str]) -> str:
    above, below = int(found[1]), int(found[2])
    if not 0 < above < below <= 100:
        return f"{cardinal(above)} over {cardinal(below)}"
    part = {2: "half", 4: "quarter"}.get(below, ordinal(below))
    return f"{cardinal(above)} {part if above == 1 else 'halves' if below == 2 else part + 's'}"


def _roman(found: re.Match[str]) -> str:
    values = {"I": 1, "V": 5, "X": 10, "L": 50}
    letters = [values[letter] for letter in found["roman"]]
    pairs = zip(letters, [*letters[1:], 0], strict=True)
    return f"{found['before']} {cardinal(sum(-a if a < b else a for a, b in pairs))}"


def _looked_up(table: Mapping[str, str]) -> Callable[[re.Match[str]], str]:
    return lambda found: table[found[0]]


def _abbreviation(found: re.Match[str]) -> str:
    """The point of an abbreviation ends the sentence too where the text ends, or a new one begins."""
    ends = found["end"] is not None and found[1] not in (
        "Mr.",
        "Mrs.",
        "Ms.",
        "Dr.",
        "Prof.",
        "Rev.",
        "Gen.",
        "Mt.",
        "Ft.",
    )
    return _ABBREVIATIONS[found[1]] + ("." if ends and found[1].endswith(".") else "")


_ABBREVIATED = "|".join(re.escape(name) for name in sorted(_ABBREVIATIONS, key=len, reverse=True))
_RULES: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], str] | str], ...] = (
    (re.compile(r"https?://|www\."), ""),
    (re.compile(r"\bSt\.(?= [A-Z])"), "saint"),
    (re.compile(r"\bNo\. ?(?=\d)"), "number "),
    (re.compile(rf"(?<![\w.])({_ABBREVIATED})(?!\w)(?P<end>(?=\s*$|\s+[A-Z\"]))?"), _abbreviation),
    (re.compile(r"\b(?P<year>\d{4})-(?P<month>\d\d)-(?P<day>\d\d)\b"), _iso_date),
    (
        re.compile(rf"\b({_MONTH_NAMES}) (\d{{1,2}})(?:st|nd|rd|th)?(?:,? (\d{{4}}))?\b(?![:.,]\d)"),
        lambda found: _date(found[1], found[2], found[3]),
    ),
    (
        re.compile(rf"\b(\d{{1,2}})(?:st|nd|rd|th)? (?:of )?({_MONTH_NAMES})(?:,? (\d{{4}}))?\b"),
        lambda found: f"the {ordinal(int(found[1]))} of {_date(found[2], '1', found[3]).replace(' first', '', 1)}",
    ),
    (re.compile(rf"(?P<sign>[$£€¥]) ?(?P<amount>{_NUMBER})(?: (?P<scale>{_SCALE_NAMES})\b)?"), _money),
    (
        re.compile(r"\b(?P<hour>[01]?\d|2[0-4]):(?P<minute>[0-5]\d)(?: ?(?P<half>[ap]\.?m\b\.?))?", re.IGNORECASE),
        _time,
    ),
    (
        re.compile(r"\b(\d{1,2}) ?([ap]\.?m\b\.?)", re.IGNORECASE),
        lambda found: cardinal(int(found[1])) + _half_of_day(found[2]),
    ),
    (re.compile(r"'?\b(\d{2}|\d{3}0)s\b"), _decade),
    (re.compile(r"\b(\d+)(?:st|nd|rd|th)\b", re.IGNORECASE), lambda found: ordinal(int(found[1]))),
    (re.compile(r"(?<![\d/])(\d{1,3})/(\d{1,3})(?![\d/])"), _fraction),
    (re.compile(r"\b\d{3}[- ]\d{4}\b|\b\d{3}-\d{3}-\d{4}\b|\b\d{7,}(?=[^,.\d]|$)"), lambda found: digits(found[0])),
    (re.compile(rf"(?<=\d) ?- ?(?=(?:{_NUMBER})\b)"), " to "),
    (re.compile(r"(?<![\w)])-(?=\d)"), "minus "),
    (re.compile(r"(?<=\d)-(?=[A-Za-z])"), " "),
    (
        re.compile(rf"({_NUMBER}) ?({_UNIT_NAMES})(?![\w°])", re.IGNORECASE),
        lambda found: f"{number(found[1])} {_plural(_UNITS[found[2].lower()], found[1])}",
    ),
    (re.compile(r"(?<![\d.,])(1[1-9]\d\d|20\d\d)(?![\d%]|[.,]\d)"), lambda found: year(int(found[1]))),
    (re.compile(_NUMBER), lambda found: f" {number(found[0])} "),
    (re.compile(r"(?P<before>\b(?:[Cc]hapter|[Pp]art|[Bb]ook|[Aa]ct|[Vv]olume|[Ww]ar)) (?P<roman>[IVXL]+)\b"), _roman),
    (re.compile("|".join(map(re.escape, _FRACTIONS))), _looked_up(_FRACTIONS)),
    (re.compile("|".join(map(re.escape, _SYMBOLS))), _looked_up(_SYMBOLS)),
)
