"""Written English as it is said: numbers, dates, money, units, symbols, addresses and abbreviations become words.

    "On May 3, 1999 Dr. Lee paid $2.50 for 3 kg."
    -> "On May third, nineteen ninety nine doctor Lee paid two dollars and fifty cents for three kilograms."

Words, punctuation and letter case stay. What is ambiguous is read in the commonest way: four digits from 1100 to 2099
that stand alone are a year, 3/4/2021 is in March, "St." is a saint before a name and a street behind one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from wavasr.language.numerals import cardinal, digits, number, ordinal, year

_MONTHS = ("January February March April May June July August September October November December").split()
_SHORT_MONTHS = {month[:3]: month for month in _MONTHS} | {"Sept": "September"}
_DAYS = {
    "Mon": "Monday", "Tue": "Tuesday", "Tues": "Tuesday", "Wed": "Wednesday", "Thu": "Thursday", "Thur": "Thursday",
    "Thurs": "Thursday", "Fri": "Friday", "Sat": "Saturday", "Sun": "Sunday",
}  # fmt: skip
_MONEY = {"$": ("dollar", "cent"), "£": ("pound", "penny"), "€": ("euro", "cent"), "¥": ("yen", "")}
_MONEY_SCALES = {"k": "thousand", "m": "million", "mn": "million", "b": "billion", "bn": "billion", "tn": "trillion"}
_PLURALS = {"penny": "pence", "foot": "feet", "inch": "inches", "yen": "yen"}
_UNITS = {
    "km": "kilometer", "m": "meter", "cm": "centimeter", "mm": "millimeter", "ft": "foot", "in": "inch", "mi": "mile",
    "kg": "kilogram", "g": "gram", "mg": "milligram", "lb": "pound", "lbs": "pound", "oz": "ounce", "l": "liter",
    "ml": "milliliter", "s": "second", "ms": "millisecond", "min": "minute", "h": "hour", "hr": "hour", "hz": "hertz",
    "khz": "kilohertz", "mhz": "megahertz", "ghz": "gigahertz", "kb": "kilobyte", "mb": "megabyte", "gb": "gigabyte",
    "tb": "terabyte", "w": "watt", "kw": "kilowatt", "v": "volt", "mph": "mile per hour", "kmh": "kilometer per hour",
    "km/h": "kilometer per hour", "m/s": "meter per second", "kb/s": "kilobyte per second",
    "mb/s": "megabyte per second", "gb/s": "gigabyte per second", "°c": "degree Celsius", "°f": "degree Fahrenheit",
    "°": "degree",
}  # fmt: skip
_TITLES = {  # their point ends no sentence
    "Mr.": "mister", "Mrs.": "missus", "Ms.": "miss", "Dr.": "doctor", "Prof.": "professor", "Rev.": "reverend",
    "Gen.": "general", "Col.": "colonel", "Capt.": "captain", "Lt.": "lieutenant", "Sgt.": "sergeant",
    "Gov.": "governor", "Sen.": "senator", "Rep.": "representative", "Hon.": "honorable", "Mt.": "mount", "Ft.": "fort",
    "Fig.": "figure", "Vol.": "volume", "Apt.": "apartment", "pp.": "pages", "e.g.": "for example", "i.e.": "that is",
    "vs.": "versus", "approx.": "approximately", "Mr": "mister", "Mrs": "missus", "Ms": "miss", "Dr": "doctor",
}  # fmt: skip
_ABBREVIATIONS = _TITLES | {
    "Jr.": "junior", "Sr.": "senior", "etc.": "et cetera", "Inc.": "incorporated", "Ltd.": "limited",
    "Corp.": "corporation", "Co.": "company", "Dept.": "department", "Ave.": "avenue", "Blvd.": "boulevard",
    "Rd.": "road", "Ph.D.": "P H D",
}  # fmt: skip
_SYMBOLS = {
    "&": " and ", "+": " plus ", "=": " equals ", "@": " at ", "%": " percent ", "#": " number ", "*": " ", "_": " ",
    "×": " times ", "÷": " divided by ", "<": " less than ", ">": " greater than ", "~": " about ",
    "^": " to the power of ", "§": " section ", "¢": " cents ",
}  # fmt: skip
_MARKS = {".": "dot", "/": "slash", "-": "dash", "_": "underscore", "?": "question mark", ":": "colon", "@": "at"}
_FRACTIONS = {"½": " one half", "¼": " one quarter", "¾": " three quarters", "⅓": " one third", "⅔": " two thirds"}
_QUOTES = str.maketrans(
    {"’": "'", "‘": "'", "“": '"', "”": '"', "″": '"', "′": "'", "–": "-", "—": " - ", "…": "...", "−": "-"}
    | {"\u00a0": " "}
)
_LONG_RUNS = re.compile(r"\S{200}(?=\S)")  # are cut: the time of some patterns grows with the square of their length
_NO_STREETS = ("Mount", "Port", "Fort", "Lake", "Sault")  # before a saint


def _either(names: Mapping[str, str]) -> str:
    return "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))


_MONTH = "|".join([*_MONTHS, *(rf"{short}\.?" for short in _SHORT_MONTHS)])
_DAY_OF_MONTH = r"(0?[1-9]|[12]\d|3[01])(?:st|nd|rd|th)?"
_SCALE = r"(?: (?P<scale>hundred|thousand|million|billion|trillion)\b|(?P<letters>(?i:k|mn?|bn?|tn))\b)?"
_NUMBER = r"\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|(?<![\w.])\.\d+"
_ARTICLE = r"(?P<article>\b[Aa]n? )?"
_AFTERNOON = r"(?: ?(?P<half>(?i:[ap]m\b|[ap]\. ?m\.))(?P<end>(?<=\.)(?=\s*$|\s+[A-Z]))?)?"
_PATH = r"(?:/[^\s<>\"]*\w)?/?"
_TOP_LEVEL = "com|org|net|edu|gov|io|info|co|uk|de|eu|app|dev"
_PHONE = r"\(\d{3}\) ?\d{3}-\d{4}\b|\b\d{3}[- ]\d{4}\b|\b\d{3}-\d{3}-\d{4}\b|\b\d{7,}(?=[^,.\d]|$)"
_OPENERS = "The|He|She|It|They|We|You|This|That|But|And|In|If|When|So"
_KINGS = "Henry|Louis|George|Edward|Charles|James|Richard|William|Elizabeth|Philip|Napoleon|Pius|Paul|Catherine"


def spoken(text: str) -> str:
    """A text as a reader would say it; texts without digits, symbols and abbreviations stay as they are."""
    text = _LONG_RUNS.sub(r"\g<0> ", text.translate(_QUOTES))
    for pattern, say in _RULES:
        text = pattern.sub(say, text)
    return re.sub(r" +([,.;:!?])", r"\1", re.sub(r"[ \t]+", " ", text)).strip()


def _plural(noun: str, count: str) -> str:
    if count == "1":
        return noun
    first, space, rest = noun.partition(" ")
    return _PLURALS.get(first, first if first.endswith("hertz") else f"{first}s") + space + rest


def _money(found: re.Match[str]) -> str:
    """As in "$2.50", "£3 million", "€5bn"; "a $20 bill" is "a twenty dollar bill"."""
    main, part = _MONEY[found["sign"]]
    amount, groups = found["amount"], found.groupdict()
    article = groups.get("article") or ""
    scale = groups.get("scale") or _MONEY_SCALES.get((groups.get("letters") or "").lower())
    if scale:
        return f"{article}{number(amount)} {scale} {_plural(main, '1' if article else '2')}"
    whole, _, cents = amount.replace(",", "").partition(".")
    if cents and (len(cents) != 2 or not part):
        return f"{article}{number(amount)} {_plural(main, amount)}"
    said = []
    if int(whole or 0) or not int(cents or 0):
        said.append(f"{number(whole or '0')} {_plural(main, '1' if article and not cents else whole)}")
    if int(cents or 0):
        said.append(f"{cardinal(int(cents))} {_plural(part, str(int(cents)))}")
    return article + " and ".join(said)


def _quantity(found: re.Match[str]) -> str:
    """As in "3 kg"; "5 in ten", "3M" and "5G" are left alone."""
    unit, article = found["unit"], found["article"] or ""
    if unit in ("M", "G", "H", "S") or (unit.lower() == "in" and found["gap"] and found["point"] is None):
        return found[0]
    return f"{article}{number(found['amount'])} {_plural(_UNITS[unit.lower()], '1' if article else found['amount'])}"


def _date(month: str, day: str, written_year: str | None) -> str:
    name = _SHORT_MONTHS.get(month.rstrip("."), month)
    return f"{name} {ordinal(int(day))}" + (f", {_year(written_year)}" if written_year else "")


def _year(written: str) -> str:
    """A year of four digits or two: 05 is "oh five"."""
    return year(int(written)) if len(written) == 4 else ("oh " if written < "10" else "") + cardinal(int(written))


def _iso_date(found: re.Match[str]) -> str:
    month, day = int(found["month"]), int(found["day"])
    if not (1 <= month <= 12 and 1 <= day <= 31):
        return digits(found[0])
    return _date(_MONTHS[month - 1], found["day"], found["year"]) + (" at " if found["time"] else "")


def _numeric_date(found: re.Match[str]) -> str:
    """3/4/2021, month first unless that can not be; 4.3.2021, day first. What is no date is left alone."""
    first, second = int(found[1]), int(found[3])
    month, day = (second, first) if found[2] == "." or first > 12 else (first, second)
    if not (1 <= month <= 12 and 1 <= day <= 31) or (found[2] == "." and len(found[4]) == 2):
        return found[0]
    return _date(_MONTHS[month - 1], str(day), found[4])


def _time(found: re.Match[str]) -> str:
    groups = found.groupdict()
    hour, minute, second = int(found["hour"]), int(groups.get("minute") or 0), groups.get("second")
    said = cardinal(hour)
    if minute:
        said += f" {'oh ' if minute < 10 else ''}{cardinal(minute)}"
    elif not found["half"]:
        said += " o'clock" if 1 <= hour <= 12 else " hundred"
    if second and int(second):
        said += f" and {cardinal(int(second))} {_plural('second', str(int(second)))}"
    if found["half"]:
        said += f" {found['half'][0].upper()} M"
    return said + ("." if found["end"] is not None else "")


def _decade(found: re.Match[str]) -> str:
    said = year(int(found[1])) if len(found[1]) == 4 else cardinal(int(found[1]))
    return f"{said[:-1]}ies" if said.endswith("y") else f"{said}s"


def _fraction(found: re.Match[str]) -> str:
    above, below = int(found[1]), int(found[2])
    if not 0 < above < below <= 100:
        return f"{cardinal(above)} over {cardinal(below)}"
    part = {2: "half", 4: "quarter"}.get(below, ordinal(below))
    return f"{cardinal(above)} {part if above == 1 else 'halves' if below == 2 else part + 's'}"


def _roman(numeral: str) -> int:
    values = {"I": 1, "V": 5, "X": 10, "L": 50}
    letters = [values[letter] for letter in numeral]
    return sum(-a if a < b else a for a, b in zip(letters, [*letters[1:], 0], strict=True))


def _looked_up(table: Mapping[str, str]) -> Callable[[re.Match[str]], str]:
    return lambda found: table[found[0]]


def _abbreviation(found: re.Match[str]) -> str:
    """The point of an abbreviation ends the sentence too where the text ends, or a new one begins."""
    ends = found["end"] is not None and found[1] not in _TITLES
    return _ABBREVIATIONS[found[1]] + ("." if ends else "")


def _saint_or_street(found: re.Match[str]) -> str:
    """A street behind a name, or where no name follows; behind a sentence's first word ("Visit St. Louis") a saint."""
    before = found["before"] or ""
    begins = bool(re.search(r"(^|(?<!\bSt)[.?!:])[\s\"'(]*$", found.string[: found.start()]))
    behind_name = before[:1].isupper() and not begins and before not in _NO_STREETS
    behind_ordinal = before[:1].isdecimal() and not before.isdecimal()
    if found["name"] is not None and not (behind_name or behind_ordinal):
        return f"{before} saint".strip()
    return f"{before} street" + ("" if found["name"] is found["end"] is None else ".")


