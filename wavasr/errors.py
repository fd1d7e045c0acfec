"""What can go wrong because of an input, said in one line: what was found, what was expected, what to do.

The command line prints the message of a `WavasrError` and exits with code 2; every other exception is a bug.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

_HEAD, _TAIL = 400, 200  # characters of a message: most of a long path, and the remedy


def shortened(message: str) -> str:
    """A message without the middle of what is far too long in it, a path say."""
    return message if len(message) <= _HEAD + _TAIL else f"{message[:_HEAD]} ... {message[-_TAIL:]}"


def counted(number: int, noun: str) -> str:
    """A number of things: "1 word", "2,000 words"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


class WavasrError(Exception):
    """A mistake in an input. The message is one line that names the file or key and the remedy."""

    def __str__(self) -> str:
        return shortened(super().__str__())


class AudioError(WavasrError):
    """A recording that cannot be read or used."""


class ConfigError(WavasrError):
    """A configuration key or value that cannot be used."""


class CorpusError(WavasrError):
    """A corpus folder or manifest that is not as its layout says."""


class ModelError(WavasrError):
    """A model file that cannot be loaded."""


class TextError(WavasrError):
    """A transcript with symbols outside the inventory."""


@contextlib.contextmanager
def reading(path: object, what: str, remedy: str, failure: type[WavasrError]) -> Iterator[None]:
    """What goes wrong while a text file is read in here becomes one line.

    Args:
        path: the file, as messages name it.
        what: what it should be: "manifest".
        remedy: what to do where it is none, or cannot be read.
        failure: the error that is raised.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise failure(f"{path}: no such {what}; {remedy}") from error
    except IsADirectoryError as error:
        raise failure(f"{path}: is a folder; expected a {what}; {remedy}") from error
    except UnicodeDecodeError as error:
        raise failure(f"{path}: not UTF-8; convert it, e.g. `iconv -f latin1 -t utf-8`") from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        raise failure(f"{path}: cannot be read ({reason or error}); {remedy}") from error
