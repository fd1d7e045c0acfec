"""Training with Lightning, which only this folder uses: `main` is `wavasr fit`.

recipe -> splits -> `data` (batches) -> `task` (losses, optimiser, validation) -> `callbacks` (what is kept) -> `run`
"""

from wavasr.training.run import fit, main

__all__ = ["fit", "main"]