def _initials(found: re.Match[str]) -> str:
    """U.S.A. letter by letter; the last point stays where the text ends."""
    return " ".join(found[1].replace(".", "")) + ("." if found["end"] is not None else "")


def _address(found: re.Match[str]) -> str:
    """A mail or web address with its marks in words."""
    return re.sub(r"[./_?:@-]", lambda mark: f" {_MARKS[mark[0]]} ", found["address"].rstrip("/"))


_Say = Callable[[re.Match[str]], str] | str
_PATTERNS: tuple[tuple[str, _Say], ...] = (
    # addresses
    (r"(?P<address>[\w.+-]*\w@[\w-]+(?:\.[\w-]+)+)", _address),
    (rf"\b(?:https?://(?:www\.)?|www\.)(?P<address>[\w-]+(?:\.[\w-]+)*(?::\d+)?{_PATH})", _address),
    (rf"(?<![\w./-])(?P<address>(?:[\w-]+\.)+(?:{_TOP_LEVEL})\b{_PATH})", _address),
    # abbreviations
    (r"(?:(?P<before>[\w']+) )?\bSt\.(?:(?P<name>(?= [A-Z]))|(?P<end>(?=\s*$)))?", _saint_or_street),
    (r"\b([A-Z][a-z]+) Dr\.(?= [a-z]|,|\s*$)", r"\1 drive"),
    (r"\bNo\. ?(?=\d)", "number "),
    (r"\bp\. ?(?=\d)", "page "),
    (rf"(?<![\w.])({_either(_ABBREVIATIONS)})(?!\w)(?P<end>(?=\s*$|\s+[A-Z\"]))?", _abbreviation),
    (rf"\b({_either(_DAYS)})\.? ?- ?({_either(_DAYS)})\b\.?", lambda f: f"{_DAYS[f[1]]} to {_DAYS[f[2]]}"),
    (rf"\b({_either(_DAYS)})\.?(?=,? (?:\d|{_MONTH}))", lambda f: _DAYS[f[1]]),
    (rf"(?<![\w.'])(?<!\d )((?:[A-HJ-Z]\. ?)+)(?=(?!(?:{_OPENERS})\b)[A-Z][a-z])", lambda f: f[1].replace(".", " ")),
    # what looks like a range or a sum and is none
    (r"(?<!\d)(?P<year>\d{4})([-/])(?P<month>\d\d)\2(?P<day>\d\d)(?!\d)(?P<time>T(?=\d))?", _iso_date),
    (r"(?<![\d/.])(\d{1,2})([/.])(\d{1,2})\2(\d{4}|\d\d)(?![\d/]|\.\d)", _numeric_date),
    (r"(?<![\d.])\d+(?:\.\d+){2,}(?!\d)", lambda f: " point ".join(cardinal(int(n)) for n in f[0].split("."))),
    (r"(?<=\+)\d[\d ()-]{6,}\d", lambda f: digits(f[0])),
    (_PHONE, lambda f: digits(f[0])),
    (r"\b([Rr]oom|[Ff]light|[Ee]xtension) (\d{3})\b", lambda f: f"{f[1]} {digits(f[2])}"),
    (r"\b911\b", "nine one one"),
    (r"\b(24/7|9/11|50/50|20/20)\b", lambda f: " ".join(cardinal(int(n)) for n in f[0].split("/"))),
    (r"\b(\d)'(\d{1,2})\"", r"\1 foot \2"),
    # ranges
    (rf"([$£€¥])({_NUMBER}) ?- ?(?=\d)", r"\2 to \1"),
    (rf"(?<=\d)((?i: ?[ap]\.?m\b\.?)?) ?- ?(?=[$£€¥]?\.?\d|(?:{_MONTH})\b)", r"\1 to "),
    (r"(?<![\w)])-(?=[$£€¥]?\.?\d)", "minus "),
    # dates and times
    (rf"\b({_MONTH}) {_DAY_OF_MONTH}(?:,? (\d{{4}}))?\b(?![:.,]\d)", lambda f: _date(f[1], f[2], f[3])),
    (
        rf"(?:\b([Tt]he) )?\b{_DAY_OF_MONTH} (?:of )?({_MONTH})(?:,? (\d{{4}}))?\b",
        lambda f: f"{f[1] or 'the'} {ordinal(int(f[2]))} of {_date(f[3], '1', f[4]).replace(' first', '', 1)}",
    ),
    (r"(?<![\w'])'(\d\d)(?![\w'])", lambda f: _year(f[1])),
    (rf"(?<![\d:.])(?P<hour>[01]?\d|2[0-4]):(?P<minute>[0-5]\d)(?::(?P<second>[0-5]\d)Z?)?{_AFTERNOON}(?!\d)", _time),
    (rf"\b(?P<hour>\d{{1,2}}){_AFTERNOON.removesuffix('?')}", _time),
    (r"'?\b(\d{2}|\d{3}0)s\b", _decade),
    # money and other quantities
    (rf"{_ARTICLE}(?P<sign>[$£€¥]) ?(?P<amount>{_NUMBER}|\.\d+){_SCALE}", _money),
    (rf"(?P<amount>{_NUMBER}) ?(?P<sign>[$£€¥])(?!\d)", _money),
    (r"\b(\d+(?:,\d{3})*)(?i:st|nd|rd|th)\b", lambda f: ordinal(int(f[1].replace(",", "")))),
    (r"(?<![\d,.])(\d{1,3}) (?=\d{1,2}/\d{1,2}(?![\d/]))", r"\1 and "),
    (rf"(?<=\d) ?(?=[{''.join(_FRACTIONS)}])", " and "),
    (r"(?<![\d/])(\d{1,3})/(\d{1,3})(?![\d/])", _fraction),
    (
        rf"{_ARTICLE}(?P<amount>{_NUMBER})(?P<gap> ?)"
        rf"(?P<unit>(?i:{_either(_UNITS)}))(?P<point>\.(?= +[a-z])|(?=\.\s*$))?(?![\w°])",
        _quantity,
    ),
    # letters
    (r"(?<![\w.])((?:[A-Za-z]\.){2,})(?!\w)(?P<end>(?=\s*$))?", _initials),
    (rf"\b({_KINGS}) (?!I\b)([IVX]+)\b", lambda f: f"{f[1]} the {ordinal(_roman(f[2]))}"),
    (
        r"\b([Cc]hapter|[Pp]art|[Bb]ook|[Aa]ct|[Vv]olume|[Ww]ar) ([IVXL]+)\b",
        lambda f: f"{f[1]} {cardinal(_roman(f[2]))}",
    ),
    (r"(?<=[A-Za-z]{2})\.(?=[a-z]{2})", " dot "),
    # what is left
    (r"(?<=\d)-(?=[A-Za-z])|(?<=[A-Za-z])-(?=\d)", " "),
    (r"(?<=\d) ?x ?(?=\d)", " by "),
    (r"(?<=\d)x\b", " times"),
    (r"(?<=\d) ?\* ?(?=\d)", " times "),
    (r"(?<=\d) ?/ ?(?=\d)", " slash "),
    (r"\bC#", "C sharp"),
    (r"#(?=[A-Za-z])", "hashtag "),
    (r"(?<![\d.,])(1[1-9]\d\d|20\d\d)(?![\d%]|[.,]\d)", lambda f: year(int(f[1]))),
    (_NUMBER, lambda f: f" {number(f[0])} "),
    (_either(_FRACTIONS), _looked_up(_FRACTIONS)),
    (_either(_SYMBOLS), _looked_up(_SYMBOLS)),
)
_RULES = tuple((re.compile(pattern), say) for pattern, say in _PATTERNS)
