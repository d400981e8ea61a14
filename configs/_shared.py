"""What all experiments share: data, training loop, mesh and the settings of the tasks."""

from typing import Any

from ml_collections import ConfigDict, FieldReference


def shared_config(
    dataset: str, image_size: int, split: str, total_steps: int, batch_size: int, decoding: dict[str, Any]
) -> ConfigDict:
    """All sections but `method` and `optim`. `decoding`: the sampler, grid and steps of the tasks that decode.

    A method that takes images refers to `data.image_size` and `data.channels` by `get_ref`.
    """
    decoding = {"every_steps": 0, "churn_step_ratio": 0.0, "eta": 0.0, "seed": 0, "batch_size": 32} | decoding
    return ConfigDict(
        {
            "seed": 0,
            "data": {
                "name": dataset,
                "image_size": FieldReference(image_size),
                "channels": FieldReference(3),
                "split": split,
                "flip": True,
                "workers": 8,
                "worker_kind": "thread",
                "max_bad_fraction": 0.001,
            },
            "train": {
                "total_steps": total_steps,
                "max_minutes": 0.0,
                "init_from": "",
                "batch_size": batch_size,
                "microbatch_size": -1,
                "log_every": 100,
                "checkpoint_every": 5000,
                "keep_last": 2,
                "keep_every": 100_000,
            },
            "mesh": {"data": -1, "fsdp": 1},
            "tasks": _tasks(split, decoding),
        }
    )


def _tasks(split: str, decoding: dict[str, Any]) -> dict[str, Any]:
    """The settings of each task; those that decode have the same `decoding`."""
    of_images = decoding | {"split": "test", "invert_steps": 0}
    return {
        "reconstruct": of_images | {"num_images": 64, "grid_images": 8},
        "interpolate": of_images | {"first": "0", "second": "1", "points": 11, "gif": False},
        "sample": decoding
        | {
            "num_images": 64,
            "grid_images": 64,
            "prior": "",
            "prior_sampler": "exponential",
            "prior_grid": "ddim_range",
            "prior_steps": 100,
            "prior_eta": 0.0,
        },
        "counterfactual": of_images | {"first": "0", "second": "1", "ranges": (), "points": 5},
        "manipulate": of_images
        | {
            "attribute": "0",
            "scales": (-0.6, -0.3, 0.0, 0.3, 0.6),
            "num_images": 8,
            "dataset": "",
            "promask": 0,
            "epochs": 10,
            "lr": 1e-4,
            "head_batch_size": 128,
            "encode_batch_size": 64,
        },
        "prepare": {"size": 256, "crop": False, "quality": 95, "lossless": False, "workers": 8},
        "inspect_data": {"split": split, "num_images": -1, "shown": 64, "workers": 8},
        "encode": {"dataset": "", "split": "train", "num_images": -1, "batch_size": 64},
        "probe": {
            "every_steps": 0,
            "dataset": "",
            "epochs": 15,
            "lr": 1e-3,
            "batch_size": 128,
            "regression_batch_size": 64,
            "encode_batch_size": 64,
            "num_images": -1,
            "seed": 0,
        },
        "evaluate": of_images
        | {
            "dataset": "",
            "num_images": -1,
            "rows": (),
            "lpips": True,
            "fid": True,
            "interpolate_at": 0.0,
            "reference": "",
            "reconstructions": "",
            "generated": (),
            "disentanglement_images": 0,
            "dci_images": 0,
            "attributes": (),
        },
        "import": {"weights": "ema", "num_images": 16, "batch_size": 16, "seed": 0},
        "export": {},
        "report": {"every_steps": 0},
    }
