"""Change attributes of images: move their codes along the weights w of a linear head, by scales s.

    raw:         z' = z + s sqrt(d) w / |w|,  w of a head on z                             (DBAE's code)
    normalised:  the same in the space of (z - mean) / std, with the training codes' mean and deviation  (DiffAE, DiTi)

or with `move=across` by s times the smallest step to the head's boundary, each image its own: at 1 the head doubts, at
2 it is as sure of the contrary as it was. Several attributes, "Smiling,-Male", are changed at once: by the sum of their
ways, or by the smallest step to all boundaries; a minus turns one round.

Decoded from the images' own x_T, that of the unchanged z, and their stochastic codes. The head is the one that `probe`
has left for this attribute, data set and network, else it is trained here; with `promask` it reads that many dimensions
alone, so that the others stay as they are (DiTi, section 5.3). Classes count as attributes, one against the rest; of a
measure, w is the regression's. `head` names one in a file, such as the authors' own.

Writes to `<workdir>/manipulate/`: grid.png (a row a scale), arrays.npz, head.npz and metrics.json.
"""

import dataclasses
import logging
from collections.abc import Mapping
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from diffrep_jax import data
from diffrep_jax.data.transforms import to_uint8
from diffrep_jax.errors import UserError, unknown
from diffrep_jax.fields import NOT_EMPTY, PathText, Positive, check_numbers
from diffrep_jax.inference import edit
from diffrep_jax.inference.encoded import Encoded
from diffrep_jax.inference.model import Model
from diffrep_jax.methods.base import AutoEncoder
from diffrep_jax.metrics import probe as metrics
from diffrep_jax.readout.head import Head, signed
from diffrep_jax.readout.linear import Fit, at_unit_scale, fit
from diffrep_jax.runs.layout import Run, as_path, write_arrays
from diffrep_jax.tasks import _attributes, _codes, _heads, _pictures, base
from diffrep_jax.tasks._codes import Codes

log = logging.getLogger(__name__)

SPACES = ("", "raw", "normalised")
ENDPOINTS = ("unchanged", "moved")
MOVES = ("along", "across")


