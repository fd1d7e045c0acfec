"""Speech recognition from the raw waveform.

`wavasr.transcribe("file.wav")` gives the text of a recording; `wavasr.load("default")` the model itself. Both are
looked up when first used, so that `import wavasr` costs nothing.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wavasr.model import load_model as load
    from wavasr.transcribe import transcribe

__version__ = "0.1.0"
__all__ = ["__version__", "load", "transcribe"]


def __getattr__(name: str) -> Any:
    if name == "load":
        from wavasr.model import load_model

        return load_model
    if name == "transcribe":
        from wavasr.transcribe import transcribe

        return transcribe
    raise AttributeError(f"module 'wavasr' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
