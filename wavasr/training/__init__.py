"""Training with Lightning, which only this room uses: recipe -> splits -> data -> task -> callbacks -> run."""
