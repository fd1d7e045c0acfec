"""From a command line and YAML files to the training of a generator: recipes with `task: generate`."""

from __future__ import annotations

from collections.abc import Sequence

from wavasr.network.config import GeneratorConfig
from wavasr.training.generate.config import GenerateConfig, ImproviseConfig, RecordingsConfig, StepsConfig
from wavasr.training.recipe import Recipe, add_groups, add_run, new_parser, read

TASK = "generate"
_GROUPS = {"generator": GeneratorConfig, "data": RecordingsConfig, "optim": StepsConfig, "improviser": ImproviseConfig}


def parse(argv: Sequence[str]) -> Recipe[GenerateConfig]:
    """Read the command line of `wavasr fit` for a generator.

    Raises:
        ConfigError: an unknown key (with the nearest known one), a value of the wrong kind, a file that is missing.
        SystemExit: after `--help` and `--print_config`.
    """
    parser = new_parser("Train a generator from a recipe; any key can be overridden.")
    parser.add_argument("--task", default=TASK, help="what is trained: a generator")
    parser.add_argument("--start", default=GenerateConfig.start, help="a generator's model file to go on from")
    add_groups(parser, _GROUPS)
    add_run(parser)
    parser.set_defaults({"trainer.max_epochs": 100, "trainer.gradient_clip_val": 1.0, "trainer.log_every_n_steps": 10})
    found = read(argv, parser)
    values = found.values
    config = GenerateConfig(
        found.run_dir, seed=values.seed, start=values.start, **{name: found.made[name] for name in _GROUPS}
    )
    return Recipe(config, values.trainer.as_dict(), values.resume, found.text)
