"""The official state dicts of DiTi (github.com/yue-zhongqi/diti): those of PDAE, on whose networks it trains.

Its config.yml also gives the plan of the code, which no weight determines.
"""

from typing import Any

from diffrep_jax.errors import UserError
from diffrep_jax.port import pdae
from diffrep_jax.port.config_yml import ConfigYml
from diffrep_jax.port.pdae import PARTS, check, table, unused

__all__ = ["PARTS", "UNDETERMINED", "check", "shape", "table", "unused"]

UNDETERMINED = (*pdae.UNDETERMINED, "mode", "k", "stages", "dims_per_stage")


def shape(yml: ConfigYml) -> dict[str, Any]:
    """The fields of a config's `method` section that DiTi's config.yml determines."""
    if not yml.has("ssl_config"):
        raise UserError(f"{yml.path} has no ssl_config, so it is not of DiTi; use a config of pdae.")
    fields = pdae.networks(yml)
    return fields | plan(yml, fields["latent_dim"])


def plan(yml: ConfigYml, latent_dim: int) -> dict[str, Any]:
    """`mode`, `k` and which block has which dimensions; without `dims_per_stage` there, all have as many."""
    place = "ssl_config"
    yml.require("diffusion_config.timesteps", 1000)
    if yml.has(f"{place}.k_per_stage"):
        raise UserError(
            f"{yml.path} has {place}.k_per_stage, whose blocks the official code lets start elsewhere than at the "
            "stages; such checkpoints are not supported here."
        )
    k = yml.number(f"{place}.k")
    if yml.has(f"{place}.dims_per_stage"):
        stages, dims = yml.numbers(f"{place}.stages"), yml.numbers(f"{place}.dims_per_stage")
    elif k < 1 or latent_dim % k:
        raise UserError(f"{yml.path} has {place}.k={k}, which does not divide latent_dim={latent_dim} evenly.")
    else:
        stages, dims = (1000,), (latent_dim,)
    mode = yml.text(f"{place}.pdae_mode") if yml.has(f"{place}.pdae_mode") else "base"
    return {"mode": mode, "k": k, "stages": stages, "k_per_stage": (), "dims_per_stage": dims}
