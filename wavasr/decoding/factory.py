"""From a `DecodingConfig` and a model to the decoder, with what lies beside the model file."""

from __future__ import annotations

import contextlib
import gc
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from wavasr.archive import Source
from wavasr.decoding.config import NOTHING, DecodingConfig
from wavasr.decoding.decoder import BeamDecoder, Decoder, GreedyDecoder
from wavasr.decoding.greedy import priors_of
from wavasr.decoding.hotwords import LanguageScore, read_language_model
from wavasr.decoding.search import LMDecoder
from wavasr.decoding.wordlist import WordList, word_list
from wavasr.errors import ConfigError, ModelError
from wavasr.language.config import TextConfig
from wavasr.language.rescoring import Rescorer
from wavasr.language.text import Units
from wavasr.network.files import SUFFIX, language_of, resolve
from wavasr.network.runtime import AcousticModel, Cache, cache_of, stamp

_RESCORER_WEIGHT = 0.15  # the best on LibriSpeech dev, with the shipped ones

log = logging.getLogger("wavasr")


def decoder_of(config: DecodingConfig | Decoder, model: AcousticModel) -> Decoder:
    """The decoder that a configuration asks for; one that is made already as it is.

    What is read for it stays with the model for the next call, until another configuration is asked for.

    Raises:
        ConfigError: there is no such language model or lexicon, the parts do not fit together, or a hotword cannot be
            spelled.
        TextError: the language model is damaged.
        CorpusError: the lexicon is damaged.
    """
    if isinstance(config, Decoder):
        return config
    config = complete(config, model.file)
    priors = priors_of(model.metadata, len(model.units)) if config.searches else None
    if found := lm_decoder(config, model.units, model.text, cache_of(model), priors):
        return found
    if config.thorough:
        log.warning("thorough: there are no words and no language model to choose by; going on with one speed")
    return BeamDecoder(config) if config.beam or config.n_best > 1 else GreedyDecoder(config)


def complete(config: DecodingConfig, model: Path | None) -> DecodingConfig:
    """The configuration with the language model, its weights and the lexicon of a model file, unless it says others.

    A model file, or the name of a shipped model ("default"), stands for what is in it. A language model that is named
    alone brings its own words: from the model's lexicon come their spellings. One without weights of its own gets the
    weights of the model's: how sure a network is counts for more in them than how large the language model is.

    Raises:
        ModelError: the model file is damaged.
    """
    named_alone = config.lm not in (None, NOTHING) and config.lexicon is None
    named_none = config.lm is None and config.lexicon is None
    lm_owner, lexicon_owner = _owner(config.lm, model), _owner(config.lexicon, model)
    own = language_of(lm_owner)
    lm = own.lm if lm_owner else config.lm
    lexicon = language_of(lexicon_owner).lexicon if lexicon_owner else config.lexicon
    for named, found in ((config.lm, lm), (config.lexicon, lexicon)):
        if named and not found:
            raise ConfigError(f"{named}: this model carries no such file; name another, or none")
    tuned = own.weights
    if not tuned and config.lm not in (None, NOTHING) and config.lexicon != NOTHING:
        tuned = language_of(model).weights
    rescorer, second = config.rescorer, config.rescorer_weight
    if rescorer is None and lm == own.lm:  # without another n-gram model, whose texts may be of another kind
        rescorer = own.rescorer
    if rescorer not in (None, NOTHING) and second is None:
        second = own.rescorer_weight if rescorer == own.rescorer else _RESCORER_WEIGHT
    weights: dict[str, Any] = {name: value for name, value in tuned.items() if getattr(config, name) is None}
    return replace(
        config,
        lm=None if lm == NOTHING else lm,
        lexicon=None if lexicon == NOTHING else lexicon,
        rescorer=None if rescorer == NOTHING else rescorer,
        rescorer_weight=second,
        lm_words_only=config.lm_words_only or named_alone or (named_none and own.lm_words_only),
        **weights,
    )


def _owner(named: Source | None, model: Path | None) -> Path | None:
    """The model file that a lexicon or language model comes from; None where a file of its own is named."""
    if named is None:
        return model
    if isinstance(named, Path) and named != NOTHING and (named.suffix.lower() == SUFFIX or not named.is_file()):
        with contextlib.suppress(ModelError):
            return resolve(named)
    return None


def lm_decoder(
    config: DecodingConfig,
    units: Units,
    text: TextConfig,
    cache: Cache | None = None,
    priors: tuple[float, ...] | None = None,
) -> LMDecoder | None:
    """The search that a configuration asks for; None where it asks for none, or, with a warning, without the library.

    Args:
        config: complete.
        units: the model's inventory.
        text: the model's spelling.
        cache: the model's, where the decoder of the same files and configuration may be, or what was read for another
            configuration; what is made here stays there.
        priors: of the labels, see `decoding.greedy.penalised`.

    Raises:
        As `decoder_of`.
    """
    for kind, path in (("language model", config.lm), ("lexicon", config.lexicon)):
        if path and not path.is_file():
            if Path(str(path)).exists():
                raise ConfigError(f"{path}: is a folder, a pipe or a device; give the {kind} as a file")
            raise ConfigError(f"{path}: no such {kind}; check the path, or say `none` to go without")
    if not config.searches:
        return None
    try:
        import flashlight.lib.text.decoder.kenlm  # noqa: F401
    except ImportError as error:
        log.warning("no language model, lexicon or hotwords: flashlight-text is missing (%s); pip install it", error)
        return None
    cache = cache or Cache()
    files = config.lm, stamp(config.lm), config.lexicon, stamp(config.lexicon)
    second = config.rescorer if config.rescorer_weight else None

    def read() -> tuple[WordList | None, Any]:
        with _uncollected():
            words = word_list(config, units, text)
            return words, read_language_model(config.lm, units, words)

    def make() -> LMDecoder:
        words, lm = cache.get("language", (files, config.lm_words_only, config.hotwords), read)
        rescorer = cache.get("rescorer", (second, stamp(second)), lambda: Rescorer.read(second)) if second else None
        return LMDecoder(units, words, LanguageScore.of(config, lm, units, words, text), config, priors, rescorer)

    return cache.get("decoder", (config, files, stamp(second), priors), make)


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Without the collector of cycles, which would walk through a growing lexicon again and again: 0.5 s of 2.3 s."""
    wanted = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if wanted:
            gc.enable()
