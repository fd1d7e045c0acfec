"""What an exported model is worth: one network run by torch (float32, bfloat16) and onnxruntime (float32, 8 bits).

    python benchmarks/export.py [--model default] [--manifest dev.jsonl --dev-speakers 8] [--seconds 20] [--rounds 5]

The sides take turns on one thread with the same audio, so that other work on the machine slows them alike; each gets
the median of its rounds in processor seconds. Peak memory and cold starts are of processes of their own. With a
manifest of real speech also the error rates and by how much the log-probabilities differ. Prints Markdown tables.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from wavasr.audio import load_audio
from wavasr.evaluate import machine
from wavasr.export import export_model
from wavasr.manifest import Utterance, read_manifest
from wavasr.modelfile import resolve
from wavasr.runtime import Listener, OnnxModel
from wavasr.transcribe import load_listener

SAMPLES = Path(__file__).resolve().parent.parent / "data" / "samples"
COLD_S, LONG_S = 5.0, 600.0


class Autocast:
    """A torch model that computes in bfloat16."""

    def __init__(self, model: Listener) -> None:
        self._model = model

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def infer(self, waveform: Any, lengths: Any) -> Any:
        """As the model's, in bfloat16."""
        import torch

        with torch.autocast("cpu", torch.bfloat16):
            return self._model.infer(waveform, lengths)


def sides(model: str, folder: Path) -> dict[str, Listener]:
    """The network in its four forms."""
    export_model(model, folder / "model.onnx")
    export_model(model, folder / "model-int8.onnx", int8=True)
    torch_model = load_listener(model)
    return {
        "torch float32": torch_model,
        "torch bfloat16": Autocast(torch_model),
        "ONNX float32": OnnxModel(folder / "model.onnx"),
        "ONNX int8": OnnxModel(folder / "model-int8.onnx"),
    }


def speeds(models: dict[str, Listener], audio: Any, rounds: int) -> dict[str, float]:
    """Seconds of audio per processor second, (S,) samples at a time."""
    batch, lengths = audio[None], np.array([len(audio)])
    spent: dict[str, list[float]] = {name: [] for name in models}
    for turn in range(rounds + 1):
        for name, model in models.items():
            start = time.process_time()
            model.infer(batch, lengths)
            if turn:  # the first plans shapes
                spent[name].append(time.process_time() - start)
    rate = next(iter(models.values())).sample_rate
    return {name: len(audio) / rate / statistics.median(times) for name, times in spent.items()}


def process(arguments: Sequence[str], repeats: int = 1) -> tuple[float, float]:
    """Processor seconds (the least of a few runs) and peak megabytes of `wavasr` in a process of its own."""
    program = "import sys, wavasr.cli; sys.exit(wavasr.cli.main(sys.argv[1:]))"
    costs = []
    for _ in range(repeats):
        child = subprocess.Popen([sys.executable, "-c", program, *arguments], stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            raise SystemExit(f"wavasr {' '.join(arguments)} failed")
        unit = 1e6 if sys.platform == "darwin" else 1e3
        costs.append((usage.ru_utime + usage.ru_stime, usage.ru_maxrss / unit))
    return min(seconds for seconds, _ in costs), max(size for _, size in costs)


def of_speech(models: dict[str, Listener], utterances: Sequence[Utterance]) -> dict[str, tuple[float, float, float]]:
    """Word and character error rate, and the largest difference of a log-probability from torch's in float32."""
    from wavasr import metrics
    from wavasr.evaluate import evaluate

    waveforms = [load_audio(u.audio, offset_s=u.offset_s, duration_s=u.duration_s) for u in utterances[::10]]
    outputs = {
        name: np.concatenate([model.infer(w[None], np.array([len(w)]))[0][0] for w in waveforms])
        for name, model in models.items()
    }
    exact = next(iter(outputs.values()))
    found = {}
    for name, model in models.items():
        result = evaluate(model, utterances, progress=False)
        texts = [u.reference for u in result.utterances], [u.hypothesis for u in result.utterances]
        difference = float(np.abs(outputs[name] - exact).max())
        found[name] = (100 * metrics.wer(*texts).rate, 100 * metrics.cer(*texts).rate, difference)
    return found


def dev_part(manifest: Path, speakers: int) -> list[Utterance]:
    """The manifest's utterances, or those of the speakers that a recipe's `data.dev_speakers` holds out."""
    from wavasr.splits import hold_out_speakers

    utterances = read_manifest(manifest)
    return hold_out_speakers(utterances, speakers)[1] if speakers else utterances


def main() -> int:
    """Measure everything and print the tables."""
    parser = argparse.ArgumentParser(description="Exported models against torch.")
    parser.add_argument("--model", default="default")
    parser.add_argument("--manifest", type=Path)
    parser.add_argument("--dev-speakers", type=int, default=0, help="only the speakers that a recipe holds out")
    parser.add_argument("--seconds", type=float, default=20.0, help="of audio that go through the network at once")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported; processes inherit it
    samples = sorted(path for path in SAMPLES.iterdir() if path.suffix in (".flac", ".mp3", ".ogg"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        models = sides(args.model, folder)
        rate = models["torch float32"].sample_rate
        audio = np.concatenate([load_audio(path, rate) for path in samples])
        for length, file in ((COLD_S, "short.wav"), (LONG_S, "long.wav")):
            soundfile.write(folder / file, np.resize(audio, round(length * rate)), rate)
        fast = speeds(models, np.resize(audio, round(args.seconds * rate)), args.rounds)
        figures = of_speech(models, dev_part(args.manifest, args.dev_speakers)) if args.manifest else {}
        baseline = fast["torch float32"]
        print(f"{machine()}\n\nOne thread, {args.seconds:g} s at a time, model {args.model}; processor seconds.\n")
        print("| network | x real time | to torch float32 | WER | CER | log-probabilities differ by |")
        print("|---|---|---|---|---|---|")
        for side, speed in fast.items():
            errors = "{:.2f} % | {:.2f} % | {:.1e}".format(*figures[side]) if side in figures else "- | - | -"
            print(f"| {side} | {speed:.0f} | {speed / baseline:.2f} | {errors} |", flush=True)
        print("\n| `wavasr transcribe` | MB on disk | 5 s, cold | peak MB | 10 min | peak MB |")
        print("|---|---|---|---|---|---|")
        files = {"torch": resolve(args.model), "ONNX": folder / "model.onnx", "ONNX int8": folder / "model-int8.onnx"}
        for side, path in files.items():
            short, long = (
                process(["transcribe", str(folder / file), "--model", str(path)], repeats)
                for file, repeats in (("short.wav", 3), ("long.wav", 1))
            )
            cells = [f"{path.stat().st_size / 1e6:.1f}", *(f"{s:.1f} s | {size:.0f}" for s, size in (short, long))]
            print(f"| {side} | {' | '.join(cells)} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
