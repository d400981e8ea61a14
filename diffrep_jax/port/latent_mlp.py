"""The state dict of the official latent prior's network, DiffAE's MLP with skips (github.com/ckczzj/PDAE)."""

from diffrep_jax.port.engine import DENSE, NORM, Rule, Table


def table(layers: int) -> Table:
    """The rules for a network of so many layers, the last one included."""
    rules = (
        Rule("time_embed.0", "time_in", DENSE),
        Rule("time_embed.2", "time_out", DENSE),
        Rule(f"layers.{layers - 1}.linear", "out", DENSE),
        Rule("layers.{i}.linear", "layer{i}", DENSE),
        Rule("layers.{i}.cond_layers.1", "scale{i}", DENSE),
        Rule("layers.{i}.linear_emb", None, DENSE),  # cond_layers.1 by another name; that is loaded last
        Rule("layers.{i}.norm", "norm{i}", NORM),
    )
    return Table(rules, {"i": {str(i): str(i) for i in range(layers - 1)}})
