"""A wheel also has launch/ and configs/, in diffrep_jax/share, where `diffrep_jax.command` finds them."""

from setuptools import find_packages, setup

SHARED = ("launch", "configs")

setup(
    packages=[*find_packages(include=["diffrep_jax*"]), *(f"diffrep_jax.share.{name}" for name in SHARED)],
    package_dir={f"diffrep_jax.share.{name}": name for name in SHARED},
)
