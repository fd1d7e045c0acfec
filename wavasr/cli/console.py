"""Standard error and standard output: messages of one line, exit codes, suggestions."""

from __future__ import annotations

import _thread
import contextlib
import difflib
import errno
import gc
import io
import logging
import os
import sys
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO, cast

from wavasr.errors import shortened
from wavasr.files import NamedSink, is_standard_output

OK, SOME_FAILED, BAD_INPUT, INTERRUPTED, BROKEN_PIPE = 0, 1, 2, 130, 141


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean X?` for the nearest known word, or nothing."""
    near = difflib.get_close_matches(word.lower(), list(known), n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else ""


def describe_os_error(error: OSError) -> str:
    """One line about a failed read or write: file, reason, remedy."""
    remedies = {
        errno.ENOSPC: "free some space, or choose another folder",
        errno.EDQUOT: "free some space, or choose another folder",
        errno.EACCES: "change its permissions, or choose another place",
        errno.EPERM: "change its permissions, or choose another place",
        errno.EROFS: "choose a folder that can be written",
        errno.ENOENT: "check the path",
        errno.EISDIR: "give a file",
        errno.ENOTDIR: "check the path",
        errno.EEXIST: "choose another place",
        errno.EFBIG: "raise the limit on the size of files (ulimit -f), or choose another file system",
        errno.ELOOP: "check where its links lead",
        errno.ENAMETOOLONG: "give a shorter name",
    }
    place = f"{error.filename}: " if error.filename else ""
    remedy = remedies.get(error.errno or 0)
    return f"{place}{(error.strerror or str(error) or type(error).__name__).lower()}" + (
        f"; {remedy}" if remedy else ""
    )


@contextlib.contextmanager
def interrupts_kept() -> Iterator[None]:
    """Raise Ctrl-C again where Python could only print it: in a callback from a library written in C."""
    before = sys.unraisablehook

    def hook(lost: sys.UnraisableHookArgs) -> None:
        if issubclass(lost.exc_type, KeyboardInterrupt):
            threading.Timer(0.01, _thread.interrupt_main).start()
        else:
            before(lost)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before


def complain(message: str) -> None:
    """One line on standard error."""
    printable = shortened(one_line(message)).encode("utf-8", "backslashreplace").decode("utf-8")
    with contextlib.suppress(OSError):  # a full disk, or a reader that is gone, changes no exit code
        print(f"wavasr: {printable}", file=sys.stderr, flush=True)


def tell_written(output: str | Path, line: str = "") -> None:
    """Name the file that was written, or print a line about it."""
    if line or not is_standard_output(output):
        tell_about(output, line or str(output))


def tell_about(output: str | Path, line: str) -> None:
    """Print a line about what is written; to standard error where standard output is the file."""
    print(line, file=sys.stderr if is_standard_output(output) else sys.stdout, flush=True)


def one_line(message: str) -> str:
    """The message with its line breaks turned into spaces."""
    return " ".join(message.split())


def plain(value: Any) -> str:
    """A value of a header for people."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {plain(one)}" for key, one in value.items())
    if isinstance(value, list):
        return ", ".join(map(plain, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def help_stream(arguments: list[str]) -> TextIO:
    """Help that was asked for is a result; help instead of missing arguments is a complaint."""
    return sys.stdout if arguments else sys.stderr


def prepare_streams() -> None:
    r"""Write UTF-8 wherever Python would not (Windows, old locales), and names that are not UTF-8 as \udcff.

    Raises:
        OSError: standard output is closed.
    """
    # Closed ones too: their numbers would go to the next files that are opened.
    closed = sys.stdout is None
    sys.stdin, sys.stdout, sys.stderr = (
        stream if stream is not None else Path(os.devnull).open(mode, encoding="utf-8")  # noqa: SIM115
        for stream, mode in ((sys.stdin, "r"), (sys.stdout, "w"), (sys.stderr, "w"))
    )
    if closed:
        raise OSError(errno.EBADF, "is closed; open it, or send it to a file", "standard output")
    sys.stdout = _naming_itself(cast(TextIO, sys.stdout))
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")


def _naming_itself(stream: TextIO) -> TextIO:
    """Standard output whose failures say that it is the file that could not be written."""
    buffer = getattr(stream, "buffer", None)
    if not isinstance(getattr(buffer, "raw", buffer), io.FileIO):
        return stream
    stream.flush()
    named = io.BufferedWriter(NamedSink(stream.fileno(), Path("standard output"), closefd=False))
    is_unbuffered = isinstance(buffer, io.FileIO)
    return io.TextIOWrapper(named, line_buffering=stream.isatty() or is_unbuffered)


def abandon_unwritten_output() -> None:
    """Where standard output cannot be written (full disk, reader gone), let the interpreter's last flush succeed."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def configure_logging(quiet: bool = False) -> None:
    """Messages of this package to standard error, one line each; those of other packages from warnings on.

    With `quiet` errors alone.
    """
    logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s", stream=sys.stderr)
    logging.getLogger("wavasr").setLevel(logging.ERROR if quiet else logging.INFO)


@contextlib.contextmanager
def starting() -> Iterator[None]:
    """What is loaded in here stays until the process ends: the garbage collector does not look there, nor at the end.

    That is a sixth of the time of a command that transcribes a few seconds.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.freeze()


# Packages that some commands need, what people call them, and the extra of this package that brings them.
EXTRAS = {
    "torch": ("PyTorch", "train"),
    "torchaudio": ("torchaudio", "train"),
    "pytorch_lightning": ("Lightning", "train"),
    "lightning_utilities": ("Lightning", "train"),
    "jsonargparse": ("jsonargparse", "train"),
    "yaml": ("PyYAML", "train"),
    "onnx": ("onnx", "train"),
    "tensorboard": ("TensorBoard", "train"),
    "starlette": ("starlette", "serve"),
    "uvicorn": ("uvicorn", "serve"),
    "websockets": ("websockets", "serve"),
    "python_multipart": ("python-multipart", "serve"),
    "sounddevice": ("sounddevice", "mic"),
    "numba": ("numba", "generate"),
    "matplotlib": ("matplotlib", "show"),
    "fsspec": ("fsspec", "remote"),
    "ray": ("Ray", "ray"),
}


def missing_extra(error: ModuleNotFoundError, command: str) -> str | None:
    """What to install where a package of an extra is missing; None where it is another one: a bug."""
    name, extra = EXTRAS.get((error.name or "").partition(".")[0], ("", ""))
    return f"wavasr {command} needs {name}: pip install 'wavasr[{extra}]'" if extra else None


def require(*modules: str) -> None:
    """Find out before the work whether packages of an extra are installed.

    Raises:
        ModuleNotFoundError: one of them is not; the command line tells which extra has it.
    """
    from importlib.util import find_spec

    for name in modules:
        if find_spec(name) is None:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
