"""What can go wrong because of an input, said in one line: what was found, what was expected, what to do.

The command line prints the message of a `WavasrError` and exits with code 2; every other exception is a bug.
"""


class WavasrError(Exception):
    """A mistake in an input. The message is one line that names the file or key and the remedy."""


class AudioError(WavasrError):
    """A recording that cannot be read or used."""


class ConfigError(WavasrError):
    """A configuration key or value that cannot be used."""


class CorpusError(WavasrError):
    """A corpus folder or manifest that is not as its layout says."""


class ModelError(WavasrError):
    """A model file that cannot be loaded."""


class TextError(WavasrError):
    """A transcript with symbols outside the inventory."""
