"""Speech recognition from the raw waveform.

`wavasr.transcribe("file.wav")` gives the text of a recording, `wavasr.Stream()` that of samples as they come,
`wavasr.align("file.wav", text)` the times of a known text, `wavasr.load("default")` the model itself.
`wavasr.speak("text")` and `wavasr.generate()` make sound. What a stream gives is `Partial`, `Final` or `Endpoint`;
hotwords, language models and beams are chosen by a `DecodingConfig`; what is wrong with an input is a `WavasrError` of
one line. All are imported when first used, so that `import wavasr` costs nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wavasr.decoding.config import DecodingConfig
    from wavasr.errors import WavasrError
    from wavasr.generation.speaking import speak
    from wavasr.generation.voice import generate
    from wavasr.network.recognizer import load_model as load
    from wavasr.recognition.align import align
    from wavasr.recognition.stream import Endpoint, Final, Partial, Stream
    from wavasr.recognition.transcribe import Transcript, transcribe

__version__ = "0.1.0"
__all__ = [
    "DecodingConfig",
    "Endpoint",
    "Final",
    "Partial",
    "Stream",
    "Transcript",
    "WavasrError",
    "__version__",
    "align",
    "generate",
    "load",
    "speak",
    "transcribe",
]

_HOME = {
    "DecodingConfig": ("wavasr.decoding.config", "DecodingConfig"),
    "Endpoint": ("wavasr.recognition.stream", "Endpoint"),
    "Final": ("wavasr.recognition.stream", "Final"),
    "Partial": ("wavasr.recognition.stream", "Partial"),
    "Stream": ("wavasr.recognition.stream", "Stream"),
    "Transcript": ("wavasr.recognition.transcribe", "Transcript"),
    "WavasrError": ("wavasr.errors", "WavasrError"),
    "align": ("wavasr.recognition.align", "align"),
    "generate": ("wavasr.generation.voice", "generate"),
    "load": ("wavasr.network.recognizer", "load_model"),
    "speak": ("wavasr.generation.speaking", "speak"),
    "transcribe": ("wavasr.recognition.transcribe", "transcribe"),
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'wavasr' has no attribute {name!r}")
    module, function = _HOME[name]
    try:
        globals()[name] = found = getattr(importlib.import_module(module), function)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        message = f"wavasr.{name} needs PyTorch: pip install 'wavasr[train]'"
        raise ModuleNotFoundError(message, name=error.name) from error
    return found


def __dir__() -> list[str]:
    return sorted(__all__)
