"""The encoder: its stages, the presets, and the losses beside CTC."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from wavasr.config import check, require

FRONT_END_HOP_S = 0.010
MEL_BANDS = 80  # of a generator's conditions
CONDITION_REACH = 2  # frames to either side ("mel") that a frame's condition depends on; twice as many before ("past")


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
        level_frames: frames over which the first stage measures the local level: it then gets the samples divided
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
        counts = dict.fromkeys(("channels", "dilations", "kernel", "pool", "window"), "[1, 1000000]")
        check(self, "stage.", **counts, skip_channels="[0, 1000000]", level_frames="[0, 1000000]")
        require(len(self.dilations) >= 1, "stage.dilations is empty; expected at least one dilation")
        require(
            self.stride >= 1 and self.window >= self.stride and self.window % self.stride == 0,
            f"stage.window is {self.window} and stage.stride {self.stride}; expected a multiple of the stride",
        )
        require(
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
        dropout: share of channels dropped after each gated unit above the front end.
        init: "front-end" for the shipped warmed front end, a path of another model or front end, or "random".
    """

    preset: str = "base"
    stages: tuple[StageConfig, ...] = ()
    context: Literal["noncausal", "causal"] = "noncausal"
    sample_rate: int = 16000
    dropout: float = 0.1
    init: str = "front-end"

    def __post_init__(self) -> None:
        if not self.stages:
            require(
                self.preset in PRESETS,
                f"encoder.preset is {self.preset!r}; expected one of {sorted(PRESETS)}, or give encoder.stages",
            )
            object.__setattr__(self, "stages", PRESETS[self.preset])
        check(self, "encoder.", sample_rate="(0, inf)", dropout="[0, 1)")
        require(
            all(s.window == 1 and s.level_frames == 0 and not s.filter_bank for s in self.stages[1:]),
            "encoder.stages: only the first stage may set window, stride, level_frames and filter_bank",
        )
        require(
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
    def front_end_stages(self) -> int:
        """How many first stages are "the front end": those down to a hop of 10 ms. `init` starts them warm."""
        hop = self.stages[0].stride
        for index, stage in enumerate(self.stages):
            hop *= stage.pool
            if hop >= FRONT_END_HOP_S * self.sample_rate:
                return index + 1
        return len(self.stages)


_CYCLE = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
_TRIPLING = (1, 3, 9, 27, 81, 243, 729)


# 16 kHz -> 2 kHz -> 400 Hz -> 100 Hz: the stages that the shipped warm-up starts.
_FRONT_END = (
    StageConfig(channels=64, window=32, stride=8, level_frames=64, dilations=(1, 2, 4, 8), pool=5, pooling="energy"),
    StageConfig(channels=128, dilations=(1, 2, 4, 8), pool=4, pooling="energy"),
)


# 16 kHz -> 800 Hz -> 200 Hz -> 100 Hz: less than half the arithmetic, since long filters do what many layers had to.
_FILTER_FRONT_END = (
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


# GMAC per second of audio: paper 2.1, paper-small 0.60, swift 0.46, base 0.69.
PRESETS: dict[str, tuple[StageConfig, ...]] = {
    # Blocks over the raw samples that see 273 ms, pooled to 10 ms, then "a few non-causal convolutions" (section 3.4).
    # Non-causal blocks have three taps, so dilations triple where the paper's double.
    "paper": (
        StageConfig(channels=32, skip_channels=64, dilations=_TRIPLING * 2, level_frames=480, pool=160),
        StageConfig(channels=128, dilations=(1, 1, 1, 1)),
    ),
    # The same for training on two cores: few blocks of five taps, since number times width is what costs there; the
    # convolutions over the frames see a quarter of a second.
    "paper-small": (
        StageConfig(channels=24, skip_channels=48, kernel=5, dilations=(1, 5, 25, 125), level_frames=480, pool=160),
        StageConfig(channels=128, dilations=(1, 2, 4, 8, 1, 2)),
    ),
    "swift": (*_FILTER_FRONT_END, _TOP[0], StageConfig(channels=192, dilations=(1, 2, 4, 8) * 3)),
    "base": (*_FRONT_END, *_TOP),
}


@dataclass(frozen=True)
class AuxiliaryConfig:
    """The losses beside CTC.

    Attributes:
        weight: the generative loss in nats per sample is multiplied by this and added to CTC in nats per label;
            0 switches it off.
        hidden_share: non-causal only: share of the samples that is hidden and predicted.
        span_ms: non-causal only: length of a hidden span.
        predictor: "frames": the samples of a span are independent given the encoder's frames; "wavenet": a small causal
            WaveNet knows the samples before each one too.
        bottleneck: 0 hides samples; more hides nothing, and a WaveNet reconstructs the samples from so many channels of
            the last frames (takes `predictor: wavenet`).
        levels: mu-law classes.
        frame_weight: weight of the frame-classification loss in nats per frame; needs time-aligned phones.
        crf_weight: how much the labels have to beat all other label sequences, weighed by a trigram model of the
            training labels: 0 is CTC alone, 1 a conditional random field, for decoding with a language model; see
            `wavasr.network.crf`.
    """

    weight: float = 0.0
    hidden_share: float = 0.1
    span_ms: float = 20.0
    predictor: Literal["frames", "wavenet"] = "frames"
    bottleneck: int = 0
    levels: int = 256
    frame_weight: float = 0.0
    crf_weight: float = 0.0

    def __post_init__(self) -> None:
        check(
            self,
            "auxiliary.",
            weight="[0, inf)",
            hidden_share="(0, 1)",
            span_ms="(0, inf)",
            bottleneck="[0, inf)",
            levels="[2, inf)",
            frame_weight="[0, inf)",
            crf_weight="[0, 1]",
        )
        require(
            not self.bottleneck or self.predictor == "wavenet",
            f"auxiliary.bottleneck is {self.bottleneck} and auxiliary.predictor frames; a bottleneck tells too little "
            "for samples that are independent given it: set auxiliary.predictor: wavenet",
        )


@dataclass(frozen=True)
class GeneratorConfig:
    """A generative WaveNet: causal blocks at the sample rate, a softmax over mu-law classes, conditions at frame rate.

    Attributes:
        sample_rate: samples per second.
        hop_samples: samples in a frame of the conditions.
        channels: width of the residual stream.
        skip_channels: width of the summed skip connections.
        kernel: taps of each dilated convolution.
        dilations: one gated block per entry.
        levels: mu-law classes.
        excitation: what the classes are of. "none": of the samples, as in the paper; "lpc": of what linear prediction
            leaves of them, with the excitation one pitch period ago as further inputs.
        condition: what each frame is conditioned on. "mel": the frame's own log-mel spectrum, voicing and pitch, which
            must be given (a vocoder); "notes": likewise, with the pitch of the notes that are played and their tone as
            a further input; "past": the same of the samples before the frame; "none": nothing.
        condition_channels: width of the network between the frames and the blocks.
        speakers: names; more than one gives each a learnt vector. Training fills it from the manifests.
        speaker_channels: size of that vector.
        prediction_order: coefficients of the linear prediction.
        pre_emphasis: what is modelled is x[t] - pre_emphasis * x[t - 1].
    """

    sample_rate: int = 16000
    hop_samples: int = 160
    channels: int = 32
    skip_channels: int = 64
    kernel: int = 2
    dilations: tuple[int, ...] = _CYCLE * 2
    levels: int = 256
    excitation: Literal["none", "lpc"] = "lpc"
    condition: Literal["mel", "notes", "past", "none"] = "mel"
    condition_channels: int = 64
    speakers: tuple[str, ...] = ()
    speaker_channels: int = 32
    prediction_order: int = 16
    pre_emphasis: float = 0.85

    def __post_init__(self) -> None:
        sizes = ("channels", "skip_channels", "condition_channels", "speaker_channels", "prediction_order", "dilations")
        check(
            self,
            "generator.",
            sample_rate="[8000, inf)",
            hop_samples="[16, inf)",
            kernel="[2, inf)",
            levels="[16, inf)",
            pre_emphasis="[0, 1)",
            **dict.fromkeys(sizes, "[1, inf)"),
        )
        require(len(self.dilations) >= 1, "generator.dilations is empty; expected at least one dilation")
        require(
            self.excitation == "none" or self.condition != "none",
            "generator.excitation is lpc and generator.condition none; the prediction is made from frames: "
            "set generator.condition to mel or past",
        )
        require(
            self.excitation == "lpc" or self.condition != "notes",
            "generator.condition is notes and generator.excitation none; set generator.excitation to lpc",
        )
        require(
            self.prediction_order < self.hop_samples,
            f"generator.prediction_order is {self.prediction_order}; expected less than generator.hop_samples",
        )

    @property
    def inputs(self) -> int:
        """Channels of the network's input: the last sample; with lpc also prediction, excitation and 3 pitch taps.

        And the tone of the notes that are played, where the condition is "notes".
        """
        return 1 if self.excitation == "none" else 7 if self.condition == "notes" else 6

    @property
    def frame_features(self) -> int:
        """Numbers that describe a frame: mel bands, voicing and log lag; 0 where there is no such condition."""
        return 0 if self.condition == "none" else MEL_BANDS + 2

    @property
    def receptive_samples(self) -> int:
        """Past inputs that one output depends on, through the blocks."""
        return 1 + (self.kernel - 1) * sum(self.dilations)


NOTE_PLACES = 5  # numbers that describe how a note is struck and when
PHONE_PLACES = 8  # numbers that describe a phone's place in its word and phrase
FRAME_PLACES = 4  # numbers that describe a frame's place in its phone


@dataclass(frozen=True)
class SpeechConfig:
    """The network from phones to frames.

    Attributes:
        phones: symbols that it knows; the pause among them.
        speakers: names; more than one gives each a learnt vector. Training fills it from the manifests.
        channels: width of what is computed for each phone.
        layers: gated convolutions over the phones.
        frame_channels: width of what is computed for each frame.
        pitch_dilations: of the gated convolutions that find the pitch.
        mel_dilations: of those that find the mel spectrum.
        kernel: taps of each convolution.
        bands: of the mel spectrum.
        dropout: share of channels dropped after each convolution, in training.
    """

    phones: tuple[str, ...] = ()
    speakers: tuple[str, ...] = ()
    channels: int = 112
    layers: int = 3
    frame_channels: int = 128
    pitch_dilations: tuple[int, ...] = (1, 2, 4)
    mel_dilations: tuple[int, ...] = (1, 2, 4, 1, 2)
    kernel: int = 5
    bands: int = 80
    dropout: float = 0.1

    def __post_init__(self) -> None:
        sizes = ("channels", "layers", "frame_channels", "kernel", "bands")
        check(self, "speech.", dropout="[0, 1)", **dict.fromkeys(sizes, "[1, inf)"))
        require(self.kernel % 2 == 1, f"speech.kernel is {self.kernel}; expected an odd number")


@dataclass(frozen=True)
class ImproviserConfig:
    """A causal WaveNet over the frames of a vocoder: it makes up spectra and pitch, which the vocoder then sounds.

    Attributes:
        codes: typical spectra that a frame has one of.
        pitch_codes: typical pairs of voicing and pitch, likewise.
        channels: width of the residual stream and of the skip connections.
        kernel: taps of each dilated convolution.
        dilations: one gated block per entry.
    """

    codes: int = 256
    pitch_codes: int = 128
    channels: int = 64
    kernel: int = 2
    dilations: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64) * 2

    def __post_init__(self) -> None:
        counts = {"codes": "[2, inf)", "pitch_codes": "[2, inf)", "kernel": "[2, inf)"}
        check(self, "improviser.", channels="[1, inf)", dilations="[1, inf)", **counts)
        require(len(self.dilations) >= 1, "improviser.dilations is empty; expected at least one dilation")
