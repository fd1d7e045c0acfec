"""How fast this machine is: start-up, transcription with a shipped model, training steps of each preset.

    python benchmarks/speed.py [--model default] [--minutes 2]

Prints a Markdown table to standard output. "x real time" is seconds of audio per second of computing.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import soundfile
import torch
import torch.nn.functional as F

from wavasr.audio import load_audio
from wavasr.config import PRESETS, EncoderConfig, TextConfig
from wavasr.errors import ModelError
from wavasr.evaluate import machine
from wavasr.model import Recognizer, load_model
from wavasr.text import Units
from wavasr.transcribe import transcribe

SAMPLES = Path(__file__).resolve().parent.parent / "data" / "samples"
BATCH, BATCH_S = 4, 2.0


def seconds(action: Callable[[], object], repeats: int = 3) -> float:
    """The fastest of a few runs."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return min(times)


def start_up(*arguments: str) -> float:
    """Seconds that Python takes with these arguments in a process of its own."""
    return seconds(lambda: subprocess.run([sys.executable, *arguments], check=True, capture_output=True))


def transcription(model: Recognizer, minutes: float) -> tuple[float, float]:
    """Audio seconds per second, for one long recording and for the short sample clips."""
    clips = sorted(path for path in SAMPLES.iterdir() if path.suffix in (".wav", ".flac", ".mp3", ".ogg", ".opus"))
    waveforms = [load_audio(clip, model.sample_rate) for clip in clips]
    once = np.concatenate(waveforms)
    long = np.tile(once, max(1, round(60 * minutes * model.sample_rate / once.size)))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "long.wav"
        soundfile.write(path, long, model.sample_rate)
        transcribe(path, model)  # the convolutions plan their shapes once
        whole = long.size / model.sample_rate / seconds(lambda: transcribe(path, model), 2)
    short = once.size / model.sample_rate / seconds(lambda: [transcribe(clip, model) for clip in clips])
    return whole, short


def training(preset: str, ear_frozen: bool) -> float:
    """Audio seconds per second of whole training steps without the optimiser's, in bf16."""
    encoder = EncoderConfig(preset=preset)
    model = Recognizer(encoder, Units.characters(["abcdefghijklmnopqrstuvwxyz "]), TextConfig())
    for parameter in model.ear.parameters():
        parameter.requires_grad_(not ear_frozen)
    waveform = 0.1 * torch.randn(BATCH, round(BATCH_S * encoder.sample_rate))
    lengths = torch.full((BATCH,), waveform.shape[1])
    targets = torch.randint(1, len(model.units), (BATCH, 10))

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            log_probs, frames = model(waveform, lengths)
        loss = F.ctc_loss(log_probs.transpose(0, 1), targets, frames, torch.full((BATCH,), 10))
        loss.backward()  # type: ignore[no-untyped-call]

    step()
    return BATCH * BATCH_S / seconds(step, 2)


def main() -> int:
    """Measure everything and print the table."""
    parser = argparse.ArgumentParser(description="How fast wavasr is on this machine.")
    parser.add_argument("--model", default="default", help="a model file or a shipped name")
    parser.add_argument("--minutes", type=float, default=2.0, help="length of the long recording")
    args = parser.parse_args()
    print(f"{machine()}, torch {torch.__version__}\n")
    print("| what | figure |\n|---|---|")
    print(f"| `wavasr --help` | {start_up('-m', 'wavasr', '--help'):.2f} s |")
    print(f"| `import wavasr` | {start_up('-c', 'import wavasr'):.2f} s |", flush=True)
    try:
        long, short = transcription(load_model(args.model), args.minutes)
        print(f"| transcribe one recording of {args.minutes:g} min, {args.model} model | {long:.0f} x real time |")
        print(f"| transcribe the sample clips one by one | {short:.0f} x real time |", flush=True)
    except ModelError as error:
        print(error, file=sys.stderr)
    for preset in PRESETS:
        for frozen in (False, True):
            ear = ", ear frozen" if frozen else ""
            print(f"| training step, preset {preset}{ear} | {training(preset, frozen):.1f} x real time |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
