"""Word errors of recordings and of what a vocoder makes of them, by a recogniser that is not ours.

    python benchmarks/copies.py MODEL MANIFEST --judge PYTHON    PYTHON: of an environment with faster-whisper

Both sides are read by faster-whisper tiny (`benchmarks/peer_run.py`); texts are compared without case and punctuation.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from wavasr.audio.reading import load_audio  # noqa: E402
from wavasr.corpora.manifest import read_manifest  # noqa: E402
from wavasr.evaluation.metrics import wer  # noqa: E402
from wavasr.generation.voice import Voice, write_sound  # noqa: E402


def main() -> None:
    """Print the word errors of both sides."""
    parser = argparse.ArgumentParser(description="Word errors of recordings and of a vocoder's copies of them.")
    parser.add_argument("model")
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--judge", required=True, help="a Python with faster-whisper")
    args = parser.parse_args()
    voice = Voice.load(args.model)
    utterances = read_manifest(args.manifest)
    with tempfile.TemporaryDirectory() as folder:
        for side in ("natural", "copy"):
            paths = []
            for index, utterance in enumerate(utterances):
                samples = load_audio(utterance.audio, voice.config.sample_rate)
                speaker = utterance.speaker if utterance.speaker in voice.config.speakers else None
                paths.append(Path(folder) / f"{side}{index}.wav")
                sound = samples if side == "natural" else voice.copy(samples, speaker)
                write_sound(paths[-1], sound, voice.config.sample_rate)
            command = [args.judge, str(ROOT / "benchmarks" / "peer_run.py"), "faster-whisper", *map(str, paths)]
            texts = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)["texts"]
            counts = wer([plain(utterance.text) for utterance in utterances], [plain(text) for text in texts])
            print(f"{side}: {counts.errors} errors in {counts.reference} words, {100 * counts.rate:.1f} %")


def plain(text: str) -> str:
    """Words alone."""
    return " ".join(re.findall(r"[a-z']+", text.lower()))


if __name__ == "__main__":
    main()
