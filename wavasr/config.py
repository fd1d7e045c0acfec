"""Typed, frozen configuration: what a network is, how its text is spelled, how it is trained.

Every dataclass here can be written in YAML (`wavasr fit --config`), is checked when it is made, and those that
a model needs (`EncoderConfig`, `TextConfig`) travel inside the model file as JSON.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from wavasr.errors import ConfigError

T = TypeVar("T")

EAR_HOP_S = 0.010


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)


def _one_of(key: str, value: object, *choices: object) -> None:
    _require(value in choices, f"{key} is {value!r}; expected one of {', '.join(map(str, choices))}")


@dataclass(frozen=True)
class StageConfig:
    """One stage of the encoder: a stack of gated residual blocks at one rate, then pooling.

    Attributes:
        channels: width of the residual stream.
        dilations: one gated block per entry, e.g. (1, 2, 4, 8).
        kernel: taps of each dilated convolution.
        skip_channels: width of the summed skip connections; 0 means as wide as `channels`.
        pool: how many frames are averaged into one at the stage's end.
        pooling: "mean" of the post-net's output, or "energy": the mean beside the logarithm of the mean square.
        window: samples that the first stage's input projection sees (1 = the 1x1 projection of the WaveNet paper);
            a multiple of `stride`.
        stride: samples between two input frames of the first stage.
        level_frames: frames over which the first stage measures the local level: it then hears the samples divided
            by that level, with its logarithm as one more channel; 0 feeds the samples as they are.
        filter_bank: the first stage's input projection starts as band filters on the mel scale, in pairs of cosine and
            sine, and joins the skip connections: the stage's energies start as a log-mel spectrum.
    """

    channels: int
    dilations: tuple[int, ...] = (1, 2, 4, 8)
    kernel: int = 3
    skip_channels: int = 0
    pool: int = 1
    pooling: Literal["mean", "energy"] = "mean"
    window: int = 1
    stride: int = 1
    level_frames: int = 0
    filter_bank: bool = False

    def __post_init__(self) -> None:
        _require(self.channels >= 1, f"stage.channels is {self.channels}; expected at least 1")
        _require(self.skip_channels >= 0, f"stage.skip_channels is {self.skip_channels}; expected 0 or more")
        _require(len(self.dilations) >= 1, "stage.dilations is empty; expected at least one dilation")
        _require(all(d >= 1 for d in self.dilations), f"stage.dilations is {self.dilations}; each must be at least 1")
        _require(self.kernel >= 1, f"stage.kernel is {self.kernel}; expected at least 1")
        _require(self.pool >= 1, f"stage.pool is {self.pool}; expected at least 1")
        _require(
            self.stride >= 1 and self.window >= self.stride and self.window % self.stride == 0,
            f"stage.window is {self.window} and stage.stride {self.stride}; expected a multiple of the stride",
        )
        _require(self.level_frames >= 0, f"stage.level_frames is {self.level_frames}; expected 0 or more")
        _require(
            not self.filter_bank
            or (
                self.channels % 2 == 0
                and self.skip_width == self.channels
                and self.pooling == "energy"
                and self.window >= 2
            ),
            "stage.filter_bank takes an even stage.channels, stage.skip_channels 0, stage.pooling energy and a "
            f"stage.window of 2 or more; found {self.channels}, {self.skip_channels}, {self.pooling} and {self.window}",
        )

    @property
    def skip_width(self) -> int:
        """Channels of the summed skip connections."""
        return self.skip_channels or self.channels

    @property
    def output_channels(self) -> int:
        """Channels that the stage hands on."""
        return self.skip_width * (2 if self.pooling == "energy" else 1) + (1 if self.level_frames else 0)


@dataclass(frozen=True)
class EncoderConfig:
    """A WaveNet encoder: a list of stages; the product of stride and pools is the hop of a CTC frame.

    Attributes:
        preset: a name in `PRESETS`, or "custom" with `stages` given.
        stages: the stages themselves; left empty they come from the preset.
        context: "noncausal" (symmetric padding, for recognition) or "causal" (no look-ahead).
        sample_rate: samples per second of the input.
        dropout: share of channels dropped after each gated unit above the ear.
        init: "ear" for the shipped warmed ear, a path of another model or ear, or "random".
    """

    preset: str = "base"
    stages: tuple[StageConfig, ...] = ()
    context: Literal["noncausal", "causal"] = "noncausal"
    sample_rate: int = 16000
    dropout: float = 0.1
    init: str = "ear"

    def __post_init__(self) -> None:
        if not self.stages:
            _require(
                self.preset in PRESETS,
                f"encoder.preset is {self.preset!r}; expected one of {sorted(PRESETS)}, or give encoder.stages",
            )
            object.__setattr__(self, "stages", PRESETS[self.preset])
        _require(self.sample_rate > 0, f"encoder.sample_rate is {self.sample_rate}; expected samples per second")
        _require(0.0 <= self.dropout < 1.0, f"encoder.dropout is {self.dropout}; expected 0 to below 1")
        _require(
            all(s.window == 1 and s.level_frames == 0 and not s.filter_bank for s in self.stages[1:]),
            "encoder.stages: only the first stage may set window, stride, level_frames and filter_bank",
        )
        _require(
            self.sample_rate >= 1000 or not self.stages[0].filter_bank,
            f"encoder.sample_rate is {self.sample_rate}; a filter bank begins at 60 Hz and needs 1000 or more",
        )

    @property
    def hop_samples(self) -> int:
        """Samples from one CTC frame to the next."""
        hop = self.stages[0].stride
        for stage in self.stages:
            hop *= stage.pool
        return hop

    @property
    def ear_stages(self) -> int:
        """How many first stages are "the ear": those down to a hop of 10 ms. `init` starts them warm."""
        hop = self.stages[0].stride
        for index, stage in enumerate(self.stages):
            hop *= stage.pool
            if hop >= EAR_HOP_S * self.sample_rate:
                return index + 1
        return len(self.stages)


_CYCLE = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)

# 16 kHz -> 2 kHz -> 400 Hz -> 100 Hz: the stages that the shipped warm-up starts.
_EAR = (
    StageConfig(channels=64, window=32, stride=8, level_frames=64, dilations=(1, 2, 4, 8), pool=5, pooling="energy"),
    StageConfig(channels=128, dilations=(1, 2, 4, 8), pool=4, pooling="energy"),
)
# 16 kHz -> 800 Hz -> 200 Hz -> 100 Hz: less than half the arithmetic, since long filters do what many layers had to.
_FILTER_EAR = (
    StageConfig(
        channels=96,
        window=400,
        stride=20,
        level_frames=24,
        filter_bank=True,
        kernel=2,
        dilations=(1, 2),
        pool=4,
        pooling="energy",
    ),
    StageConfig(channels=128, dilations=(1, 2, 4), pool=2, pooling="energy"),
)
_TOP = (
    StageConfig(channels=192, dilations=(1, 2), pool=2),
    StageConfig(channels=192, dilations=(1, 2, 4, 8) * 2),
)

# GMAC per second of audio: paper 4.7, small 0.56, swift 0.46, base 0.69, base-10ms 0.74, large 1.04.
PRESETS: dict[str, tuple[StageConfig, ...]] = {
    "paper": (
        StageConfig(channels=32, skip_channels=64, kernel=2, dilations=_CYCLE * 4, pool=160),
        StageConfig(channels=128, dilations=(1, 1, 1, 1)),
    ),
    "small": (
        *_EAR,
        StageConfig(channels=128, dilations=(1, 2), pool=2),
        StageConfig(channels=128, dilations=(1, 2, 4, 8)),
    ),
    "swift": (*_FILTER_EAR, _TOP[0], StageConfig(channels=192, dilations=(1, 2, 4, 8) * 3)),
    "base": (*_EAR, *_TOP),
    "base-10ms": (*_EAR, StageConfig(channels=192, dilations=(1, 2, 4, 8) * 2)),
    "large": (
        *_EAR,
        StageConfig(channels=256, dilations=(1, 2, 4, 8), pool=2),
        StageConfig(channels=256, dilations=(1, 2, 4, 8) * 3),
    ),
}


@dataclass(frozen=True)
class AuxiliaryConfig:
    """The losses beside CTC.

    Attributes:
        weight: the generative loss in nats per sample is multiplied by this and added to CTC in nats per label;
            0 switches it off.
        hidden_share: non-causal only: share of the samples that is hidden and predicted.
        span_ms: non-causal only: length of a hidden span.
        levels: mu-law classes.
        frame_weight: weight of the frame-classification loss in nats per frame; needs time-aligned phones.
        crf_weight: how much the labels have to beat all other label sequences, weighed by a trigram model of the
            training labels: 0 is CTC alone, 1 a conditional random field, for decoding with a language model; see
            `wavasr.network.crf`.
    """

    weight: float = 0.0
    hidden_share: float = 0.1
    span_ms: float = 20.0
    levels: int = 256
    frame_weight: float = 0.0
    crf_weight: float = 0.0

    def __post_init__(self) -> None:
        _require(0 <= self.crf_weight <= 1, f"auxiliary.crf_weight is {self.crf_weight}; expected 0 to 1")
        _require(self.weight >= 0, f"auxiliary.weight is {self.weight}; expected 0 or more")
        _require(0 < self.hidden_share < 1, f"auxiliary.hidden_share is {self.hidden_share}; expected between 0 and 1")
        _require(self.span_ms > 0, f"auxiliary.span_ms is {self.span_ms}; expected more than 0")
        _require(self.levels >= 2, f"auxiliary.levels is {self.levels}; expected at least 2")


@dataclass(frozen=True)
class TextConfig:
    """How a transcript is spelled before it becomes labels; the model file carries it.

    Attributes:
        case: "lower", "upper" or "keep".
        punctuation: "drop" (apostrophes inside words stay) or "keep".
        strip_symbols: characters removed wherever they stand, e.g. "+" for festvox-ru's stress marks.
        digits: "keep" digits as they are, or "spell" them one by one in English ("42" -> "four two").
    """

    case: Literal["lower", "upper", "keep"] = "lower"
    punctuation: Literal["drop", "keep"] = "drop"
    strip_symbols: str = ""
    digits: Literal["keep", "spell"] = "keep"

    def __post_init__(self) -> None:
        _one_of("text.case", self.case, "lower", "upper", "keep")
        _one_of("text.punctuation", self.punctuation, "drop", "keep")
        _one_of("text.digits", self.digits, "keep", "spell")


@dataclass(frozen=True)
class UnitsConfig:
    """What the CTC head spells with.

    Attributes:
        kind: "characters" or "words" (collected from the training text), "sentencepiece" (trained on it), "phones" (the
            transcripts are phone sequences).
        size: vocabulary size of SentencePiece; unused by the others.
        phone_set: for TIMIT phones: which folding the labels use (61, 48 or 39); 0 for phones of another set, which
            are taken as they are.
        out_of_inventory: what a validation or training transcript with an unknown symbol does: an "error" naming
            utterance and symbol, or "drop" it and count it.
    """

    kind: Literal["characters", "words", "sentencepiece", "phones"] = "characters"
    size: int = 128
    phone_set: Literal[61, 48, 39, 0] = 48
    out_of_inventory: Literal["error", "drop"] = "error"

    def __post_init__(self) -> None:
        _one_of("units.kind", self.kind, "characters", "words", "sentencepiece", "phones")
        _one_of("units.phone_set", self.phone_set, 61, 48, 39, 0)
        _one_of("units.out_of_inventory", self.out_of_inventory, "error", "drop")
        _require(self.size >= 2, f"units.size is {self.size}; expected at least 2")


@dataclass(frozen=True)
class AugmentConfig:
    """What is done to training audio (never to validation audio); probabilities are per utterance.

    Attributes:
        speed: tempo factors, drawn uniformly from (low, high): 1.1 makes speech faster and higher.
        gain_db: random gain in dB, uniform in (low, high).
        noise_dir: folder of noise recordings (searched recursively); None for no noise.
        noise_probability: share of utterances that get noise.
        snr_db: signal-to-noise ratio in dB, uniform in (low, high).
        room_dir: folder of room impulse responses; None for none.
        room_probability: share of utterances convolved with a room.
        equaliser_db: most dB by which parts of the spectrum are raised or lowered, smoothly, as microphones differ.
        time_masks: most spans set to silence per second of audio.
        time_mask_s: longest masked span in seconds.
        band_masks: most frequency bands removed per utterance.
        band_mask_mel: widest removed band, as a share of the mel axis.
        telephone_probability: share of utterances limited to 300-3400 Hz.
    """

    speed: tuple[float, float] = (1.0, 1.0)
    gain_db: tuple[float, float] = (0.0, 0.0)
    noise_dir: Path | None = None
    noise_probability: float = 0.0
    snr_db: tuple[float, float] = (5.0, 30.0)
    room_dir: Path | None = None
    room_probability: float = 0.0
    equaliser_db: float = 0.0
    time_masks: float = 0.0
    time_mask_s: float = 0.1
    band_masks: int = 0
    band_mask_mel: float = 0.15
    telephone_probability: float = 0.0

    def __post_init__(self) -> None:
        for name in ("speed", "gain_db", "snr_db"):
            low, high = getattr(self, name)
            _require(low <= high, f"augment.{name} is ({low}, {high}); expected (low, high)")
        _require(self.speed[0] > 0, f"augment.speed is {self.speed}; factors must be above 0")
        _require(self.equaliser_db >= 0, f"augment.equaliser_db is {self.equaliser_db}; expected 0 or more")
        for name in ("noise_probability", "room_probability", "telephone_probability"):
            value = getattr(self, name)
            _require(0.0 <= value <= 1.0, f"augment.{name} is {value}; expected 0 to 1")


@dataclass(frozen=True)
class DataConfig:
    """Which recordings are trained on, and how they become batches.

    Attributes:
        root: folder that the manifests are relative to.
        train: manifests (JSON lines) to train on.
        dev: manifests that choose the best epoch; empty: a part of `train` is held out.
        test: manifests that the finished model is evaluated on, once.
        dev_speakers: hold out this many speakers of `train`, at equal distances in the sorted names.
        dev_every: hold out every n-th utterance of `train`; only where the test set has the same speakers too.
        batch_s: seconds of audio in a batch, padding included.
        buckets: how many different batch lengths; each new shape costs CPU convolutions a new plan.
        short_first_epochs: in the first epochs short utterances come first: CTC finds their letters sooner
            (SortaGrad, Amodei et al. 2016, arXiv 1512.02595).
        max_s: training utterances longer than this are left out and counted; 0 for no limit.
        workers: processes that augment and pad; 0 does it in the training process.
        cache: "memory" keeps all audio decoded (115 MB an hour at 16 kHz), "none" reads files at each use.
        infeasible: what an utterance does whose frames are too few for its labels: an "error" that names it, or "drop".
        sources: name, licence and attribution of the recordings; the model file carries them, `wavasr info` tells them.
    """

    root: Path = Path()
    train: tuple[str, ...] = ("train.jsonl",)
    dev: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    dev_speakers: int = 0
    dev_every: int = 0
    batch_s: float = 60.0
    buckets: int = 8
    short_first_epochs: int = 0
    max_s: float = 0.0
    workers: int = 1
    cache: Literal["memory", "none"] = "memory"
    infeasible: Literal["error", "drop"] = "error"
    sources: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _require(len(self.train) > 0, "data.train is empty; expected at least one manifest")
        for name, least in (
            ("short_first_epochs", 0),
            ("dev_speakers", 0),
            ("dev_every", 0),
            ("buckets", 1),
            ("workers", 0),
            ("max_s", 0),
        ):
            value = getattr(self, name)
            _require(value >= least, f"data.{name} is {value}; expected {least} or more")
        _require(self.dev_every != 1, "data.dev_every is 1, which leaves nothing to train on; expected 0 or 2 and more")
        _require(
            bool(self.dev) + bool(self.dev_speakers) + bool(self.dev_every) == 1,
            f"data.dev is {list(self.dev)}, data.dev_speakers {self.dev_speakers}, data.dev_every {self.dev_every}; "
            "set exactly one of them: without speech to validate on there is no best epoch",
        )
        _require(self.batch_s > 0, f"data.batch_s is {self.batch_s}; expected seconds above 0")


@dataclass(frozen=True)
class OptimConfig:
    """The optimiser, its learning rate over the steps, and the average of the weights that is kept.

    Attributes:
        method: "muon": steps equally long in all directions for the encoder's kernels, AdamW for the rest; or "adamw".
        lr: highest learning rate; about 3e-3 for muon, 1e-3 for adamw.
        weight_decay: of matrices and kernels; vectors (gains, biases) have none.
        betas: decay of AdamW's two moments.
        warmup_steps: steps over which the learning rate rises from 0 to `lr`.
        decay: after that, "cosine" to `final_lr_scale` at the last step of `trainer.max_epochs`, or "inverse_sqrt".
        final_lr_scale: where the cosine ends, as a share of `lr`.
        average_decay: weight of the past in the exponential moving average of the weights, which is what is validated
            and saved; it starts low, so that the average always covers about the last tenth of training. 0: no average.
        ear_frozen_epochs: epochs in which the ear stays as it is and only what is above it learns (much faster).
        ear_copies: so many augmented versions of the training speech are heard once and their ear frames kept in files
            (185 MB for an hour and version) while the ear is frozen; each epoch masks the next version's frames anew.
            The generative loss, which needs samples, then starts with the first epoch that listens again.
            0: the ear listens afresh in every epoch.
        ear_cache: folder of these files, for runs with the same ear, speech and augmentation to share; None: `ear` in
            the run's folder, deleted when the ear listens again.
        ear_lr_scale: learning rate of the ear after that, as a share of the others'.
    """

    method: Literal["muon", "adamw"] = "muon"
    lr: float = 3e-3
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.98)
    warmup_steps: int = 200
    decay: Literal["cosine", "inverse_sqrt"] = "cosine"
    final_lr_scale: float = 0.02
    average_decay: float = 0.999
    ear_frozen_epochs: int = 0
    ear_copies: int = 0
    ear_cache: Path | None = None
    ear_lr_scale: float = 0.3

    def __post_init__(self) -> None:
        _one_of("optim.method", self.method, "muon", "adamw")
        _require(self.lr > 0, f"optim.lr is {self.lr}; expected more than 0")
        _require(self.weight_decay >= 0, f"optim.weight_decay is {self.weight_decay}; expected 0 or more")
        _require(all(0 <= b < 1 for b in self.betas), f"optim.betas is {self.betas}; expected 0 to below 1")
        _require(self.warmup_steps >= 0, f"optim.warmup_steps is {self.warmup_steps}; expected 0 or more")
        for name in ("final_lr_scale", "ear_lr_scale"):
            value = getattr(self, name)
            _require(0 <= value <= 1, f"optim.{name} is {value}; expected 0 to 1")
        _require(0 <= self.average_decay < 1, f"optim.average_decay is {self.average_decay}; expected 0 to below 1")
        for name in ("ear_frozen_epochs", "ear_copies"):
            value = getattr(self, name)
            _require(value >= 0, f"optim.{name} is {value}; expected 0 or more")


NOTHING = Path("none")


@dataclass(frozen=True)
class DecodingConfig:
    """How log-probabilities become text.

    Attributes:
        beam: hypotheses that the beam keeps; 0: as many as are usual with a language model, greedy decoding without.
        n_best: hypotheses in the result.
        lm: an n-gram model of words (of phones, for phones without a lexicon): ARPA, also as .gz, or KenLM binary.
            None: the one that lies beside the model file, if any; `NOTHING`: none.
        lexicon: the words that may be said, one a line; for phones with how they are pronounced, as in CMUdict. None:
            likewise the one beside the model file, otherwise the words of the language model; `NOTHING`: no list.
        lm_words_only: whether words of the lexicon that the language model does not know are left out. So it is where a
            language model is named and the lexicon is the one beside the model file.
        lm_weight: weight of the language model's logarithms; None: as tuned beside the model, else the decoder's own.
        word_score: nats that a word (a phone, for phones without a lexicon) earns; None: likewise.
        blank_penalty: nats that a frame without a label costs, so that less is left out; None: likewise, else 0.
        hotwords: words and phrases to expect.
        hotword_boost: nats that each word of a hotword earns.
        thorough: whether a recording is also heard a bit slower and faster; of the three texts the one is kept that
            costs least. It takes three times as long, and needs words or a language model.
    """

    beam: int = 0
    n_best: int = 1
    lm: Path | None = None
    lexicon: Path | None = None
    lm_words_only: bool = False
    lm_weight: float | None = None
    word_score: float | None = None
    blank_penalty: float | None = None
    hotwords: tuple[str, ...] = ()
    hotword_boost: float = 5.0
    thorough: bool = False

    def __post_init__(self) -> None:
        _require(self.beam >= 0, f"beam is {self.beam}; expected 0 or more")
        _require(self.n_best >= 1, f"n_best is {self.n_best}; expected at least 1")
        _require(
            self.beam == 0 or self.n_best <= self.beam,
            f"n_best is {self.n_best} and beam {self.beam}; the beam cannot give more than it keeps",
        )
        _require(
            self.lm_weight is None or 0 <= self.lm_weight < float("inf"),
            f"lm_weight is {self.lm_weight}; expected 0 or more",
        )
        for name in ("word_score", "blank_penalty", "hotword_boost"):
            value = getattr(self, name)
            _require(value is None or abs(value) < float("inf"), f"{name} is {value}; expected a finite number of nats")

    @property
    def searches(self) -> bool:
        """Whether it takes more than the model's own output to decode."""
        return bool(self.lm or self.lexicon or self.hotwords)

    @property
    def only_lm_words(self) -> bool:
        """Whether a language model limits the words to its own."""
        return self.lm is not None and self.lm_words_only


