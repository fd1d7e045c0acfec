"""How fast a generator samples, beside the arithmetic and the memory traffic that it needs, and other ways to do it.

    python benchmarks/generation.py [--quick]

Processor time of one thread, best of several rounds, so that it means something on a busy machine too. The other side:
the same network stepped in NumPy and in torch (with queues, which is what "fast WaveNet" code in Python does), and how
fast this machine multiplies one matrix of the same weights by a vector when nothing else is done.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from wavasr.generation.network import Network  # noqa: E402
from wavasr.generation.sampler import make_steps  # noqa: E402
from wavasr.generation.stepping import Orders  # noqa: E402
from wavasr.network.config import GeneratorConfig  # noqa: E402
from wavasr.network.generator import Generator  # noqa: E402

SIZES = {"32/64/20": (32, 64, 2), "64/128/20": (64, 128, 2), "64/128/30": (64, 128, 3)}
_CYCLE = tuple(2**i for i in range(10))
_COMPILE = """
import time, numpy as np
from benchmarks.generation import network, orders
from wavasr.generation.sampler import make_steps
found = network("32/64/20")
start = time.process_time()
make_steps(found, 1, "numba").draw(orders(found, 1, 1))
print(time.process_time() - start)
"""


def network(size: str) -> Network:
    """A network of this size with random weights, as the shipped voices have it."""
    channels, skip, cycles = SIZES[size]
    torch.manual_seed(0)
    config = GeneratorConfig(channels=channels, skip_channels=skip, dilations=_CYCLE * cycles)
    weights = {name: values.half().float().numpy() for name, values in Generator(config).state_dict().items()}
    return Network(config, weights)  # model files have half precision


def orders(network: Network, streams: int, frames: int) -> Orders:
    """Random frames."""
    config, rng = network.config, np.random.default_rng(0)
    shape = streams, frames
    return Orders(
        condition=0.1 * rng.standard_normal((*shape, len(config.dilations), 2 * config.channels), dtype=np.float32),
        coefficients=0.05 * rng.standard_normal((*shape, config.prediction_order), dtype=np.float32),
        level=np.full(shape, 0.02, np.float32),
        lag_samples=rng.integers(40, 260, shape),
        sharpness=np.ones(shape, np.float32),
        guide=np.zeros((streams, 0), np.float32),
        uniform=rng.random((streams, frames * config.hop_samples), dtype=np.float32),
    )


def best(run: Callable[[], None], rounds: int) -> float:
    """Seconds of processor time of the fastest round."""
    times = []
    for _ in range(rounds):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return min(times)


def weights_of(network: Network) -> int:
    """Multiply-adds of a step: every weight is used once."""
    return sum(getattr(network.weights, f.name).size for f in fields(network.weights) if "bias" not in f.name)


def torch_rate(network: Network, streams: int, steps: int) -> float:
    """Samples/s of the blocks alone, stepped in torch with queues: inputs, prediction and drawing not counted."""
    config, weights = network.config, network.weights
    layers = len(config.dilations)
    dilated, residual = torch.from_numpy(weights.dilated), torch.from_numpy(weights.residual)
    skip, post, output = (torch.from_numpy(w) for w in (weights.skip, weights.post, weights.output))
    queues = [torch.zeros(d, streams, config.channels) for d in config.dilations]
    bias = torch.zeros(layers, streams, 2 * config.channels)

    @torch.inference_mode()
    def run() -> None:
        for step in range(steps):
            x = torch.zeros(streams, config.channels)
            gated = []
            for layer in range(layers):
                queue = queues[layer]
                place = step % len(queue)
                both = torch.cat([queue[place], x], 1)
                queue[place] = x
                hidden = torch.addmm(bias[layer], both, dilated[layer]).tanh_()
                gated.append(hidden[:, : config.channels] * (1 + hidden[:, config.channels :]))
                x = torch.addmm(x, gated[-1], residual[layer])
            logits = (torch.cat(gated, 1) @ skip).relu() @ post
            torch.multinomial((logits.relu() @ output).softmax(1), 1)

    return streams * steps / best(run, 2)


def plain_product_rate(count: int) -> float:
    """Samples/s if a step were one product of all weights with one vector, by BLAS."""
    rows = 64
    matrix, vector = np.ones((count // rows, rows), np.float32), np.ones(rows, np.float32)
    out = np.empty(count // rows, np.float32)

    def run() -> None:
        for _ in range(200):
            np.dot(matrix, vector, out=out)

    return 200 / best(run, 5)


def compile_seconds() -> tuple[float, float]:
    """Processor time until the first samples: compiled anew, and from the cache in another process."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "NUMBA_CACHE_DIR": folder, "PYTHONPATH": str(ROOT)}
        found = [
            float(
                subprocess.run(
                    [sys.executable, "-c", _COMPILE], env=environment, capture_output=True, check=True
                ).stdout
            )
            for _ in range(2)
        ]
    return found[0], found[1]


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description="How fast a generator samples.")
    parser.add_argument("--quick", action="store_true", help="few samples: tries the benchmark, not the machine")
    args = parser.parse_args()
    torch.set_num_threads(1)
    frames, rounds = (2, 1) if args.quick else (25, 5)
    print(
        "| size | steps by | streams | samples/s | x real time | GMAC/s | weights read, GB/s |\n"
        "|---|---|---|---|---|---|---|"
    )
    for size in SIZES if not args.quick else ("32/64/20",):
        found = network(size)
        count = weights_of(found)
        rows: list[tuple[str, int, float]] = []
        for streams in (1, 4):
            steps, wanted = make_steps(found, streams, "numba"), orders(found, streams, frames)
            steps.draw(orders(found, streams, 1))
            seconds = best(lambda steps=steps, wanted=wanted: steps.draw(wanted), rounds)  # type: ignore[misc]
            rows.append(("numba", streams, streams * frames * found.config.hop_samples / seconds))
        for streams in (1, 16, 64):
            steps, wanted = make_steps(found, streams, "numpy"), orders(found, streams, 1)
            seconds = best(lambda steps=steps, wanted=wanted: steps.draw(wanted), 1 if args.quick else 2)  # type: ignore[misc]
            rows.append(("NumPy", streams, streams * found.config.hop_samples / seconds))
        rows.append(("torch", 1, torch_rate(found, 1, 20 if args.quick else 160)))
        rows.append(("one product by BLAS, nothing else", 1, plain_product_rate(count)))
        for name, streams, rate in rows:
            shared = 1 if name == "NumPy" and streams == 1 else min(streams, 4) if name == "numba" else streams
            print(
                f"| {size} | {name} | {streams} | {rate:,.0f} | {rate / 16000:.2f} | {rate * count / 1e9:.1f} | "
                f"{rate * count * (2 if name == 'numba' else 4) / shared / 1e9:.1f} |",
                flush=True,
            )
        print(f"| {size} | a step: {count:,} multiply-adds, {count * 2 / 1000:,.0f} kB of halves | | | | | |")
    anew, cached = compile_seconds()
    print(f"\ncompiled in {anew:.1f} s of processor time, {cached:.2f} s from the cache")


if __name__ == "__main__":
    main()
