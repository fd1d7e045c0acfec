"""Part a: forward and training step of each preset, beside the same network written plainly; and batches (part d).

    python -m benchmarks.networks --seconds 10 --rounds 3 base swift        prints JSON
    python -m benchmarks.networks --profile "step, wavasr bfloat16" swift     where its processor time goes

All sides take turns in one process of this module, after their outputs were found equal. What `--once` runs is one
side alone, in a process that somebody else measures the peak memory of.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from benchmarks.measure import RATE, SAMPLES, Section, in_turns
from benchmarks.plain import PlainNetwork
from wavasr.corpora.manifest import read_manifest
from wavasr.corpora.recordings import load_utterance
from wavasr.language.config import TextConfig
from wavasr.language.text import Units
from wavasr.network.config import PRESETS, EncoderConfig
from wavasr.network.inference import FastModel
from wavasr.network.recognizer import Recognizer, save_model
from wavasr.network.wavenet import GatedBlock

PLAIN, EAGER, FAST = "plain float32", "wavasr float32", "transcribe, 8 bits"
STEP_PLAIN, STEP32, STEP16 = "step, plain float32", "step, wavasr float32", "step, wavasr bfloat16"
FORWARD, STEPS = (PLAIN, EAGER, FAST), (STEP_PLAIN, STEP32, STEP16)
CLOSE = 1e-3  # log-probabilities in float32
NEAR = 0.05  # probabilities in 8 bits
PIECE_S = 2.0


def recogniser(preset: str) -> Recognizer:
    """A network of a preset from a random start."""
    torch.manual_seed(0)
    units = Units.characters(["abcdefghijklm nopqrstuvwxyz'"])
    return Recognizer(EncoderConfig(preset=preset, init="random"), units, TextConfig()).eval()


def as_transcribed(model: Recognizer) -> FastModel:
    """What `transcribe` makes of the network's file."""
    with tempfile.TemporaryDirectory() as folder:
        save_model(model, Path(folder) / "model.wavasr")
        return FastModel(Path(folder) / "model.wavasr")


