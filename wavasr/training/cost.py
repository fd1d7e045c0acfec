"""What the generative loss costs: its share of the compute of a training step, measured once and logged."""

from __future__ import annotations

import logging
import time
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from wavasr.network.wavenet import Features
from wavasr.training.recognize import RecognitionTask

log = logging.getLogger("wavasr")

_STEP = 2  # convolutions plan for new shapes in the first steps


class GenerativeCost(pl.Callback):
    """Measures the third step of a run, unless that trains on cached frames."""

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Log the share once; not among the metrics, which a resumed run repeats exactly."""
        assert isinstance(pl_module, RecognitionTask)
        # Of a run, not of each resumption, whose log would have a row that an uninterrupted one has not.
        if trainer.global_step != _STEP or pl_module.generative is None or batch.front_end_frames is not None:
            return
        with torch.random.fork_rng(devices=[]), trainer.strategy.precision_plugin.forward_context():
            share = generative_share(pl_module, batch)
        log.info("the generative loss takes %.0f %% of the compute of a training step", 100 * share)


def generative_share(task: RecognitionTask, batch: Any) -> float:
    """Time of the generative loss, forward and back to the encoder's frames, over that of the whole step."""
    assert task.generative is not None
    device = batch.waveform.device
    started = _now_s(device)
    outputs = task.outputs(batch, torch.Generator().manual_seed(0))
    _backward(task.total(task.values(outputs)), list(task.parameters()))
    whole_s = _now_s(device) - started
    frames = [feature.frames.detach().requires_grad_() for feature in outputs.features]
    features = [Features(frame, f.lengths) for frame, f in zip(frames, outputs.features, strict=True)]
    started = _now_s(device)
    _backward(task.generative(outputs._replace(features=features)), [*frames, *task.generative.parameters()])
    return (_now_s(device) - started) / whole_s


def _backward(loss: Tensor, weights: list[Any]) -> None:
    """The way back, without touching the gradients that training sums."""
    torch.autograd.grad(loss, [weight for weight in weights if weight.requires_grad], allow_unused=True)


def _now_s(device: torch.device) -> float:
    """Processor time where it computes, so that other processes do not count; else the time, when all is done."""
    if device.type == "cpu":
        return time.process_time()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
