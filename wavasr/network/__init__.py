"""The acoustic model: WaveNet blocks, encoder, recogniser, model files, runtimes."""
