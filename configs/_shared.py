"""What all experiments share: every section from its owner's defaults, the data set's row, the recipe of sampling."""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict, FieldReference

from configs._datasets import DATASETS
from diffrep_jax import sections
from diffrep_jax.config import parse_variant

# Few evaluations instead of the papers' 100 to 1000, chosen on small data sets: docs/samplers.md, with the published
# recipes as values. Bridges draw fresh noise; Gaussian processes follow the ODE, up to x_T and down.
FROM_ENDPOINT = {"sampler": "exponential", "grid": "uniform_lambda", "eta": 1.0, "steps": 10}
FROM_NOISE = {"sampler": "exponential", "grid": "uniform_lambda", "order": 2, "steps": 20}


def shared_config(
    dataset: str, total_steps: int, batch_size: int, sampling: dict[str, Any], image_size: int = 0
) -> ConfigDict:
    """All sections but `method` and `optim`. `sampling`: the fields of the recipe that differ from the defaults.

    image_size: 0 for that of the data set's row.

    A method that takes images refers to `data.image_size` and `data.channels` by `get_ref`.
    """
    row = DATASETS[dataset]
    shape = {"image_size": FieldReference(image_size or row.image_size), "channels": FieldReference(3)}
    config = ConfigDict(
        sections.new(
            data={"name": dataset, "split": row.split, **shape},
            train={"total_steps": total_steps, "batch_size": batch_size},
            sampling=sampling,
        )
    )
    config.tasks.prepare.size = row.prepared
    config.tasks.inspect_data.split = config.tasks.encode.split = row.split
    return config


def infer_endpoint(config: ConfigDict) -> None:
    """What edits images does so from their own x_T, in as many steps up as down."""
    for task in ("interpolate", "counterfactual", "manipulate"):
        config.tasks[task].invert_steps = config.sampling.steps


def choose(variant: str, choices: Mapping[str, Any], sizes: tuple[int, ...]) -> tuple[dict[str, str], int]:
    """The values that a variant names, and the image size: of several, that of `size=`, the first by default."""
    with_size = {"size": tuple(map(str, sizes))} if len(sizes) > 1 else {}
    chosen = parse_variant(variant, {**choices, **with_size})
    return chosen, int(chosen.get("size", sizes[0]))
