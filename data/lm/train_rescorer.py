"""The second language model: a small Transformer over pieces of words, see `wavasr/language/rescoring.py`.

    python data/lm/train_rescorer.py gutenberg.txt modern.txt --minutes 55 --output rescorer.safetensors
    wavasr export default --rescorer rescorer.safetensors --rescorer-weight 0.2 -o default.wavasr

Texts have a sentence a line, in the model's spelling. Of their runs of 40 lines a third is drawn at random; in some of
these the pieces of words are found.
"""

from __future__ import annotations

import argparse
import logging
import math
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.numpy import save
from torch import Tensor, nn

from wavasr.files import write_whole
from wavasr.language.rescoring import FREQUENCIES, PIECES, REACH, narrowed
from wavasr.language.sentences import read_sentences

log = logging.getLogger("rescorer")

CHANNELS, BLOCKS, HEADS, INNER, VOCABULARY = 160, 5, 4, 448, 6000
ROWS = 32  # of REACH pieces, in a step
LOUDNESS, LEAST = 16.0, 1e-6
RUN, SHARE, FOR_PIECES = 40, 0.36, 0.03  # lines that stay together, shares of the lines
MUON_LR, ADAM_LR, WARMUP, CONSTANT = 0.02, 1.5e-3, 100, 0.2


class Block(nn.Module):
    """Attention to what comes before, and a gated layer."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.second_norm = (nn.Parameter(torch.ones(CHANNELS)) for _ in range(2))
        self.query_key_value = nn.Parameter(torch.empty(3 * CHANNELS, CHANNELS))
        self.gate_up = nn.Parameter(torch.empty(2 * INNER, CHANNELS))
        self.mix, self.down = nn.Parameter(torch.zeros(CHANNELS, CHANNELS)), nn.Parameter(torch.zeros(CHANNELS, INNER))
        for weight in (self.query_key_value, self.gate_up):
            nn.init.uniform_(weight, -(CHANNELS**-0.5), CHANNELS**-0.5)

    def forward(self, x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        """(N, L, C) to the same."""
        texts, length, _ = x.shape
        parts = F.linear(normal(x, self.norm), self.query_key_value)
        query, key, value = parts.view(texts, length, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        query, key = (turned(part, cosine, sine) for part in (query, key))
        found = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + F.linear(found.transpose(1, 2).reshape(x.shape), self.mix)
        gate, up = F.linear(normal(x, self.second_norm), self.gate_up).chunk(2, -1)
        return x + F.linear(F.silu(gate) * up, self.down)


class Network(nn.Module):
    """Pieces (N, L), at most `REACH` of them, to logits (N, L, V) of what follows each."""

    frequencies: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Parameter(0.03 * torch.randn(VOCABULARY, CHANNELS))
        self.blocks = nn.ModuleList(Block() for _ in range(BLOCKS))
        self.output_norm = nn.Parameter(torch.ones(CHANNELS))
        half = CHANNELS // HEADS // 2
        self.register_buffer("frequencies", 1e4 ** (-torch.arange(half) / half))

    def forward(self, ids: Tensor) -> Tensor:
        """See the class."""
        angles = torch.outer(torch.arange(ids.shape[1]), self.frequencies)
        x = LOUDNESS * F.embedding(ids, self.embedding)
        for block in self.blocks:
            x = block(x, angles.cos(), angles.sin())
        return F.linear(normal(x, self.output_norm), self.embedding)

    def loss(self, ids: Tensor) -> Tensor:
        """Nats of a piece of (N, L + 1)."""
        with torch.autocast("cpu", torch.bfloat16):
            logits = self(ids[:, :-1])
        return F.cross_entropy(logits.float().flatten(0, 1), ids[:, 1:].flatten())

    def named(self) -> dict[str, np.ndarray]:
        """The weights with the names of `Rescorer`."""
        found = {
            name.removeprefix("blocks.").replace("output_norm", "output.norm"): value.detach().numpy()
            for name, value in self.named_parameters()
        }
        return {**found, FREQUENCIES: self.frequencies.numpy()}


def normal(x: Tensor, gain: Tensor) -> Tensor:
    """Of unit mean square."""
    return F.rms_norm(x, (CHANNELS,), gain.to(x.dtype), LEAST)


def turned(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotary positions."""
    first, second = x.float().chunk(2, -1)
    both = torch.cat([first * cosine - second * sine, second * cosine + first * sine], -1)
    return both.to(x.dtype)


