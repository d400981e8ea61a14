"""The official state dicts of DiTi (github.com/yue-zhongqi/diti): those of PDAE, on whose networks it trains."""

from diffrep_jax.port.pdae import check, table, unused

__all__ = ["check", "table", "unused"]
