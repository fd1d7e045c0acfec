"""Training of generators: `wavasr fit` with a recipe whose task is generate."""
