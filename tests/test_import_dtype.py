"""What an imported run computes in: float32, as the authors' encoders, generators and heads, unless asked otherwise."""

import types

import jax
import jax.numpy as jnp
import pytest

from configs import dbae_celeba
from diffrep_jax.errors import UserError
from diffrep_jax.methods import parameters
from diffrep_jax.methods.base import build, not_in_dtype
from diffrep_jax.tasks import base
from tests.coded_models import small_config


@pytest.mark.parametrize(("wanted", "expected"), [({}, "float32"), ({"dtype": "bfloat16"}, "bfloat16")])
def test_an_imported_run_computes_in_float32_unless_asked_otherwise(wanted, expected, caplog):
    caplog.set_level("INFO")
    config = dbae_celeba.get_config().lock()
    assert config.method.dtype == "bfloat16"
    base.build("import", config.tasks["import"].to_dict() | wanted, {})._set_dtype(config)
    assert config.method.dtype == expected and config.is_locked
    said = {
        "float32": "float32, not in the config's bfloat16.",
        "bfloat16": "bfloat16; parameters, encoder, generator and",
    }
    assert f"Computes in {said[expected]}" in caplog.text


def test_what_computes_in_another_type_is_told():
    def told(dtype, **outer):
        return not_in_dtype(types.SimpleNamespace(dtype=dtype, **outer))

    assert told("float32") == told("float32", outer_dtype="float32") == ""
    assert told("bfloat16") == "; parameters, encoder, generator and heads in float32"
    assert told("bfloat16", outer_dtype="bfloat16") == "; parameters and heads in float32"
    assert told("float32", outer_dtype="bfloat16") == "; encoder and generator in bfloat16"


def test_an_empty_dtype_is_the_configs():
    config = dbae_celeba.get_config().lock()
    base.build("import", {"dtype": ""}, {})._set_dtype(config)
    assert config.method.dtype == "bfloat16"
    with pytest.raises(UserError, match="Unknown dtype 'float16' in config.tasks.import.dtype"):
        base.build("import", {"dtype": "float16"}, {})


@pytest.mark.parametrize("name", ["pdae", "diffae"])
def test_encoders_compute_in_float32_where_unets_do_not(name):
    """Traced, nothing is computed; DBAE's networks are in test_models."""
    config = small_config(name)
    with config.unlocked():
        config.method.dtype = "bfloat16"
    method = build(config.method)
    variables, image = parameters.shapes(method), jax.ShapeDtypeStruct((2, 8, 8, 1), jnp.float32)
    code = jax.ShapeDtypeStruct((2, method.latent_dim), jnp.float32)
    denoise = lambda v, z, x: method.denoiser(v, z, x)(x, jnp.asarray(5.0))  # noqa: E731
    assert "bf16" not in str(jax.make_jaxpr(method.encode)(variables, image))
    assert "bf16" in str(jax.make_jaxpr(denoise)(variables, code, image))