@dataclass(frozen=True)
class FitConfig:
    """Everything that decides a training run except the machine it runs on (`trainer.*`).

    Attributes:
        run_dir: where logs, checkpoints, the model and its reports go.
        seed: start of every random choice: weights, batches, augmentation, dropout.
        start: a model file to go on from (fine-tuning) instead of `encoder.init`: its encoder, and the outputs of the
            units that it shares.
        checkpoint_minutes: a checkpoint to resume from is written this often, and after every epoch.
    """

    run_dir: Path
    seed: int = 0
    start: str = ""
    checkpoint_minutes: float = 10.0
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    auxiliary: AuxiliaryConfig = field(default_factory=AuxiliaryConfig)
    text: TextConfig = field(default_factory=TextConfig)
    units: UnitsConfig = field(default_factory=UnitsConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    data: DataConfig = field(default_factory=lambda: DataConfig(dev=("dev.jsonl",)))
    optim: OptimConfig = field(default_factory=OptimConfig)

    def __post_init__(self) -> None:
        _require(self.checkpoint_minutes > 0, f"checkpoint_minutes is {self.checkpoint_minutes}; expected more than 0")
        _require(0 <= self.seed < 2**32, f"seed is {self.seed}; expected 0 to 2**32 - 1")


def from_dict(cls: type[T], values: dict[str, Any]) -> T:
    """Build a dataclass from JSON values (lists become tuples, dicts nested dataclasses).

    Raises:
        ConfigError: an unknown key, or a key without value and default.
    """
    hints = typing.get_type_hints(cls)
    unknown = set(values) - set(hints)
    _require(not unknown, f"{cls.__name__} has no key {sorted(unknown)}; known keys: {sorted(hints)}")
    try:
        return cls(**{key: _convert(hints[key], value) for key, value in values.items()})
    except TypeError as error:
        raise ConfigError(f"{cls.__name__}: {error}") from error


def _convert(hint: Any, value: Any) -> Any:
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        inner = [h for h in typing.get_args(hint) if h is not type(None)]
        return None if value is None else _convert(inner[0], value)
    if origin is tuple:
        return tuple(_convert(typing.get_args(hint)[0], v) for v in value)
    if dataclasses.is_dataclass(hint) and isinstance(value, dict):
        return from_dict(typing.cast(type, hint), value)
    return Path(value) if hint is Path else value


def to_dict(config: Any) -> dict[str, Any]:
    """The dataclass as JSON-ready values (tuples become lists, paths strings)."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: plain(v) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [plain(v) for v in value]
        return value.as_posix() if isinstance(value, Path) else value

    return typing.cast(dict[str, Any], plain(dataclasses.asdict(config)))
