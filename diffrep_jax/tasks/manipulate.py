"""Change one attribute of images: move their codes along the weights of a linear classifier (DiffAE, section 4.3).

With the training codes' mean and deviation, z_norm = (z - mean) / std, and for a scale s

    z_norm' = z_norm + s sqrt(d) w / |w|,     decoded from z' = z_norm' std + mean and the images' stochastic codes.

w is trained here on the codes that `encode` keeps; with `promask` it reads that many dimensions alone, so that the
others stay as they are (DiTi, section 5.3). Without, the head that `probe` has left is taken where there is one.
Classes count as attributes, one against the rest; of a measure, w is the regression's.

Writes to `<workdir>/manipulate/`: grid.png (a row a scale), arrays.npz, classifier.npz and metrics.json.
"""

import dataclasses
import functools
import logging
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffrep_jax import data, pictures, promask
from diffrep_jax.data.transforms import to_float, to_uint8
from diffrep_jax.encoded import Encoded
from diffrep_jax.errors import UserError, unknown
from diffrep_jax.inference import Inference
from diffrep_jax.metrics import probe as metrics
from diffrep_jax.tasks import base
from diffrep_jax.tasks.encode import Codes, check_encoding, codes_of, open_labelled
from diffrep_jax.train.sharding import mesh_of
from diffrep_jax.types import PyTree

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Classifier:
    """logits = ((z - mean) / std) @ kernel + bias, of one attribute; kernel [d] is 0 where a mask leaves z out."""

    name: str
    kernel: np.ndarray
    bias: float
    mean: np.ndarray
    std: np.ndarray
    source: str  # who trained it

    def logits(self, z: np.ndarray) -> np.ndarray:
        return (z - self.mean) / self.std @ self.kernel + self.bias

    def moved(self, z: np.ndarray, scale: float) -> np.ndarray:
        """The codes with more of the attribute, or with less where the scale is below 0."""
        direction = self.kernel / np.linalg.norm(self.kernel)
        return (z + scale * np.sqrt(len(direction)) * direction * self.std).astype(z.dtype)


