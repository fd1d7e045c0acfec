"""From log-probabilities to words: greedy, beam and lexicon search, times, confidence."""