class Muon:
    """Orthogonal steps of momentum for matrices (Jordan et al. 2024), Adam for the other weights."""

    def __init__(self, network: Network) -> None:
        inner = [weight for weight in network.blocks.parameters() if weight.ndim == 2]
        self._matrices = [(weight, torch.zeros_like(weight)) for weight in inner]
        matrices = {id(weight) for weight in inner}
        self._others = [weight for weight in network.parameters() if id(weight) not in matrices]
        self._adam = torch.optim.AdamW(self._others, lr=ADAM_LR, betas=(0.9, 0.98), weight_decay=0.0)

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """One step at so much of the full rates; the gradients are gone afterwards."""
        nn.utils.clip_grad_norm_(self._others, 1.0)
        self._adam.param_groups[0]["lr"] = ADAM_LR * rate
        self._adam.step()
        for weight, momentum in self._matrices:
            assert weight.grad is not None
            momentum.lerp_(weight.grad, 0.05)
            change = orthogonal(weight.grad.lerp(momentum, 0.95))
            wide = max(1.0, weight.shape[0] / weight.shape[1]) ** 0.5
            weight.mul_(1 - 0.1 * MUON_LR * rate).sub_(change, alpha=MUON_LR * rate * wide)
            weight.grad = None
        self._adam.zero_grad(set_to_none=True)


def orthogonal(matrix: Tensor) -> Tensor:
    """Nearly the orthogonal matrix next to this one, by four steps of Newton and Schulz."""
    x = matrix.bfloat16().T if matrix.shape[0] > matrix.shape[1] else matrix.bfloat16()
    x = x / (x.norm() + 1e-7)
    for _ in range(4):
        square = x @ x.T
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return (x.T if matrix.shape[0] > matrix.shape[1] else x).float()


def runs(texts: list[Path], rng: np.random.Generator) -> Iterator[list[str]]:
    """Lines that stand together, of those that are drawn."""
    lines: list[str] = []
    for line in read_sentences(texts, str.strip):
        lines.append(line)
        if len(lines) == RUN:
            if rng.random() < SHARE:
                yield lines
            lines = []


def encoded(texts: list[Path], rng: np.random.Generator) -> tuple[bytes, np.ndarray]:
    """The pieces, as a model of sentencepiece, and the text in pieces, a sentence break before each line."""
    import sentencepiece

    drawn = list(runs(texts, rng))
    order = rng.permutation(len(drawn))
    with tempfile.TemporaryDirectory() as folder:
        some = Path(folder) / "some.txt"
        few = order[: max(1, round(len(order) * FOR_PIECES / SHARE))]
        some.write_text("\n".join(line for index in few for line in drawn[index]), encoding="utf-8")
        sentencepiece.SentencePieceTrainer.train(
            input=str(some), model_prefix=f"{folder}/pieces", vocab_size=VOCABULARY, bos_id=1, eos_id=2, unk_id=0,
            pad_id=-1, num_threads=1, max_sentence_length=10000, normalization_rule_name="identity", minloglevel=2,
        )  # fmt: skip
        pieces = Path(folder, "pieces.model").read_bytes()
    processor = sentencepiece.SentencePieceProcessor(model_proto=pieces)
    parts = [np.array([1, *ids], np.uint16) for index in order for ids in processor.encode(drawn[index])]
    return pieces, np.concatenate(parts)


def train(network: Network, text: np.ndarray, minutes: float, rng: np.random.Generator) -> None:
    """So many minutes, or once through the text: a constant rate, then falling to zero."""
    optimizer, loss_of = Muon(network), torch.compile(network.loss, dynamic=False)
    begun, mean = time.monotonic(), math.nan
    starts = rng.permutation(len(text) // REACH - 1) * REACH
    for step, places in enumerate(starts[: len(starts) // ROWS * ROWS].reshape(-1, ROWS)):
        done = max((time.monotonic() - begun) / (60 * minutes), step * ROWS / len(starts))
        if done >= 1:
            break
        rate = min(1, (step + 1) / WARMUP, (1 - done) / (1 - CONSTANT))
        loss = loss_of(torch.from_numpy(np.stack([text[at : at + REACH + 1] for at in places]).astype(np.int64)))
        loss.backward()
        optimizer.step(rate)
        mean = loss.item() if math.isnan(mean) else 0.98 * mean + 0.02 * loss.item()
        if step % 400 == 0:
            log.info("%d steps, %.0f %% of the time, %.3f nats a piece", step, 100 * done, mean)


def main() -> int:
    """Train and write the file."""
    parser = argparse.ArgumentParser(description="Train the second language model.")
    parser.add_argument("texts", nargs="+", type=Path)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.manual_seed(args.seed)
    rng = np.random.default_rng(args.seed)
    pieces, text = encoded(args.texts, rng)
    network = Network()
    log.info("%d pieces of text, %d weights", len(text), sum(weight.numel() for weight in network.parameters()))
    train(network, text, args.minutes, rng)
    write_whole(args.output, save({PIECES: np.frombuffer(pieces, np.uint8), **narrowed(network.named())}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
