"""What 8 bits are worth: one network run by torch, and by onnxruntime in float32 and, as `transcribe` does, in 8 bits.

    python -m benchmarks.export [--model default] [--manifest dev.jsonl --dev-speakers 8] [--seconds 20] [--rounds 5]

The sides take turns on one thread with the same audio, so that other work on the machine slows them alike; each gets
the median of its rounds in processor seconds. Peak memory and cold starts are of processes of their own. With a
manifest of real speech also the error rates and by how much the log-probabilities differ. Prints Markdown tables.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import RATE, process, speech, speech_file, wavasr
from wavasr.archive import members_of, write_archive
from wavasr.audio.reading import load_audio
from wavasr.corpora.manifest import Utterance, read_manifest
from wavasr.evaluation.provenance import machine
from wavasr.network.export import export_graph
from wavasr.network.files import BACK, FRONT, GRAPH, resolve
from wavasr.network.runtime import AcousticModel
from wavasr.recognition.models import load_acoustic_model

COLD_S, LONG_S = 5.0, 600.0


def speeds(models: dict[str, AcousticModel], audio: Any, rounds: int) -> dict[str, float]:
    """Seconds of audio per processor second, (S,) samples at a time."""
    batch, lengths = audio[None], np.array([len(audio)])
    spent: dict[str, list[float]] = {name: [] for name in models}
    for turn in range(rounds + 1):
        for name, model in models.items():
            start = time.process_time()
            model.infer(batch, lengths)
            if turn:  # the first plans shapes
                spent[name].append(time.process_time() - start)
    return {name: len(audio) / RATE / statistics.median(times) for name, times in spent.items()}


def of_speech(
    models: dict[str, AcousticModel], utterances: Sequence[Utterance]
) -> dict[str, tuple[float, float, float]]:
    """Word and character error rate, and the largest difference of a log-probability from torch's in float32."""
    from wavasr.evaluation import metrics
    from wavasr.evaluation.evaluate import evaluate

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
    from wavasr.training.splits import hold_out_speakers

    utterances = read_manifest(manifest)
    return hold_out_speakers(utterances, speakers)[1] if speakers else utterances


def main() -> int:
    """Measure everything and print the tables."""
    parser = argparse.ArgumentParser(description="8 bits against float32, onnxruntime against torch.")
    parser.add_argument("--model", default="default")
    parser.add_argument("--manifest", type=Path)
    parser.add_argument("--dev-speakers", type=int, default=0, help="only the speakers that a recipe holds out")
    parser.add_argument("--seconds", type=float, default=20.0, help="of audio that go through the network at once")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported; processes inherit it
    print(f"{machine()}; model {args.model}, one thread, processor seconds.\n")
    with tempfile.TemporaryDirectory() as folder:
        files = {
            "8 bits": resolve(args.model),
            "float32": Path(folder, "float.wavasr"),
        }
        export_graph(args.model, Path(folder, "float.onnx"))
        parts = {name: part for name, part in members_of(files["8 bits"]).items() if name not in (FRONT, BACK)}
        write_archive(files["float32"], {**parts, GRAPH: Path(folder, "float.onnx")})
        # First the processes: the peak of one begins with that of its parent, which has loaded no network yet.
        print_processes(files, Path(folder))
        print_networks(files, args)
    return 0


def print_processes(files: dict[str, Path], folder: Path) -> None:
    """Whole commands: cold start and memory."""
    short, long = (speech_file(folder, seconds) for seconds in (COLD_S, LONG_S))
    print("| `wavasr transcribe` | MB on disk | 5 s, cold | peak MB | 10 min | peak MB |\n|---|---|---|---|---|---|")
    for side, path in files.items():
        cells = [f"{path.stat().st_size / 1e6:.1f}"]
        for recording, repeats in ((short, 3), (long, 1)):
            costs = [process(wavasr("transcribe", recording, "--model", path)) for _ in range(repeats)]
            cells.append(f"{min(cost.cpu_s for cost in costs):.1f} s | {max(cost.peak_mb for cost in costs):.0f}")
        print(f"| {side} | {' | '.join(cells)} |", flush=True)


def print_networks(files: dict[str, Path], args: argparse.Namespace) -> None:
    """The networks alone, in turns in this process; and their errors on real speech."""
    from wavasr.network.recognizer import load_model

    models: dict[str, AcousticModel] = {
        "torch float32": load_model(files["8 bits"]),
        "onnxruntime float32": load_acoustic_model(files["float32"]),
        "onnxruntime, 8 bits (transcribe)": load_acoustic_model(files["8 bits"]),
    }
    fast = speeds(models, speech(args.seconds), args.rounds)
    figures = of_speech(models, dev_part(args.manifest, args.dev_speakers)) if args.manifest else {}
    print(f"\n| network, {args.seconds:g} s at a time | x real time | to torch float32 | WER | CER | differs by |")
    print("|---|---|---|---|---|---|")
    for side, speed in fast.items():
        errors = "{:.2f} % | {:.2f} % | {:.1e}".format(*figures[side]) if side in figures else "- | - | -"
        print(f"| {side} | {speed:.0f} | {speed / fast['torch float32']:.2f} | {errors} |", flush=True)


if __name__ == "__main__":
    sys.exit(main())
