"""The papers' tables as they are printed, and what is known of how each number was measured.

A dash is a number that was not found. Settings that a paper does not tell are left out: they are not compared.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

HIGHER, LOWER = "higher", "lower"


@dataclasses.dataclass(frozen=True)
class Column:
    """One measure of a table.

    Attributes:
      measure: the name that `measured.py` gives to it; "" where no task measures it.
      better: "higher", "lower", or "" where neither is.
      settings: how it was measured; compared with ours, name by name.
      remarks: what differs or is unknown whatever our settings are.
      task: what measures it, with the overrides for the published data.
    """

    name: str
    measure: str = ""
    better: str = ""
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    task: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Table:
    """A table, or the part of one whose models have seen one data set.

    Attributes:
      dataset, image_size: what was trained on; None where that varies. Without a size it is beside no run.
      rows: {method: one value a column, as printed}.
      ours: {method: the fields of `config.method` that make a run a run of it}.
      training_images: how many the paper's own models have seen, repeated ones counted again.
    """

    paper: str
    place: str
    title: str
    dataset: str | None
    image_size: int | None
    columns: tuple[Column, ...]
    rows: Mapping[str, tuple[str, ...]]
    ours: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    training_images: float | None = None


def _rows(printed: str) -> dict[str, tuple[str, ...]]:
    """Lines of `method: value value ...`."""
    lines = (line.rpartition(":") for line in printed.strip().splitlines())
    return {method.strip(): tuple(values.split()) for method, _, values in lines}


DBAE = "Diffusion Bridge AutoEncoders (DBAE), ICLR 2025"
DIFFAE = "Diffusion Autoencoders (DiffAE), CVPR 2022"
BOTH_DBAE = {
    "DBAE-d (deterministic encoder)": {"name": "dbae", "stochastic_encoder": False},
    "DBAE (stochastic encoder)": {"name": "dbae", "stochastic_encoder": True},
}
DBAE_IMAGES = 261e6

# The linear probes of DBAE, table 1: the released scripts' settings
_HEAD = {"split": "test", "epochs": 15, "lr": 1e-3, "latent_dim": 512}
_RANGE = (
    "The range of pixels behind the published number is unknown: the released probes cannot run, the one of CelebA "
    "trains on [-3, 1], the one of LFW trains on [-1, 1] and tests on [0, 1]. Ours is [-1, 1] throughout."
)
PROBES = (
    Column(
        "AP on CelebA",
        "attributes_ap",
        HIGHER,
        {"dataset": "celeba", **_HEAD, "images": 19_962, "attributes": 40, "epoch_from": "validation"},
        (_RANGE, "The released code's CelebA test split is off by one image."),
        ("probe", "--config.tasks.probe.dataset=celeba"),
    ),
    Column(
        "r on LFW",
        "attributes_r",
        HIGHER,
        {"dataset": "lfw", **_HEAD, "attributes": 73, "epoch_from": "test"},
        (_RANGE,),
        ("probe", "--config.tasks.probe.dataset=lfw"),
    ),
    Column(
        "MSE on LFW",
        "attributes_mse",
        LOWER,
        {"dataset": "lfw", **_HEAD, "attributes": 73, "epoch_from": "test"},
        (_RANGE,),
        ("probe", "--config.tasks.probe.dataset=lfw"),
    ),
)

# DBAE, table 2: an FFHQ model on all of CelebA-HQ
_FACES = {"dataset": "celebahq", "images": 30_000, "latent_dim": 512, "x_T": "from the code alone"}
_EULER = {"sampler": "euler", "grid": "karras", "steps": 100, "evaluations": 100, "churn_step_ratio": 0.0}
_PIXELS = (
    "The settings compared are those of the DBAE rows. Their script truncates pixels to 8 bits, ours rounds; it draws "
    "the code of a stochastic encoder, ours takes its mean."
)
_SSIM = "The DBAE rows' SSIM probably comes from the script with the window along the wrong axes: trust MSE and LPIPS."
_EVALUATE = ("evaluate", "--config.tasks.evaluate.dataset=celebahq")
RECONSTRUCTION = (
    Column("size of code", "code_size"),
    Column(
        "SSIM",
        "reconstruction_ssim",
        HIGHER,
        _FACES | _EULER | {"window": "along width and channels"},
        (_PIXELS, _SSIM),
        _EVALUATE,
    ),
    Column(
        "LPIPS",
        "reconstruction_lpips",
        LOWER,
        _FACES | {"grid": "karras", "steps": 333, "churn_step_ratio": 0.33},
        (_PIXELS,),
        _EVALUATE,
    ),
    Column("MSE", "reconstruction_mse", LOWER, _FACES | _EULER, (_PIXELS,), _EVALUATE),
)

_DIFFAE = {"dataset": "celebahq", "steps": 100, "x_T": "from the code alone"}
_DIFFAE_DATA = ("Model and data are taken from DBAE's table 2, which repeats the first row.",)

_FOLDS = "Ours is the mean over five folds, as InfoDiffusion reports it."
_CODES = ("evaluate", "--config.tasks.evaluate.disentanglement_images=10000")
_SCALE = "Another network on another device: a scale, no race."
SPEED = (Column("images/s/device", "images_per_second", HIGHER, remarks=(_SCALE,)),)

TABLES = (
    Table(
        *(DBAE, "Table 1", "Linear probes of models of CelebA 64 x 64", "celeba", 64, PROBES),
        rows=_rows("""
            SimCLR: .597 .474 .603
            beta-TCVAE: .450 .378 .573
            IB-GAN: .442 .307 .597
            DiffAE: .603 .598 .421
            PDAE: .602 .596 .410
            DiTi: .623 .617 .392
            DBAE-d (deterministic encoder): .650 .635 .413
            DBAE (stochastic encoder): .655 .643 .369
        """),
        ours=BOTH_DBAE | {"PDAE": {"name": "pdae"}, "DiTi": {"name": "diti"}},
        training_images=DBAE_IMAGES,
    ),
    Table(
        *(DBAE, "Table 1", "Linear probes of models of FFHQ 128 x 128", "ffhq", 128, PROBES),
        rows=_rows("""
            SimCLR: .608 .481 .638
            beta-TCVAE: .432 .335 .608
            IB-GAN: .428 .260 .644
            DiffAE: .605 .606 .410
            PDAE: .597 .603 .416
            DiTi: .614 .622 .384
            DBAE-d (deterministic encoder): .656 .638 .404
            DBAE (stochastic encoder): .664 .675 .332
        """),
        ours=BOTH_DBAE | {"PDAE": {"name": "pdae"}, "DiTi": {"name": "diti"}},
        training_images=DBAE_IMAGES,
    ),
    Table(
        *(DBAE, "Table 2", "Reconstruction of CelebA-HQ by models of FFHQ 128 x 128", "ffhq", 128, RECONSTRUCTION),
        rows=_rows("""
            DDIM, inferred x_T: 49,152 .917 .063 .002
            DiffAE, inferred x_T: 49,664 .991 .011 6.07e-5
            PDAE, inferred x_T: 49,664 .994 .007 3.84e-5
            DiffAE, random x_T: 512 .677 .073 .007
            PDAE, random x_T: 512 .689 .098 5.01e-3
            DBAE (stochastic encoder): 512 .920 .094 4.81e-3
            DBAE-d (deterministic encoder): 512 .953 .072 2.49e-3
        """),
        ours=BOTH_DBAE | {"PDAE, random x_T": {"name": "pdae"}},
        training_images=DBAE_IMAGES,
    ),
    Table(
        *(DIFFAE, "Table 2", "Reconstruction from the code alone, x_T random, T = 100", "ffhq", 128),
        columns=(
            Column("SSIM", "reconstruction_ssim", HIGHER, _DIFFAE, _DIFFAE_DATA, _EVALUATE),
            Column("LPIPS", "reconstruction_lpips", LOWER, _DIFFAE, _DIFFAE_DATA, _EVALUATE),
            Column("MSE", "reconstruction_mse", LOWER, _DIFFAE, _DIFFAE_DATA, _EVALUATE),
        ),
        rows=_rows("""
            130 M images, code of 512: .677 .073 .007
            48 M images, code of 512: .631 .092 .010
            48 M images, code of 256: .606 .105 .011
            48 M images, code of 128: .582 .124 .013
            48 M images, code of 64: .521 .162 .020
        """),
    ),
    Table(
        *(DIFFAE, "", "Samples of models of FFHQ 128 x 128, T = 100", "ffhq", 128),
        columns=(Column("FID", "samples_fid", LOWER, {"steps": 100, "images": 50_000}, task=("evaluate",)),),
        rows=_rows("""
            DiffAE: 10.59
            DDIM: 12.03
        """),
    ),
    Table(
        *(
            "Several papers, as an aggregator lists them",
            "",
            "Disentanglement and samples, CelebA 64 x 64",
            "celeba",
            64,
        ),
        columns=(
            Column("TAD", "tad", HIGHER, {"dataset": "celeba", "images": 10_000}, (_FOLDS,), _CODES),
            Column("FID", "samples_fid", LOWER, task=("evaluate",)),
        ),
        rows=_rows("""
            InfoDiffusion: .299 22.3
            DisDiff: .305 18.2
            DiffAE: - 22.7
            EncDiff: - 14.8
        """),
    ),
    Table(
        *("Bridge samplers", "", "FID by evaluations", None, None),
        columns=(Column("evaluations"), Column("Edges2Handbags 64", better=LOWER), Column("DIODE 256", better=LOWER)),
        rows=_rows("""
            DDBM: 118 1.83 4.43
            DBIM, 20 evaluations: 20 1.74 4.99
            DBIM, 100 evaluations: 100 0.89 2.57
            DBMSolver: 20 - 2.06
        """),
    ),
    Table(
        *("Training speed", "from published days", "Images a second and device, 64 x 64", None, 64, SPEED),
        rows=_rows("""
            EDM's ADM on A100: 70
            JAX Imagen-500M on A100: 107
        """),
    ),
    Table(
        *("Training speed", "from published days", "Images a second and device, 128 x 128", None, 128, SPEED),
        rows=_rows("""
            DiffAE on V100: 42
        """),
    ),
    Table(
        *("Cost of DBAE", "counted, a multiply-add as 2", "GFLOP an image", None, None),
        columns=tuple(map(Column, ("forward", "of it: encoder", "generator", "U-Net", "training step"))),
        rows=_rows("""
            CelebA 64 x 64: 39.9 3.1 6.1 30.8 120
            FFHQ 128 x 128: 186.5 19.0 10.9 156.6 560
        """),
    ),
)
