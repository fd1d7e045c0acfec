"""From a command line and YAML files to the training of a generator: recipes with `task: generate`."""

from __future__ import annotations

from collections.abc import Sequence

from wavasr.network.config import GeneratorConfig
from wavasr.training.generate.config import CropsConfig, GenerateConfig, ImproviseConfig, StepsConfig
from wavasr.training.generators import parse_recipe
from wavasr.training.recipe import Recipe

_GROUPS = {"generator": GeneratorConfig, "data": CropsConfig, "optim": StepsConfig, "improviser": ImproviseConfig}


def parse(argv: Sequence[str]) -> Recipe[GenerateConfig]:
    """Read the command line of `wavasr fit` for a generator; see `parse_recipe`."""
    return parse_recipe(argv, GenerateConfig, "generate", _GROUPS, {"start": "a generator's model file to go on from"})
