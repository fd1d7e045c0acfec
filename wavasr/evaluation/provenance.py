"""Where figures come from: the model, its decoder, the data, the machine and the versions."""

from __future__ import annotations

import datetime
import hashlib
import platform
import sys
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import wavasr
from wavasr.corpora.manifest import file_of
from wavasr.corpora.remote import read_bytes
from wavasr.errors import counted
from wavasr.evaluation.results import Provenance
from wavasr.language.config import TextConfig
from wavasr.network.runtime import AcousticModel, usable_cores

_PACKAGES = ("torch", "torchaudio", "onnxruntime", "numpy", "av", "soundfile", "soxr", "jiwer")


def complete(known: Provenance, model: AcousticModel, manifest: Path | None) -> Provenance:
    """Complete what the caller knows with what can be measured here."""
    facts = model.facts()
    versions = {"wavasr": wavasr.__version__, "python": platform.python_version()}
    # Of the two runtimes only the one that ran: the other may be absent.
    versions |= {name: metadata.version(name) for name in _PACKAGES if name in sys.modules}
    return replace(
        known,
        manifest=manifest.as_posix() if manifest else "",
        manifest_sha256=file_sha256(manifest) if manifest else "",
        model_sha256=facts.sha256,
        parameters=facts.parameters,
        units=f"{len(model.units) - 1} {model.units.kind} and the blank",
        text=_describe(model.text),
        device=facts.device,
        machine=machine(),
        date=datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        versions=versions,
    )


def _describe(text: TextConfig) -> str:
    parts = [f"{text.case} case", f"punctuation: {text.punctuation}", f"digits: {text.digits}"]
    return ", ".join(parts + ([f"without {text.strip_symbols!r}"] if text.strip_symbols else []))


def file_sha256(path: Path) -> str:
    """Fingerprint of a manifest."""
    return hashlib.sha256(read_bytes(file_of(path))).hexdigest()


def machine() -> str:
    """Processor, cores and system; no host name, since reports are passed on."""
    return f"{_processor()}, {counted(usable_cores(), 'core')}, {platform.system()}"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if sys.platform == "linux" and cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