@dataclasses.dataclass(frozen=True)
class Manipulate(base.PhotoTask):
    """The fields besides those of a `PhotoTask`.

    Attributes:
      attribute: its name, or its number among the data set's attributes and classes; several with commas between.
        A class that is named like an attribute: "NAME (class)".
      scales: how far to go; num_images: the first ones.
      move: "along" the weights, or "across" the boundary.
      space: that of the step, "raw" or "normalised"; "": the method's own. endpoint: x_T of the "unchanged" z, or of
        the "moved" one.
      head: a file with a head, of `probe` or `manipulate`, or DBAE's best.pt, a classifier of PDAE or DiTi, DiffAE's
        last.ckpt; it is taken as it is and needs no labels. "": none.
      dataset: what the head learns from, "" for the run's own.
      promask: how many dimensions the head may read; 0 for all.
      epochs, lr, head_batch_size, seed: of its training; encode_batch_size: images at a time.
    """

    attribute: str = "0"
    scales: Annotated[tuple[float, ...], NOT_EMPTY] = (-0.6, -0.3, 0.0, 0.3, 0.6)
    num_images: int = 8
    move: str = "along"
    space: str = ""
    endpoint: str = "unchanged"
    head: PathText = ""
    dataset: str = ""
    promask: int = 0
    epochs: int = 10
    lr: Positive = 1e-4
    head_batch_size: int = 128
    encode_batch_size: int = 64
    seed: int = 0

    def __post_init__(self):
        super().__post_init__()
        place = "tasks.manipulate"
        base.check_encoding("manipulate", self.dataset, -1, self.encode_batch_size)
        check_numbers(self, place, {"epochs": 1, "head_batch_size": 1, "num_images": 1, "promask": 0, "seed": 0})
        for field, choices in (("space", SPACES), ("endpoint", ENDPOINTS), ("move", MOVES)):
            if getattr(self, field) not in choices:
                raise unknown(field, getattr(self, field), choices, f"{place}.{field}")

    def check(self, model: Model, run: Run) -> None:
        super().check(model, run)
        if self.promask > model.latent_dim:
            raise UserError(f"tasks.manipulate.promask {self.promask} is above latent_dim={model.latent_dim}.")
        if self.head:
            _heads.check_given(as_path(self.head))
        else:
            for split in ("train", "test"):
                dataset = self._labelled(run, split)
                signs = _attributes.wanted(_attributes.names(dataset), self.attribute)
                self._check_boundary({name: _attributes.is_binary(dataset, name) for name in signs})
                for name in signs if split == "train" else ():
                    _attributes.check_varies(dataset, name)

    def run(self, model: Model, run: Run) -> dict[str, float]:
        method = model.auto_encoder
        self.check(model, run)  # not after an hour of encoding
        normalised = self.normalises(method)
        images = self._images(run)  # first what may be refused
        head, numbers = self._given(model, run) if self.head else self._trained(model, normalised, run)
        starts = range(0, len(images), self.batch_size)
        parts = [self.encode(model, images[first : first + self.batch_size], first) for first in starts]
        steps = [self._steps(head, part.z, normalised) for part in parts]
        rows = {scale: self._decode(model, steps, parts, scale) for scale in self.scales}
        # What the head says of the new images, not of the codes that they were made from.
        logits = {str(scale): head.logits(model.encode(row)) for scale, row in rows.items()}
        scores = {scale: float(values.mean()) for scale, values in logits.items()}
        numbers |= {"dimensions": int(head.kernel.any(1).sum())}
        how = {"space": "normalised" if normalised else "raw", "endpoint": self.endpoint, "head": head.trained_by}
        self._write(run, images, rows, head)
        described: dict[str, Any] = {"attribute": ", ".join(head.names), "mean_logit": scores, "move": self.move}
        if head.kind == "bce":
            shares = {scale: (values > 0).mean(0).tolist() for scale, values in logits.items()}
            described["share_positive"] = {s: dict(zip(head.names, each, strict=True)) for s, each in shares.items()}
        described |= {"images": len(images), "split": self.split}
        run.write_numbers("manipulate", numbers | how | described | self.description(model))
        return numbers

    def normalises(self, method: AutoEncoder) -> bool:
        """Whether the step is one in the space of normalised codes."""
        return self.space == "normalised" if self.space else method.edits_normalised

    def _given(self, model: Model, run: Run) -> tuple[Head, dict[str, float]]:
        """(The head of the attribute in the file, no numbers: it is not judged.)"""
        if self.promask:
            raise UserError(
                f"tasks.manipulate.promask {self.promask} is of no use to a head that is trained; set it to 0."
            )
        head = _heads.given(as_path(self.head), model, lambda: self._codes(model, "train", run)[0])
        signs = _attributes.wanted(head.names, self.attribute)
        self._check_boundary(dict.fromkeys(signs, head.kind == "bce"))
        return signed({name: head.only(name) for name in signs}, signs), {}

    def _trained(self, model: Model, normalised: bool, run: Run) -> tuple[Head, dict[str, float]]:
        """(The head of the attributes, the probe's or one trained here; how good it is on test images.)"""
        train, dataset = self._codes(model, "train", run)
        signs = _attributes.wanted(_attributes.names(train), self.attribute)
        heads = {name: self._head(train, name, dataset, normalised, run) for name in signs}
        test, _ = self._codes(model, "test", run)
        numbers: dict[str, list[float]] = {}
        for name, head in heads.items():
            measure, value = _judge(head.kind, head.logits(test.codes)[:, 0], _attributes.values(test, name))
            log.info("%s: %s %.4f on %d test images.", name, measure, value, len(test.codes))
            numbers.setdefault(measure, []).append(value)
        return signed(heads, signs), {measure: metrics.mean(np.array(values)) for measure, values in numbers.items()}

    def _check_boundary(self, binary: Mapping[str, bool]) -> None:
        """Raise UserError where the way goes across the boundary of a head that has none."""
        measured = [name for name, decides in binary.items() if not decides]
        if self.move == "across" and measured:
            raise UserError(
                f"tasks.manipulate.move=across needs attributes that an image has or lacks; '{measured[0]}' is "
                "measured: use move=along."
            )

    def _steps(self, head: Head, z: np.ndarray, normalised: bool) -> np.ndarray:
        """What a scale of 1 adds to the codes, [d] or [n, d]."""
        if self.move == "across":
            return head.to_boundary(z, normalised)
        return np.sqrt(z.shape[1]) * head.direction(normalised)

    def _codes(self, model: Model, split: str, run: Run) -> tuple[Codes, str]:
        """The codes of a split, and the name of their data set."""
        dataset = self._labelled(run, split)
        return _codes.codes_of(model, dataset, run, -1, self.encode_batch_size), dataset.name

    def _labelled(self, run: Run, split: str) -> data.ImageDataset:
        return _codes.open_labelled(run.config, self.dataset, split, self.data_dir)

    def _images(self, run: Run) -> np.ndarray:
        """The images to change, uint8."""
        dataset = self.open_images(run.config)
        self.warn_of_framing(run.config)
        count = min(self.num_images, len(dataset))
        bad = run.config.data.max_bad_fraction
        batches = data.ordered_batches(dataset, batch_size=count, num_images=count, max_bad_fraction=bad)
        return np.concatenate([batch["image"] for batch in batches])

    def _head(self, train: Codes, name: str, dataset: str, normalised: bool, run: Run) -> Head:
        targets = _attributes.values(train, name)
        if self.promask == 0 and (head := _heads.probed(run, dataset, name, train, targets)) is not None:
            log.info("The head of '%s' is the probe's.", name)
            return head
        std = np.where(train.std > 0, train.std, 1)
        mean, scale = (train.mean, std) if normalised else (np.zeros_like(std), np.ones_like(std))
        binary = _attributes.is_binary(train, name)
        values, centre, unit = (targets, 0.0, 1.0) if binary else at_unit_scale(targets)
        dimensions = self.promask or train.codes.shape[1]
        log.info("Training a head of '%s' that reads %d dimensions ...", name, dimensions)
        how = Fit(
            kind="bce" if binary else "mse",
            epochs=self.epochs,
            batch_size=min(self.head_batch_size, len(targets)),
            lr=self.lr,
            dimensions=dimensions,
        )
        codes = jnp.asarray((train.codes - mean) / scale)
        heads = jax.tree.map(np.asarray, fit(codes, jnp.asarray(values[:, None]), jax.random.key(self.seed), how))
        kernel = unit * heads.average_kernel[-1] * heads.mask[:, None] / scale[:, None]
        if not kernel.any():
            raise UserError(
                f"The head of '{name}' kept no dimension in {self.epochs} epochs; raise tasks.manipulate.epochs."
            )
        bias = unit * heads.average_bias[-1] + centre - mean @ kernel
        return Head(
            names=(name,),
            kernel=kernel,
            bias=bias,
            kind=how.kind,
            dataset=dataset,
            trained_by="manipulate",
            mean=train.mean,
            std=std,
            fingerprint=train.fingerprint,
            trained_on=(train.target_fingerprint(targets),),
        )

    def _decode(self, model: Model, steps: list[np.ndarray], parts: list[Encoded], scale: float) -> np.ndarray:
        """uint8 images of the codes, moved."""
        rows = []
        for i in base.progress(range(len(parts)), len(parts), f"scale {scale:g}"):
            first = i * self.batch_size
            moved = edit.step(parts[i], steps[i], scale)
            xT = model.endpoint(parts[i].z if self.endpoint == "unchanged" else moved.z, first)
            rows.append(to_uint8(model.decode(moved, xT, numbers=first)))
        return np.concatenate(rows)

    def _write(self, run: Run, inputs: np.ndarray, rows: dict[float, np.ndarray], head: Head) -> None:
        folder, name = run.task_folder("manipulate"), ", ".join(head.names)
        named = {f"{name} {scale:+g}" if scale else "reconstruction": row for scale, row in rows.items()}
        _pictures.save_png(folder / "grid.png", _pictures.labelled_grid({"input": inputs} | named))
        write_arrays(
            folder / "arrays.npz", inputs=inputs, images=np.stack(list(rows.values())), scales=np.array(list(rows))
        )
        write_arrays(folder / "head.npz", **head.arrays())
        log.info("'%s' of %d images; %s", name, len(inputs), folder / "grid.png")


def _judge(kind: str, logits: np.ndarray, targets: np.ndarray) -> tuple[str, float]:
    """(The measure's name, its value), NaN where the images cannot tell."""
    if kind == "bce":
        return "ap", float(metrics.average_precision(logits[:, None], targets[:, None])[0])
    return "r", float(metrics.pearson(logits[:, None], targets[:, None])[0])


Task = Manipulate
