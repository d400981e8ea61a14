"""The official checkpoints of the golden networks as files: nested state dicts with the config.yml of their codes."""

import copy

import yaml

from tests import golden

DIFFUSION = {"timesteps": 1000, "betas_type": "linear", "linear_beta_start": 0.0001, "linear_beta_end": 0.02}
BASE_YML = {
    "train_dataset_config": {"name": "CELEBA64", "image_size": 64, "image_channel": 3, "augmentation": True},
    "diffusion_config": DIFFUSION,
    "denoise_fn_config": {
        "model": "CELEBA64DenoiseFn",
        "dims": 2,
        "input_channel": 3,
        "base_channel": 32,
        "channel_multiplier": [1, 2, 4],
        "num_residual_blocks_of_a_block": 1,
        "dropout": 0.0,
        "attention_resolutions": [2, 4],
        "use_new_attention_order": False,
        "num_heads": 4,
        "head_channel": -1,
    },
    "optimizer_config": {"lr": "1e-4", "adam_betas": "(0.9, 0.999)"},
}
PDAE_YML = {
    "train_dataset_config": {"name": "CELEBA64", "image_size": 64, "image_channel": 3, "latent_dim": 512},
    "diffusion_config": DIFFUSION,
    "trained_ddpm_config": "../pre-trained-dpms/celeba64/config.yml",
    "trained_ddpm_checkpoint": "../pre-trained-dpms/celeba64/checkpoint.pt",
    "encoder_config": {"model": "CELEBA64Encoder", "latent_dim": 512},
    "decoder_config": {"model": "CELEBA64Decoder", "latent_dim": 512},
}
DITI_YML = PDAE_YML | {
    "ssl_config": {
        "k": 64,
        "stages": "50,100,300,500,1000",
        "dims_per_stage": "10,25,327,100,50",
        "ssl_weight": 0.0,
        "ssl_method": "simclr",
    }
}


def changed(content, **fields):
    """A copy with other values, `section__field=value`; None takes the field out."""
    content = copy.deepcopy(content)
    for name, value in fields.items():
        section, _, field = name.partition("__")
        if field:
            content[section][field] = value
            if value is None:
                del content[section][field]
        else:
            content[section] = value
            if value is None:
                del content[section]
    return content


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else yaml.dump(content))
    return path


def tensors(part):
    """A golden part, by the names that it has in the official code."""
    return golden.state_dict(golden.manifest(f"diti_tiny.{part}"), f"{part}.")


def official_tree(tmp_path, content, base=BASE_YML):
    """The folders as the official code lays them out; the path of a checkpoint that would be in them."""
    write(tmp_path / "runs" / "celeba64" / "diti64" / "config.yml", content)
    if base is not None:
        write(tmp_path / "pre-trained-dpms" / "celeba64" / "config.yml", base)
    folder = tmp_path / "runs" / "celeba64" / "diti64" / "checkpoints"
    folder.mkdir(exist_ok=True)
    return folder / "latest.pt"
