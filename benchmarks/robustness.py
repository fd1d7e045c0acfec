"""What rooms, microphones, noise, telephones, levels and compression cost a model: word error rates on copies.

    python benchmarks/robustness.py MANIFEST --output DIR [--data ../shared/data] [--model default] [--every N]

Each kind's copies are made once, the same on every machine but for the MP3 encoder, and kept in DIR/KIND with a
manifest of their own, so that other recognisers can be measured on them. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import sys
import wave
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from wavasr.audio.augment import NoiseClips, add_noise, add_room, equalise, read_rooms, telephone
from wavasr.corpora.base import find_audio
from wavasr.corpora.manifest import Utterance, read_manifest, write_manifest
from wavasr.corpora.recordings import load_utterance
from wavasr.decoding.config import DecodingConfig
from wavasr.evaluation.evaluate import evaluate
from wavasr.recognition.models import load_acoustic_model
from wavasr.recognition.workers import usable_processes

RATE = 16000
NOISE_DB = 10.0
MP3_BITS_PER_S = 24_000
HOME_ROOM = np.float32(0.5)  # of the direct sound's amplitude
HOME_NOISE_DB = 20.0
HOME_GAINS_DB, HOME_BANDS = 6.0, 8
HOME_LEVEL = np.float32(0.3)
Samples = npt.NDArray[np.float32]
Change = Callable[[Samples, np.random.Generator], Samples]


def kinds(data: Path) -> dict[str, Change]:
    """What is done to the recordings of each kind."""
    noises = NoiseClips(list(find_audio(data / "noise-esc10")), RATE)
    rooms = read_rooms(list(find_audio(data / "rir")), RATE)
    return {
        "as-it-is": lambda x, _: x,
        "room": lambda x, rng: add_room(x, rooms[rng.integers(len(rooms))]),
        "home-microphone": lambda x, rng: home_microphone(x, rooms[rng.integers(len(rooms))], noises, rng),
        "noise-10-db": lambda x, rng: add_noise(x, noises.draw(len(x), rng), NOISE_DB),
        "telephone": lambda x, _: telephone(x, RATE),
        "40-db-softer": lambda x, _: x * np.float32(0.01),
        "20-db-louder": lambda x, _: x * np.float32(10.0),  # most of it clipped at full scale
        "mp3-24-kb": lambda x, _: x,
    }


def home_microphone(waveform: Samples, room: Samples, noises: NoiseClips, rng: np.random.Generator) -> Samples:
    """What a cheap microphone near the speaker hears: some of the room, little noise, uneven gains; softly."""
    mixed = waveform + HOME_ROOM * add_room(waveform, room)
    noisy = add_noise(mixed, noises.draw(len(mixed), rng), HOME_NOISE_DB)
    gains_db = rng.uniform(-HOME_GAINS_DB, HOME_GAINS_DB, HOME_BANDS)
    return HOME_LEVEL * equalise(noisy, gains_db, RATE)


def copies(kind: str, change: Change, utterances: Sequence[Utterance], folder: Path) -> Path:
    """The manifest of the copies of one kind, made where it is not there yet."""
    manifest = folder / kind / "dev.jsonl"
    if manifest.exists():
        return manifest
    made = []
    (folder / kind).mkdir(parents=True, exist_ok=True)
    for number, utterance in enumerate(tqdm(utterances, kind, disable=None)):
        changed = change(load_utterance(utterance, RATE), np.random.default_rng(number))
        whole = np.clip(np.rint(changed * 32767), -32768, 32767).astype(np.int16)
        path = folder / kind / f"{number:05d}.{'mp3' if kind.startswith('mp3') else 'wav'}"
        (_write_mp3 if path.suffix == ".mp3" else _write_wav)(path, whole)
        made.append(replace(utterance, audio=path, offset_s=0.0))
    write_manifest(manifest, made)
    return manifest


def _write_wav(path: Path, samples: npt.NDArray[np.int16]) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(samples.tobytes())


def _write_mp3(path: Path, samples: npt.NDArray[np.int16]) -> None:
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libmp3lame", rate=RATE, layout="mono")
        stream.bit_rate = MP3_BITS_PER_S
        frame = av.AudioFrame.from_ndarray(samples[None], format="s16p", layout="mono")
        frame.sample_rate = RATE
        for part in (frame, None):
            file.mux(stream.encode(part))


def main() -> int:
    """Make the copies, and print the table."""
    parser = argparse.ArgumentParser(description="Word error rates on rooms, noise, telephones, levels, compression.")
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="where noise-esc10 and rir are")
    parser.add_argument("--model", default="default")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="only every Nth utterance")
    args = parser.parse_args()
    utterances = read_manifest(args.manifest)[:: args.every]
    model = load_acoustic_model(args.model)
    print("| kind | word errors | 95 % interval |\n|---|---|---|")
    for kind, change in kinds(args.data).items():
        found = read_manifest(copies(kind, change, utterances, args.output))
        rate = evaluate(
            model, found, decoder=DecodingConfig(), progress=sys.stderr.isatty(), processes=usable_processes()
        ).rate
        interval = f"{100 * rate.ci95.low:.1f} to {100 * rate.ci95.high:.1f}" if rate.ci95 else ""
        print(f"| {kind.replace('-', ' ')} | {100 * rate.value:.1f} % | {interval} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
