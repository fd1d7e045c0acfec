"""Written English as it is said."""

from __future__ import annotations

import pytest

from wavasr.language.numerals import cardinal, ordinal, year
from wavasr.language.spoken import spoken


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("The old man walked slowly.", "The old man walked slowly."),
        ("it's, well... \"so\"!", "it's, well... \"so\"!"),
        ("I have 3 cats and 21 dogs.", "I have three cats and twenty one dogs."),
        ("1,234,567 people", "one million two hundred thirty four thousand five hundred sixty seven people"),
        ("pi is 3.14159", "pi is three point one four one five nine"),
        ("It was -5 outside, not 10-20.", "It was minus five outside, not ten to twenty."),
        ("In 1999, 2005, 1905, 1900 and 2024.", "In nineteen ninety nine, two thousand five, nineteen oh five, "
         "nineteen hundred and twenty twenty four."),
        ("the 1990s and the 20s", "the nineteen nineties and the twenties"),
        ("the 23rd, the 1st, the 112th", "the twenty third, the first, the one hundred twelfth"),
        ("On May 3, 1999 we met.", "On May third, nineteen ninety nine we met."),
        ("on 14 March", "on the fourteenth of March"),
        ("Sept. 11, 2001", "September eleventh, two thousand one"),
        ("2026-11-27", "November twenty seventh, twenty twenty six"),
        ("$2.50, $1, £0.01, $5 million, €3.5", "two dollars and fifty cents, one dollar, one penny, "
         "five million dollars, three point five euros"),
        ("at 10:30, 9:05 and 5:00", "at ten thirty, nine oh five and five o'clock"),
        ("at 7:15 p.m. or 8 am", "at seven fifteen P M or eight A M"),
        ("Dr. Smith and Mrs. Jones", "doctor Smith and missus Jones"),
        ("St. Mary, No. 5, e.g. this, etc.", "saint Mary, number five, for example this, et cetera."),
        ("5 km, 1 kg, 60 mph, 20°C, 6 ft", "five kilometers, one kilogram, sixty miles per hour, "
         "twenty degrees Celsius, six feet"),
        ("50% of 1/2 and 3/4", "fifty percent of one half and three quarters"),
        ("call 555-1234 now", "call five five five one two three four now"),
        ("agent 007", "agent oh oh seven"),
        ("R&D costs + tax = a lot", "R and D costs plus tax equals a lot"),
        ("Chapter IV of World War II", "Chapter four of World War two"),
        ("Mr. O'Neill paid $3.50 on 3/4/2021 at 5:30pm.", "mister O'Neill paid three dollars and fifty cents on "
         "March fourth, twenty twenty one at five thirty P M."),
        ("at 5:30 p.m. He left at 5 p.m. on Sat. 5 Jan", "at five thirty P M. He left at five P M on "
         "Saturday the fifth of January"),
        ("the 4th of July, 12/25/2020, 31.12.20, 25/12/99", "the fourth of July, December twenty fifth, twenty twenty, "
         "thirty one point twelve point twenty, December twenty fifth, ninety nine"),
        ("at 12 St. John's St. now. Visit St. Louis. On Main St. we", "at twelve saint John's street now. "
         "Visit saint Louis. On Main street we"),
        ("Dr. Lee of Oak Dr. knows 1st Lt. Jones Jr.", "doctor Lee of Oak drive knows first lieutenant Jones junior."),
        ("a.smith@example.com, https://www.example.org/a-b/1.html, example.co.uk.", "a dot smith at example dot com, "
         "example dot org slash a dash b slash one dot html, example dot co dot uk."),
        ("a $20 bill, $20-30, $5-$10, 5 €, 50¢, $.50, £1m, -$5", "a twenty dollar bill, twenty to thirty dollars, "
         "five dollars to ten dollars, five euros, fifty cents, fifty cents, one million pounds, minus five dollars"),
        ("5 in 10 are 3 ft. long, 5 in. by 3 in.", "five in ten are three feet long, five inches by three inches."),
        ("3 1/2, 1½, 24/7, 5'11\" and 3.5GHz, 5G, 10MB/s", "three and one half, one and one half, twenty four seven, "
         "five foot eleven and three point five gigahertz, five G, ten megabytes per second"),
        ("U.S. Army, the U.S.A.", "U S Army, the U S A."),
        ("J. K. Rowling, John F. Kennedy, plan B. It", "J K Rowling, John F Kennedy, plan B. It"),
        ("Version 2.0.1, .5, 1,001st, C#, 2 x 4, 10x, 3 * 4", "Version two point zero point one, point five, "
         "one thousand first, C sharp, two by four, ten times, three times four"),
        ("9am-5pm, 10 a.m.-5 p.m., Mon-Fri, June '21, COVID-19", "nine A M to five P M, ten A M to five P M, "
         "Monday to Friday, June twenty one, COVID nineteen"),
        ("+44 20 7946 0958, (555) 123-4567, Room 101", "plus four four two oh seven nine four six oh nine five eight, "
         "five five five one two three four five six seven, Room one oh one"),
        ("1990-01-01T10:00:05Z", "January first, nineteen ninety at ten o'clock and five seconds"),
        ("Henry VIII said: readme.txt", "Henry the eighth said: readme dot txt"),
        ("a 12-year-old", "a twelve year-old"),
        ("", ""),
    ],
)  # fmt: skip
def test_texts(written: str, said: str) -> None:
    assert spoken(written) == said


def test_numbers() -> None:
    assert cardinal(0) == "zero"
    assert cardinal(1_000_001) == "one million one"
    assert cardinal(10**15) == "one oh oh oh oh oh oh oh oh oh oh oh oh oh oh oh"
    assert cardinal(-115) == "minus one hundred fifteen"
    assert [ordinal(n) for n in (2, 5, 8, 9, 12, 20, 40, 100)] == (
        ["second", "fifth", "eighth", "ninth", "twelfth", "twentieth", "fortieth", "one hundredth"]
    )
    assert [year(n) for n in (2000, 2010, 1800, 1066)] == (
        ["two thousand", "twenty ten", "eighteen hundred", "one thousand sixty six"]
    )


def test_no_digit_is_left() -> None:
    for text in ("99 1/3 %", "0.5mg", "12:99", "1/0", "007-4", "A1B2", "3x4", "1.2.3.4", "2026-13-45", "9" * 40, "½"):
        assert not any(character.isdecimal() for character in spoken(text)), spoken(text)
