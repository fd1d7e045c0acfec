"""Speech recognition from the raw waveform.

`wavasr.transcribe("file.wav")` gives the text of a recording, `wavasr.align("file.wav", text)` the times of a known
text, `wavasr.load("default")` the model itself. They are looked up when first used, so that `import wavasr` costs
nothing.
"""

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wavasr.aligner import align
    from wavasr.model import load_model as load
    from wavasr.transcribe import transcribe

__version__ = "0.1.0"
__all__ = ["__version__", "align", "load", "transcribe"]


def __getattr__(name: str) -> Any:
    if name == "load":
        from wavasr.model import load_model

        return load_model
    if name == "align":
        from wavasr.aligner import align

        return align
    if name == "transcribe":
        return importlib.import_module("wavasr.transcribe")
    raise AttributeError(f"module 'wavasr' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)


class _Callable(ModuleType):
    """The module `wavasr.transcribe`, called like the function of its name."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.transcribe(*args, **kwargs)


class _Package(ModuleType):
    """This package. Importing a submodule binds it to its name here, which `transcribe` shares with a function."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "transcribe" and isinstance(value, ModuleType):
            value.__class__ = _Callable
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
