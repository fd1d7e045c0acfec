"""Recordings, networks and training runs as matplotlib figures (needs the extra `show`).

from wavasr.pictures import recording; recording("talk.wav").savefig("talk.png")
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wavasr.pictures.lecture import lecture
    from wavasr.pictures.network import network
    from wavasr.pictures.recording import likelihood, recording
    from wavasr.pictures.training import learning_curves

__all__ = ["learning_curves", "lecture", "likelihood", "network", "recording"]

_HOME = {
    "learning_curves": "training",
    "lecture": "lecture",
    "likelihood": "recording",
    "network": "network",
    "recording": "recording",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'wavasr.pictures' has no attribute {name!r}")
    return getattr(importlib.import_module(f"wavasr.pictures.{_HOME[name]}"), name)
