"""The task of recognition: CTC, the generative loss, the frame loss and the CRF denominator of a `Recognizer`."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import nn

from wavasr.decoding.greedy import PRIORS, greedy
from wavasr.evaluation import metrics
from wavasr.language.text import Units
from wavasr.network.geometry import frames_of
from wavasr.network.inpainting import SampleLikelihood, likelihood_path
from wavasr.network.recognizer import Recognizer, save_model
from wavasr.network.wavenet import Features
from wavasr.training.config import FitConfig
from wavasr.training.dataset import Batch
from wavasr.training.losses import CrfDenominator, CtcLoss, FrameLoss, GenerativeLoss, Loss, Outputs, ctc_nats
from wavasr.training.processes import connected
from wavasr.training.task import Task, gathered, seed_of

log = logging.getLogger("wavasr")

_EXAMPLES = 2  # recognised texts that are shown after each validation


class Validated(NamedTuple):
    """One validation utterance: its text, what was recognised, and its losses in nats."""

    reference: str
    hypothesis: str
    ctc_nats: float
    crf_nats: float
    labels: int


class RecognitionTask(Task[Recognizer]):
    """Losses and validation of a `Recognizer`, which itself knows nothing of them.

    Args:
        recognizer: the network.
        config: the run's configuration.
        frame_phones: how many classes the frame loss has; 0 for none.
        texts: the labels of the training texts, where `auxiliary.crf_weight` needs them.
    """

    def __init__(
        self, recognizer: Recognizer, config: FitConfig, frame_phones: int = 0, texts: Sequence[Sequence[int]] = ()
    ) -> None:
        auxiliary = config.auxiliary
        losses: list[Loss] = [CtcLoss(1.0)]
        if auxiliary.weight:
            losses.append(GenerativeLoss(config.encoder, auxiliary))
        if frame_phones:
            width = config.encoder.stages[-1].output_channels
            losses.append(FrameLoss(auxiliary.frame_weight, width, frame_phones))
        if auxiliary.crf_weight:
            losses.append(CrfDenominator(auxiliary.crf_weight, texts, len(recognizer.units)))
        super().__init__(recognizer, losses, config.optim, config.seed)
        self.phone_set = config.units.phone_set
        self.pre_training = bool(config.data.unlabelled) and config.data.unlabelled_share == 1
        self.label_priors: list[float] = []  # mean probabilities on the dev set
        self._validated: dict[str, Validated] = {}
        self._label_sums = torch.zeros(len(recognizer.units) + 1, dtype=torch.float64)  # of probabilities; frames
        self._generative_sums = torch.zeros(2, dtype=torch.float64)  # nats; samples

    @property
    def recognizer(self) -> Recognizer:
        """The network that is trained."""
        return self.network

    @property
    def generative(self) -> GenerativeLoss | None:
        """The generative loss, if there is one."""
        return next((loss for loss in self.losses if isinstance(loss, GenerativeLoss)), None)

    @property
    def denominator(self) -> CrfDenominator | None:
        """The CRF denominator, if there is one."""
        return next((loss for loss in self.losses if isinstance(loss, CrfDenominator)), None)

    @property
    def chosen_by(self) -> tuple[str, str]:
        """What chooses the best epoch, and what decides between equals.

        The likeliest label of each frame tells little of a conditional random field, which leaves to the language what
        the language knows.
        """
        if self.pre_training:
            return "dev_generative_nats_per_sample", "dev_ctc_nats_per_label"
        error = "dev_per" if self.recognizer.units.is_phones else "dev_wer"
        return ("dev_crf_nats_per_label", error) if self.denominator else (error, "dev_ctc_nats_per_label")

    def audio_s(self, batch: Batch) -> float:
        """Seconds of audio in a batch, without padding."""
        return float(batch.lengths.sum()) / self.recognizer.sample_rate

    def save(self, path: Path, record: Mapping[str, Any]) -> None:
        """Write the model file, and the likelihood of samples beside it where one is trained.

        A conditional random field has learnt to leave the labels' priors out.
        """
        priors = {} if self.denominator else {PRIORS: self.label_priors}
        save_model(self.evaluated, path, {**record, **priors}, half=True)
        if self.generative is not None:  # it knows the frames of the network that is trained, not of the averaged one
            SampleLikelihood(self.recognizer.encoder, self.generative.likelihood).save(likelihood_path(path))

    def front_end(self) -> list[nn.Parameter]:
        """The stages down to 10 ms."""
        return front_end_parameters(self.recognizer)

    def kernels(self) -> list[nn.Parameter]:
        """The encoder's, not the CTC head's."""
        return [p for p in self.recognizer.encoder.parameters() if p.ndim == 3]

    def outputs(self, batch: Batch, generator: torch.Generator) -> Outputs:
        """Hide samples for the generative loss, and run the network on the others."""
        hidden = None
        if batch.front_end_frames is not None:
            features = self._above_front_end(batch)
        else:
            waveform = batch.waveform
            if self.generative is not None:
                hidden = self.generative.likelihood.hide(waveform, batch.lengths, _generators(generator, batch))
                waveform = hidden.waveform
            features = self.recognizer.features(waveform, batch.lengths)
        return Outputs(batch, features, self.recognizer.head(features[-1]), hidden)

    def _above_front_end(self, batch: Batch) -> list[Features]:
        assert batch.front_end_frames is not None
        recognizer = self.recognizer
        frames = batch.front_end_frames.to(recognizer.output.weight.dtype)
        return recognizer.features_above_front_end(
            Features(frames, frames_of(batch.lengths, recognizer.front_end_hop_samples))
        )

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Collect the loss and the greedy transcripts."""
        log_probs, frames = self.evaluated(batch.waveform, batch.lengths)
        self._add_generative_nats(batch)
        if not batch.counts:  # it took part because others need its part of the weights
            return
        nats = ctc_nats(log_probs, frames, batch)
        crf = nats
        if self.denominator is not None:
            crf = nats + self.denominator.nats(log_probs, frames, batch)
        ctc_nats_of, crf_nats_of = nats.tolist(), crf.tolist()  # one wait for the device, not one an utterance
        units = self.recognizer.units
        for row, name in enumerate(batch.ids):
            probs = log_probs[row, : int(frames[row])].double().exp().cpu()
            self._label_sums += torch.cat([probs.sum(dim=0), torch.tensor([len(probs)])])
            labels = int(batch.target_lengths[row])
            hypothesis = greedy(log_probs[row, : int(frames[row])].float().cpu()).ids
            reference = units.decode(batch.targets[row, :labels].tolist())
            self._validated[name] = Validated(
                reference, units.decode(hypothesis), ctc_nats_of[row], crf_nats_of[row], labels
            )

    def _add_generative_nats(self, batch: Batch) -> None:
        """Of the network that is trained, whose frames the likelihood knows; the same hidden spans in every epoch."""
        if self.generative is None:
            return
        generators = _generators(torch.Generator().manual_seed(self.seed), batch)
        hidden = self.generative.likelihood.hide(batch.waveform, batch.lengths, generators)
        nats = self.generative.likelihood(self.recognizer.features(hidden.waveform, batch.lengths), hidden)
        asked = hidden.classes.numel() if batch.counts else 0
        self._generative_sums += torch.tensor([float(nats) * asked, asked], dtype=torch.float64)

    def on_validation_epoch_end(self) -> None:
        """Counts are summed over the set, also over several processes, and divided once."""
        sums = sum(gathered({str(self.global_rank): self._label_sums}).values(), torch.zeros(()))
        self.label_priors = [round(float(value), 7) for value in sums[:-1] / sums[-1].clamp(min=1)]
        self._label_sums = torch.zeros_like(self._label_sums)
        validated = [one for _, one in sorted(gathered(self._validated).items())]  # sums do not depend on the processes
        references, hypotheses = [v.reference for v in validated], [v.hypothesis for v in validated]
        self.examples = list(zip(references, hypotheses, strict=True))[:_EXAMPLES]
        rates = error_rates(references, hypotheses, self.recognizer.units, self.phone_set)
        labels = max(1, sum(v.labels for v in validated))
        rates["dev_ctc_nats_per_label"] = sum(v.ctc_nats for v in validated) / labels
        if self.denominator is not None:
            rates["dev_crf_nats_per_label"] = sum(v.crf_nats for v in validated) / labels
        if self.generative is not None:
            nats, samples = sum(gathered({str(self.global_rank): self._generative_sums}).values(), torch.zeros(2))
            rates["dev_generative_nats_per_sample"] = float(nats / samples.clamp(min=1))
            self._generative_sums = torch.zeros_like(self._generative_sums)
        self._validated.clear()
        if not any(hypotheses):
            log.warning(
                "epoch %d: the output is all blanks. That is how CTC begins; if it stays so for ten epochs or more, "
                "start from a warmed front end (encoder.init) or change optim.lr",
                self.current_epoch,
            )
        for name, rate in rates.items():
            self.log(name, rate, prog_bar=name in self.chosen_by, sync_dist=connected())


def _generators(generator: torch.Generator, batch: Batch) -> list[torch.Generator]:
    """One for each utterance, so that what is drawn does not depend on which process has it."""
    seed = generator.initial_seed()
    return [torch.Generator().manual_seed(seed_of(seed, place % 2**32)) for place in batch.places]


def error_rates(
    references: Sequence[str], hypotheses: Sequence[str], units: Units, phone_set: int = 0
) -> dict[str, float]:
    """Error rates by the name they are logged under; TIMIT phones are scored on 39."""
    if units.is_phones:
        return {"dev_per": metrics.per(references, hypotheses, 39 if phone_set else None).rate}
    return {"dev_wer": metrics.wer(references, hypotheses).rate, "dev_cer": metrics.cer(references, hypotheses).rate}


def front_end_parameters(recognizer: Recognizer) -> list[nn.Parameter]:
    """Everything of the encoder that is not above the front end; nothing where there is no front end."""
    count = recognizer.encoder_config.front_end_stages
    above = {
        id(p)
        for stage in list(cast(Sequence[nn.Module], recognizer.encoder.stages))[count:]
        for p in stage.parameters()
    }
    return [p for p in recognizer.encoder.parameters() if id(p) not in above] if count else []