@dataclasses.dataclass(frozen=True)
class Manipulate(base.ImageTask):
    """The fields beside those of an `ImageTask`; `--images` names other images than those of `split`.

    Attributes:
      attribute: its name, or its number among the data set's attributes and classes.
      scales: how far to go; num_images: the first ones.
      dataset: what the classifier learns from, "" for the run's own.
      promask: how many dimensions the classifier may read; 0 for all.
      epochs, lr, head_batch_size: of its training; encode_batch_size: images at a time.
    """

    attribute: str
    scales: tuple[float, ...]
    num_images: int
    dataset: str
    promask: int
    epochs: int
    lr: float
    head_batch_size: int
    encode_batch_size: int
    images: pathlib.Path | None = dataclasses.field(kw_only=True, default=None)

    def __post_init__(self):
        super().__post_init__()
        check_encoding("manipulate", self.dataset, -1, self.encode_batch_size)
        for field in ("epochs", "head_batch_size", "num_images"):
            if getattr(self, field) < 1:
                raise UserError(f"tasks.manipulate.{field} {getattr(self, field)} must be at least 1.")
        if self.promask < 0:
            raise UserError(f"tasks.manipulate.promask {self.promask} is below 0; 0 reads all dimensions.")

    def run(self, method: Any, variables: PyTree, config: Any, workdir: pathlib.Path) -> dict[str, float]:
        model = Inference(method, variables, mesh_of(variables))
        model.need_codes()
        if self.promask > method.latent_dim:
            raise UserError(f"tasks.manipulate.promask {self.promask} is above latent_dim={method.latent_dim}.")
        train = self._codes(model, "train", config, workdir)
        name, targets = _attribute(train, self.attribute)
        x0 = self._images(config)
        classifier = self._classifier(train, name, targets, workdir)
        test = self._codes(model, "test", config, workdir)
        measure, value = _judge(classifier.logits(test.codes), _attribute(test, self.attribute)[1])
        log.info("%s: %s %.4f on %d test images.", name, measure, value, len(test.codes))
        encoded = [self.encode(model, x0[first : first + self.batch_size], first) for first in self._starts(len(x0))]
        rows = {scale: self._decode(model, classifier, encoded, scale) for scale in self.scales}
        # What the classifier says of the new images, not of the codes that they were made from.
        scores = {scale: float(classifier.logits(model.encode(to_float(row))).mean()) for scale, row in rows.items()}
        numbers = {measure: value, "dimensions": int((classifier.kernel != 0).sum())}
        found = {
            "attribute": name,
            "classifier": classifier.source,
            "mean_logit": {str(s): v for s, v in scores.items()},
        }
        self._write(base.output_folder(workdir, "manipulate"), to_uint8(x0), rows, classifier)
        described = {"images": len(x0), "split": self.split} | self.description(method)
        base.write_metrics(base.output_folder(workdir, "manipulate"), numbers | found | described)
        return numbers

    def _codes(self, model: Inference, split: str, config: Any, workdir: pathlib.Path) -> Codes:
        dataset = open_labelled(config, self.dataset, split, self.data_dir)
        return codes_of(model, dataset, config, workdir, -1, self.encode_batch_size)

    def _images(self, config: Any) -> np.ndarray:
        """The images to change, in [-1, 1]."""
        section = config.data
        if self.images is None:
            dataset = base.open_dataset(config, self.split, self.data_dir)
        else:
            shape = {"image_size": section.image_size, "channels": section.channels}
            dataset = data.open_dataset("folder", split="all", data_dir=self.images, **shape)
        count = min(self.num_images, len(dataset))
        bad = section.max_bad_fraction
        batches = data.ordered_batches(dataset, batch_size=count, num_images=count, max_bad_fraction=bad)
        return np.concatenate([batch["image"] for batch in batches])

    def _classifier(self, train: Codes, name: str, targets: np.ndarray, workdir: pathlib.Path) -> Classifier:
        std = np.where(train.std > 0, train.std, 1)
        if self.promask == 0 and (head := _probed(workdir, name, train.mean, std)) is not None:
            log.info("The classifier of '%s' is the probe's.", name)
            return head
        binary = _is_binary(targets)
        scaled = targets if binary else (targets - targets.mean()) / (targets.std() + 1e-12)
        dimensions = self.promask or train.codes.shape[1]
        log.info("Training a classifier of '%s' that reads %d dimensions ...", name, dimensions)
        fit = functools.partial(
            promask.fit,
            dimensions=dimensions,
            kind="bce" if binary else "mse",
            epochs=self.epochs,
            batch_size=min(self.head_batch_size, len(targets)),
            lr=self.lr,
        )
        codes = jnp.asarray((train.codes - train.mean) / std)
        head = jax.tree.map(np.asarray, jax.jit(fit)(codes, jnp.asarray(scaled[:, None]), jax.random.key(self.seed)))
        kernel = head["kernel"][:, 0] * head["mask"]
        if not kernel.any():
            raise UserError(
                f"The classifier of '{name}' kept no dimension in {self.epochs} epochs; raise tasks.manipulate.epochs."
            )
        return Classifier(name, kernel, float(head["bias"][0]), train.mean, std, "manipulate")

    def _starts(self, count: int) -> range:
        return range(0, count, self.batch_size)

    def _decode(self, model: Inference, classifier: Classifier, parts: list[Encoded], scale: float) -> np.ndarray:
        """uint8 images of the codes, moved."""
        moved = [Encoded(classifier.moved(part.z, scale), part.stochastic_code) for part in parts]
        starts = base.progress(range(len(parts)), len(parts), f"scale {scale:g}")
        return np.concatenate([to_uint8(self.decode_encoded(model, moved[i], i * self.batch_size)) for i in starts])

    def _write(
        self, folder: pathlib.Path, inputs: np.ndarray, rows: dict[float, np.ndarray], classifier: Classifier
    ) -> None:
        named = {f"{classifier.name} {scale:+g}" if scale else "reconstruction": row for scale, row in rows.items()}
        pictures.save_png(folder / "grid.png", pictures.labelled_grid({"input": inputs} | named))
        np.savez(folder / "arrays.npz", inputs=inputs, images=np.stack(list(rows.values())), scales=list(rows))
        np.savez(folder / "classifier.npz", **vars(classifier))
        log.info("'%s' of %d images; %s", classifier.name, len(inputs), folder / "grid.png")


def _attribute(codes: Codes, wanted: str) -> tuple[str, np.ndarray]:
    """The name and the values [n] of an attribute or class, wanted by name or by number."""
    names = [*codes.attribute_names, *codes.class_names]
    if not names:
        raise UserError("The data set has no labels to learn from; set tasks.manipulate.dataset to one that has.")
    if wanted in names:
        number = names.index(wanted)
    elif wanted.isdigit() and int(wanted) < len(names):
        number = int(wanted)
    else:
        raise unknown("attribute", wanted, names, "tasks.manipulate.attribute")
    if number < len(codes.attribute_names):
        return names[number], codes.attributes[:, number].astype(np.float32)
    return names[number], (codes.label == number - len(codes.attribute_names)).astype(np.float32)


def _is_binary(targets: np.ndarray) -> bool:
    return bool(np.isin(targets, (0, 1)).all())


def _judge(logits: np.ndarray, targets: np.ndarray) -> tuple[str, float]:
    if _is_binary(targets):
        return "ap", float(metrics.average_precision(logits[:, None], targets[:, None])[0])
    return "r", float(metrics.pearson(logits[:, None], targets[:, None])[0])


def _probed(workdir: pathlib.Path, name: str, mean: np.ndarray, std: np.ndarray) -> Classifier | None:
    """The head that `probe` has left for this attribute, which reads z as it is."""
    for path in (workdir / "probe" / f"{part}.npz" for part in ("attributes", "classes")):
        if path.is_file():
            with np.load(path) as file:
                names = file["names"].tolist()
                if name in names and len(file["kernel"]) == len(mean):
                    kernel, bias = file["kernel"][:, names.index(name)], file["bias"][names.index(name)]
                    return Classifier(name, kernel * std, float(bias + mean @ kernel), mean, std, "probe")
    return None


Task = Manipulate