def gflop_per_audio_s(preset: str) -> float:
    """Multiplications and additions of a forward pass for each second of audio, from the shapes of the weights."""
    encoder = EncoderConfig(preset=preset)
    rate, inputs, total = encoder.sample_rate / encoder.stages[0].stride, encoder.stages[0].stride, 0.0
    for stage in encoder.stages:
        width, skip = stage.channels, stage.skip_width
        weights = inputs * width * (stage.window // stage.stride) + skip * skip
        weights += len(stage.dilations) * (2 * width * width * stage.kernel + width * (width + skip))
        total += rate * weights
        rate, inputs = rate / stage.pool, stage.output_channels
    return 2e-9 * total


def peaks(rounds: int = 8, size: int = 1024) -> dict[str, tuple[float, float]]:
    """GFLOP of a product of square matrices for each second, and for each processor second; the best of some rounds."""
    sides = {}
    for dtype in (torch.float32, torch.bfloat16):
        a, b = (torch.randn(size, size).to(dtype) for _ in range(2))
        sides[str(dtype).removeprefix("torch.")] = lambda a=a, b=b: a @ b
    costs = [in_turns(sides, 1) for _ in range(rounds)]
    gflop = 2e-9 * size**3
    return {
        side: (gflop / min(c[side].wall_s for c in costs), gflop / min(c[side].cpu_s for c in costs)) for side in sides
    }


def largest_differences(model: Recognizer, samples: int = 2 * RATE) -> tuple[float, float]:
    """Between the plain network and `forward`, of log-probabilities; and what `transcribe` runs, of probabilities."""
    waveform, lengths = 0.1 * torch.randn(2, samples), torch.tensor([samples, samples - 1234])
    with torch.no_grad():
        expected, frames = PlainNetwork(model)(waveform, lengths)
        found = model(waveform, lengths)[0]
    near = torch.from_numpy(as_transcribed(model).infer(waveform.numpy(), lengths.numpy())[0])
    within = torch.arange(expected.shape[1]) < frames[:, None]
    return (
        float((found - expected)[within].abs().max()),
        float((near.exp() - expected.exp())[within].abs().max()),
    )


def actions(model: Recognizer, seconds: float, batch: int = 1) -> dict[str, Callable[[], Any]]:
    """Every side as a function: forward of `batch` recordings, training steps of as much audio in pieces of 2 s."""
    waveform = 0.1 * torch.randn(batch, round(seconds * RATE))
    lengths = torch.full((batch,), waveform.shape[1])
    arrays = waveform.numpy(), lengths.numpy()
    plain, fast = PlainNetwork(model), as_transcribed(model)

    def forward(network: torch.nn.Module) -> Any:
        with torch.inference_mode():
            return network(waveform, lengths)

    pieces = 0.1 * torch.randn(max(1, round(batch * seconds / PIECE_S)), round(PIECE_S * RATE))
    piece_lengths = torch.full((len(pieces),), pieces.shape[1])
    targets = torch.randint(1, len(model.units), (len(pieces), 10))

    def step(network: torch.nn.Module, half: bool) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            log_probs, frames = network(pieces, piece_lengths)
        loss = F.ctc_loss(log_probs.transpose(0, 1), targets, frames, torch.full((len(pieces),), 10))
        loss.backward()  # type: ignore[no-untyped-call]
        network.zero_grad()

    return {
        PLAIN: lambda: forward(plain),
        EAGER: lambda: forward(model),
        FAST: lambda: fast.infer(*arrays),
        STEP_PLAIN: lambda: step(plain, False),
        STEP32: lambda: step(model, False),
        STEP16: lambda: step(model, True),
    }


def measured(preset: str, seconds: float, rounds: int) -> dict[str, Any]:
    """One preset: the differences of its sides' outputs, and audio seconds per second of each side."""
    model = recogniser(preset)
    difference, of_bytes = largest_differences(model)
    if difference > CLOSE or of_bytes > NEAR:
        raise SystemExit(
            f"{preset}: outputs differ by {difference:.1e} in float32 and {of_bytes:.1e} in 8 bits; nothing to compare"
        )
    costs = in_turns(actions(model, seconds), rounds)
    speeds = {side: (seconds / cost.wall_s, seconds / max(cost.cpu_s, 1e-9)) for side, cost in costs.items()}
    return {"difference": difference, "of_bytes": of_bytes, "speeds": speeds, "gflop": gflop_per_audio_s(preset)}


def curves(preset: str, steps: int, clips: int = 8) -> dict[str, list[float]]:
    """CTC in nats per label of each training step of so many clips of the demo, from one start."""
    utterances = read_manifest(SAMPLES / "demo" / "train.jsonl")
    found: dict[str, list[float]] = {}
    for side, half in ((STEP_PLAIN, False), (STEP32, False), (STEP16, True)):
        model = recogniser(preset).train()
        network = PlainNetwork(model) if side == STEP_PLAIN else model
        for block in model.encoder.modules():
            if isinstance(block, GatedBlock):
                block.dropout = 0.0  # its draws would differ
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        losses = []
        for step in range(steps):
            batch = [utterances[(clips * step + place) % len(utterances)] for place in range(clips)]
            waves = [torch.from_numpy(load_utterance(u, RATE)) for u in batch]
            labels = [torch.tensor(model.units.encode(u.text)) for u in batch]
            lengths, counts = (torch.tensor(list(map(len, one))) for one in (waves, labels))
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                log_probs, frames = network(torch.nn.utils.rnn.pad_sequence(waves, batch_first=True), lengths)
            nats = F.ctc_loss(log_probs.float().transpose(0, 1), torch.cat(labels), frames, counts, reduction="sum")
            loss = nats / counts.sum()
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(float(loss.detach()))
        found[side] = losses
    return found


def batches(preset: str, rounds: int, seconds: float = 5.0, sizes: tuple[int, ...] = (1, 4, 16)) -> dict[str, Any]:
    """Audio seconds per second of forward passes of several recordings at once."""
    model = recogniser(preset)
    found: dict[str, Any] = {}
    for size in sizes:
        sides = {name: action for name, action in actions(model, seconds, size).items() if name in (EAGER, FAST)}
        costs = in_turns(sides, rounds)
        found[str(size)] = {side: size * seconds / cost.wall_s for side, cost in costs.items()}
    return found


def main() -> int:
    """Measure, and print JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("presets", nargs="*", default=list(PRESETS))
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--once", help="run this side of the first preset once, and print nothing")
    parser.add_argument("--batches", action="store_true", help="batches of the first preset instead")
    parser.add_argument("--curves", type=int, default=0, metavar="STEPS", help="and losses of so many training steps")
    parser.add_argument("--profile", metavar="SIDE", help="the operations of this side of the first preset instead")
    args = parser.parse_args()
    if args.once:
        actions(recogniser(args.presets[0]), args.seconds)[args.once]()
    elif args.profile:
        print(profile(actions(recogniser(args.presets[0]), args.seconds)[args.profile], args.rounds))
    elif args.batches:
        print(json.dumps(batches(args.presets[0], args.rounds)))
    else:
        found = {preset: measured(preset, args.seconds, args.rounds) for preset in args.presets}
        losses = curves(args.presets[0], args.curves) if args.curves else {}
        print(json.dumps({"peaks": peaks(), "presets": found, "curves": losses}))
    return 0


def profile(action: Callable[[], Any], rounds: int) -> str:
    """A table of the operations that most of the processor time goes to."""
    action()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as recorded:
        for _ in range(rounds):
            action()
    events = recorded.key_averages()
    total = sum(event.self_cpu_time_total for event in events)
    lines = [f"{'operation':<44} {'share':>6} {'ms a round':>11} {'calls':>6}"]
    for event in sorted(events, key=lambda event: -event.self_cpu_time_total)[:14]:
        mine = event.self_cpu_time_total
        lines.append(
            f"{event.key[:44]:<44} {mine / total:>6.1%} {mine / rounds / 1e3:>11.1f} {event.count // rounds:>6}"
        )
    return "\n".join(lines)


def rows(found: dict[str, Any], memory: dict[tuple[str, str], float]) -> Section:
    """The section of part a from what `main` printed."""
    section = Section("a. Forward and training step of each preset")
    products = ", ".join(f"{wall:.0f} GFLOP/s in {dtype}" for dtype, (wall, _) in found["peaks"].items())
    section.note(
        f"Products of large matrices here: {products}. The share of that is of the work for each processor second, "
        "which other processes disturb least. A training step counts as three forward passes. The sides took turns."
    )
    table = []
    for preset, result in found["presets"].items():
        for side, (wall, cpu) in result["speeds"].items():
            against = result["speeds"][STEP_PLAIN if side in STEPS else PLAIN]
            gflop = result["gflop"] * (3 if side in STEPS else 1)
            peak = found["peaks"]["bfloat16" if "bfloat16" in side else "float32"][1]
            megabytes = memory.get((preset, side))
            row = [preset, side, f"{wall:.1f}", f"{cpu:.1f}", f"{wall * gflop:.0f}", f"{cpu * gflop / peak:.0%}"]
            row += [f"{wall / against[0]:.2f}", f"{cpu / against[1]:.2f}", f"{megabytes:.0f}" if megabytes else "-"]
            table.append(row)
            section.bars[f"{preset}, {side}"] = wall
    head = ["preset", "side", "audio s / s", "audio s / processor s", "GFLOP/s", "of peak"]
    section.table([*head, "to plain", "to plain, processor", "peak MB"], table)
    differences = [f"{preset} {r['difference']:.0e}, {r['of_bytes']:.0e}" for preset, r in found["presets"].items()]
    section.note(
        "Largest difference before timing, of log-probabilities in float32 and of probabilities in 8 bits: "
        f"{'; '.join(differences)}."
    )
    if found["curves"]:
        section.note(
            f"Losses of training `{next(iter(found['presets']))}` on the demo's clips, nats per label by step:"
        )
        steps = [step for step in (1, 2, 5, 10, 20, 30, 40, 60) if step <= len(found["curves"][STEP_PLAIN])]
        table = [[side, *(f"{losses[step - 1]:.3f}" for step in steps)] for side, losses in found["curves"].items()]
        section.table(["side", *map(str, steps)], table)
    return section


if __name__ == "__main__":
    sys.exit(main())
