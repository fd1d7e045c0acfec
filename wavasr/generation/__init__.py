"""Sound from a generative WaveNet: linear prediction, conditions, the sampler, voices. Nothing here needs torch."""
