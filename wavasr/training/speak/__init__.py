"""Training of the network from text to a vocoder's frames: recipes with `task: speak`."""
