"""Typed, frozen configurations: dataclasses that are checked when they are made, written in YAML and in model files.

Each room has its own in `config.py`; here is what they share.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from wavasr.errors import ConfigError

T = TypeVar("T")


SEEDS = f"[0, {2**32 - 1}]"
_LONGEST_KEY = 60  # of unknown keys and values in messages
_LARGEST = 1e15  # of a number; what is larger, or not a number, is damage


def require(condition: bool, message: str) -> None:
    """Raise a ConfigError with this message unless the condition holds."""
    if not condition:
        raise ConfigError(message)


def check(config: Any, prefix: str, **ranges: str) -> None:
    """Check the numbers of a dataclass, and the choices of its `Literal` fields.

    Args:
        config: the dataclass.
        prefix: stands before the names in messages: "optim."; with "--" they are spelled as options.
        **ranges: of fields, e.g. lr="(0, inf)", dropout="[0, 1)"; of a tuple each value is checked, None never.

    Raises:
        ConfigError: names the first value that is not as expected.
    """
    for name, hint in typing.get_type_hints(type(config)).items():
        if typing.get_origin(hint) is typing.Literal:
            value, choices = getattr(config, name), typing.get_args(hint)
            expected = ", ".join(map(str, choices))
            require(value in choices, f"{prefix}{name} is {value!r}; expected one of {expected}")
    for name, interval in ranges.items():
        value = getattr(config, name)
        numbers = value if isinstance(value, tuple) else () if value is None else (value,)
        inside = all(_is_in(interval, number) for number in numbers)
        label = prefix + (name.replace("_", "-") if prefix == "--" else name)
        require(inside, f"{label} is {value}; expected {_in_words(interval)}")


def _is_in(interval: str, value: float) -> bool:
    low, high = (float(end) for end in interval[1:-1].split(","))
    return low < value < high or (interval[0] == "[" and value == low) or (interval[-1] == "]" and value == high)


def _in_words(interval: str) -> str:
    low, high = interval[1:-1].split(", ")
    if interval == "(-inf, inf)":
        return "a finite number"
    if high == "inf":
        return f"{low} or more" if interval[0] == "[" else f"more than {low}"
    closed = interval[-1] == "]"
    if interval[0] == "(":
        return f"more than {low} and {'at most' if closed else 'below'} {high}"
    return f"{low} to {'' if closed else 'below '}{high}"


def from_dict(cls: type[T], values: dict[str, Any]) -> T:
    """Build a dataclass from JSON values (lists become tuples, dicts nested dataclasses).

    Raises:
        ConfigError: an unknown key, a key without value and default, or a value of another type.
    """
    hints = typing.get_type_hints(cls)
    unknown = set(values) - set(hints)
    named = [key if len(key) <= _LONGEST_KEY else f"{key[:_LONGEST_KEY]}..." for key in sorted(unknown)[:3]]
    require(not unknown, f"{cls.__name__} has no key {named}; known keys: {sorted(hints)}")
    try:
        return cls(**{key: _convert(hints[key], value, f"{cls.__name__}.{key}") for key, value in values.items()})
    except TypeError as error:
        raise ConfigError(f"{cls.__name__}: {error}") from error


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return None if value is None else _convert(next(h for h in inner if h is not type(None)), value, where)
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(_convert(inner[0], item, where) for item in value)
    if origin in (dict, Mapping) and isinstance(value, dict):
        return {key: _convert(inner[1], item, where) for key, item in value.items()}
    if dataclasses.is_dataclass(hint) and isinstance(value, dict):
        return from_dict(typing.cast(type, hint), value)
    if hint is Path and isinstance(value, str):
        return Path(value)
    kinds = (float, int) if hint is float else next((t for t in (hint, origin) if isinstance(t, type)), object)
    right = isinstance(value, kinds) and (hint is bool or not isinstance(value, bool))
    require(right and (hint is not float or abs(value) < _LARGEST), f"{where} is {str(value)[:_LONGEST_KEY]!r}")
    return value


def to_dict(config: Any) -> dict[str, Any]:
    """The dataclass as JSON-ready values (tuples become lists, paths strings)."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: plain(v) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [plain(v) for v in value]
        return value.as_posix() if isinstance(value, Path) else value

    return typing.cast(dict[str, Any], plain(dataclasses.asdict(config)))
