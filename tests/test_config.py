"""The checks that all configurations share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pytest

from wavasr.config import check, from_dict
from wavasr.errors import ConfigError


@dataclass(frozen=True)
class Sample:
    share: float | tuple[float, ...] = 0.5
    kind: Literal["a", "b"] = "a"


@pytest.mark.parametrize(
    ("interval", "good", "bad", "words"),
    [
        ("[0, inf)", 0, -0.1, "0 or more"),
        ("(0, inf)", 1e9, 0, "more than 0"),
        ("[0, 1]", 1, 1.1, "0 to 1"),
        ("[0, 1)", 0, 1, "0 to below 1"),
        ("(0, 1)", 0.1, 1, "more than 0 and below 1"),
        ("(0, 1]", 1, 0, "more than 0 and at most 1"),
        ("[0, 1)", (0, 0.9), (0.9, 1), "0 to below 1"),
        ("(0, inf)", 3, float("inf"), "more than 0"),
        ("[0, inf)", 3, float("nan"), "0 or more"),
        ("(-inf, inf)", -3, float("inf"), "a finite number"),
    ],
)
def test_numbers_outside_their_interval_are_named(
    interval: str, good: float | tuple[float, ...], bad: float | tuple[float, ...], words: str
) -> None:
    check(Sample(good), "x.", share=interval)
    with pytest.raises(ConfigError) as caught:
        check(Sample(bad), "x.", share=interval)
    assert str(caught.value) == f"x.share is {bad}; expected {words}"


def test_choices_are_those_of_the_type() -> None:
    check(Sample(kind="b"), "x.")
    with pytest.raises(ConfigError, match=r"x\.kind is 'c'; expected one of a, b"):
        check(Sample(kind="c"), "x.")  # type: ignore[arg-type]


@dataclass(frozen=True)
class Stored:
    number: float = 0.0
    count: int = 0
    shares: tuple[float, ...] = ()
    named: dict[str, int] | None = None


@pytest.mark.parametrize(
    "values",
    [
        {"number": "1"},
        {"number": float("nan")},
        {"number": 10**400},
        {"count": 1.5},
        {"count": True},
        {"shares": "12"},
        {"shares": [1, "2"]},
        {"named": {"a": None}},
        {"named": [1]},
    ],
)
def test_stored_values_of_another_type_are_named(values: dict[str, object]) -> None:
    assert from_dict(Stored, {"number": 1, "shares": [1, 2.5], "named": {"a": 1}}) == Stored(1, 0, (1, 2.5), {"a": 1})
    [name] = values
    with pytest.raises(ConfigError, match=rf"^Stored\.{name} is '"):
        from_dict(Stored, values)
