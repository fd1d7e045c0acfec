"""Text and units, lexicon, pronunciation, n-gram models."""
