"""The config.yml of the second family's checkpoints: the shapes that it gives, and what is refused."""

import numpy as np
import pytest

from diffrep_jax.errors import UserError
from diffrep_jax.methods.base import build
from diffrep_jax.port import config_yml, ddpm, diti, latent_prior, pdae
from tests.official import BASE_YML, DITI_YML, PDAE_YML, changed, official_tree, write
from tests.test_port_pdae import EXPECTED, SECTIONS

UNET = SECTIONS["ddpm"]["unet"]


def base_yml(tmp_path, **fields):
    return config_yml.read(write(tmp_path / "config.yml", changed(BASE_YML, **fields)))


def test_the_base_determines_its_network(tmp_path):
    fields = ddpm.shape(base_yml(tmp_path))
    assert fields == {"image_size": 64, "channels": 3, "unet": UNET}
    assert {type(x) for x in fields["unet"].values()} == {int, float, tuple}  # as in a config


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"denoise_fn_config__attention_resolutions": []}, {"attention": ()}),
        ({"denoise_fn_config__attention_resolutions": [4, 16]}, {"attention": (16,)}),  # 16: no level is so low
        ({"train_dataset_config__image_size": 128}, {"attention": (64, 32)}),  # factors, not sizes
        ({"denoise_fn_config__head_channel": 16, "denoise_fn_config__num_heads": 1}, {"head_dim": 16, "heads": 1}),
        ({"denoise_fn_config__dropout": "1e-1"}, {"dropout": 0.1}),  # text for YAML
    ],
)
def test_what_the_base_may_say_otherwise(tmp_path, fields, expected):
    assert ddpm.shape(base_yml(tmp_path, **fields))["unet"] == UNET | expected


def test_files_of_2022_name_the_data_set_otherwise(tmp_path):
    old = {"dataset_config": {"name": "celeba64", "image_size": 32}, "train_dataset_config": None}
    assert ddpm.shape(base_yml(tmp_path, **old))["image_size"] == 32


def test_an_autoencoder_determines_its_shape_and_its_base_the_rest(tmp_path):
    fields = pdae.shape(config_yml.find(official_tree(tmp_path, PDAE_YML)))
    assert fields == {name: SECTIONS["pdae"][name] for name in fields}
    assert set(fields) == {"image_size", "channels", "latent_dim", "unet", "encoder"}


def test_without_the_base_the_network_stays_and_the_log_says_so(tmp_path, caplog):
    fields = pdae.shape(config_yml.find(official_tree(tmp_path, PDAE_YML, base=None)))
    assert set(fields) == {"image_size", "latent_dim", "encoder"}
    assert "../pre-trained-dpms/celeba64/config.yml" in caplog.text and "method.unet is ours" in caplog.text


@pytest.mark.parametrize("name", ["FFHQ", "BEDROOM", "HORSE", "CELEBAHQ"])
def test_encoders_for_128_pixels(tmp_path, name):
    content = changed(PDAE_YML, encoder_config__model=f"{name}Encoder", train_dataset_config__image_size=128)
    fields = pdae.shape(config_yml.find(official_tree(tmp_path, content)))
    assert fields["image_size"] == 128 and fields["encoder"]["widths"] == (64, 128, 256, 256, 256)


@pytest.mark.parametrize(
    ("fields", "mode", "ends"),
    [
        ({}, "base", EXPECTED["mask_end_dim"]),
        ({"ssl_config__pdae_mode": "stop_grad"}, "stop_grad", EXPECTED["mask_end_dim"]),
        ({"ssl_config__stages": None, "ssl_config__dims_per_stage": None}, "base", np.arange(8, 513, 8)),
    ],
)
def test_diti_determines_its_plan(tmp_path, fields, mode, ends):
    own = diti.shape(config_yml.find(official_tree(tmp_path, changed(DITI_YML, **fields))))
    method = build(SECTIONS["diti"] | own)
    assert method.mode == mode
    np.testing.assert_array_equal(method.block_ends, ends)


def test_a_latent_prior_determines_its_network(tmp_path):
    network = {"input_channel": 512, "model_channel": 2048, "num_layers": 10, "time_emb_channel": 64}
    content = {"latent_denoise_fn_config": network | {"use_norm": True, "dropout": 0.0}}
    yml = config_yml.read(write(tmp_path / "config.yml", content))
    assert latent_prior.shape(yml) == {
        "clipped": True,
        "channels": 512,
        "mlp": {"width": 2048, "layers": 10, "time_width": 64},
    }
    content["latent_denoise_fn_config"]["use_norm"] = False
    with pytest.raises(UserError, match="use_norm=False; only .*use_norm=True is supported"):
        latent_prior.shape(config_yml.read(write(tmp_path / "config.yml", content)))


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"denoise_fn_config__base_channel": None}, "config.yml lacks denoise_fn_config.base_channel"),
        ({"denoise_fn_config": None}, "config.yml lacks denoise_fn_config.channel_multiplier"),
        ({"denoise_fn_config": [1]}, "config.yml lacks denoise_fn_config.channel_multiplier"),
        ({"train_dataset_config": None}, "config.yml lacks train_dataset_config.image_size"),
        ({"denoise_fn_config__base_channel": "wide"}, "base_channel='wide', which is not a whole number"),
        ({"denoise_fn_config__base_channel": True}, "base_channel=True, which is not a whole number"),
        ({"denoise_fn_config__channel_multiplier": [1, 1.5]}, "not a list of whole numbers"),
        ({"denoise_fn_config__channel_multiplier": "1;2"}, "not a list of whole numbers"),
        ({"denoise_fn_config__dropout": []}, "not a number"),
        ({"denoise_fn_config__learn_sigma": True}, "learn_sigma=True; only .*learn_sigma=False is supported"),
        ({"denoise_fn_config__use_new_attention_order": True}, "only .*use_new_attention_order=False is supported"),
        ({"denoise_fn_config__num_class": 10}, "num_class=10"),
        ({"diffusion_config__betas_type": "cosine"}, "betas_type=cosine; only .*linear"),
        ({"diffusion_config__timesteps": 4000}, "timesteps=4000"),
        ({"diffusion_config__linear_beta_end": 0.012}, "linear_beta_end=0.012"),
    ],
)
def test_a_base_that_cannot_be_read_is_named(tmp_path, fields, says):
    with pytest.raises(UserError, match=says):
        ddpm.shape(base_yml(tmp_path, **fields))


@pytest.mark.parametrize(
    ("source", "content", "says"),
    [
        (pdae, DITI_YML, r"is of DiTi \(ssl_config.k=64\).*use a config of diti"),
        (diti, PDAE_YML, "no ssl_config.*use a config of pdae"),
        (pdae, changed(PDAE_YML, encoder_config__model="CELEBA64ResNet10"), "Unknown encoder 'CELEBA64ResNet10'"),
        (pdae, changed(PDAE_YML, encoder_config__latent_dim=None), "lacks encoder_config.latent_dim"),
        (diti, changed(DITI_YML, ssl_config__k_per_stage="2,2"), "k_per_stage"),
        (diti, changed(DITI_YML, ssl_config__k=60, ssl_config__dims_per_stage=None), "k=60, which does not divide"),
    ],
)
def test_an_autoencoder_that_cannot_be_read_is_named(tmp_path, source, content, says):
    with pytest.raises(UserError, match=says):
        source.shape(config_yml.find(official_tree(tmp_path, content)))


def test_a_baseline_without_the_diffusion_loss_is_no_diti(tmp_path):
    content = changed(DITI_YML, ssl_config__no_pdae=True)
    assert pdae.shape(config_yml.find(official_tree(tmp_path, content)))["latent_dim"] == 512


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("a: [1, 2", "cannot be read as plain YAML"),
        ("- 1\n- 2\n", "holds list"),
        ("", "holds NoneType"),
        ("a: \x00", "cannot be read as plain YAML"),
    ],
)
def test_other_files_by_that_name_are_refused(tmp_path, content, says):
    write(tmp_path / "config.yml", content)
    with pytest.raises(UserError, match=says) as refusal:
        config_yml.find(tmp_path / "latest.pt")
    assert str(tmp_path / "config.yml") in str(refusal.value)


def test_tags_of_python_are_refused_and_do_not_run(tmp_path):
    ran = tmp_path / "ran"
    for tag in (
        f"!!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path ['{ran}']]",
        "!!python/tuple [1]",
    ):
        write(tmp_path / "config.yml", f"denoise_fn_config: {tag}\n")
        with pytest.raises(UserError, match="cannot be read as plain YAML: could not determine a constructor"):
            config_yml.find(tmp_path / "latest.pt")
    assert not ran.exists()


def test_no_file_is_no_error(tmp_path):
    write(tmp_path / "config.yml", "nothing: here")  # two folders up, which is nowhere special
    (tmp_path / "a").mkdir()
    assert config_yml.find(tmp_path / "a" / "latest.pt") is None
