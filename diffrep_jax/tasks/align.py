"""Crop photos of faces as FFHQ, CelebA-HQ or CelebA were cropped, by the eyes: for all tasks that take `--images`.

The eyes are looked for by OpenCV 4, the extra [faces], in the largest face of each photo; or they are given. Writes to
`<workdir>/align/`: images/ (a PNG a photo, of the model's size), grid.png (photo | crop) and metrics.json.
"""

import dataclasses
import logging
import pathlib
import shutil
from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from diffrep_jax.data import faces
from diffrep_jax.data.bad_entries import BadEntry
from diffrep_jax.data.decoding import decode
from diffrep_jax.data.sources import open_source
from diffrep_jax.data.transforms import resize, to_channels
from diffrep_jax.errors import UserError, unknown
from diffrep_jax.runs.layout import Run, local
from diffrep_jax.tasks import _pictures, base

log = logging.getLogger(__name__)

SHOWN = 8
PLACE = "tasks.align"


@dataclasses.dataclass(frozen=True)
class Align:
    """The fields of `config.tasks.align`.

    Attributes:
      geometry: "ffhq", which is CelebA-HQ's too, or "celeba"; "": that of the config's data set, else "ffhq".
      eyes: (x, y, x, y) of both in the only photo, in its pixels, upright, the left one in the picture first; () to
        have them looked for.
    """

    needs_run: ClassVar[bool] = False

    geometry: str = ""
    eyes: tuple[float, ...] = ()
    images: pathlib.Path | None = dataclasses.field(kw_only=True, default=None)

    def __post_init__(self) -> None:
        if self.geometry and self.geometry not in faces.GEOMETRIES:
            raise unknown("geometry", self.geometry, faces.GEOMETRIES, f"{PLACE}.geometry")
        if len(self.eyes) not in (0, 4):
            raise UserError(f"{PLACE}.eyes has {len(self.eyes)} numbers; write (x,y,x,y), the left eye first.")

    def run(self, model: None, run: Run) -> dict[str, float]:
        section = run.config.data
        name = self.geometry or faces.OF_DATA.get(section.name, "ffhq")
        folder = local(run.task_folder("align"), "--task=align")
        photos, before, crops = 0, [], {}
        for key, photo in self._photos():
            photos += 1
            if (eyes := self._eyes(key, photo)) is None:
                continue
            crop = faces.aligned(photo, eyes, faces.GEOMETRIES[name], section.image_size)
            crops[f"{len(crops):04d}_{pathlib.PurePath(key).stem}.png"] = crop
            before.append(resize(photo, section.image_size))
        if not crops:
            raise UserError(
                f"No face from the front with both eyes in '{self.images}'; give them: --images=ONE_PHOTO "
                f"--config.{PLACE}.eyes=(x,y,x,y), the left one in the picture first."
            )
        shutil.rmtree(folder / "images", ignore_errors=True)  # of earlier photos
        (folder / "images").mkdir(parents=True)
        for file, crop in crops.items():
            _pictures.save_png(folder / "images" / file, crop)
        rows = {"photo": np.stack(before[:SHOWN]), f"as {name}": np.stack(list(crops.values())[:SHOWN])}
        _pictures.save_png(folder / "grid.png", _pictures.labelled_grid(rows))
        numbers: dict[str, float] = {"photos": photos, "aligned": len(crops)}
        run.write_numbers("align", numbers | {"geometry": name})
        log.info("%d of %d photos are aligned: look at %s", len(crops), photos, folder / "grid.png")
        log.info("Use them with --images=%s", folder / "images")
        return numbers

    def _photos(self) -> Iterator[tuple[str, np.ndarray]]:
        """(name, uint8 [h, w, 3]) of each photo that decodes."""
        if self.images is None:
            raise UserError("--task=align needs photos: add --images=PHOTO, or a folder of them.")
        source = open_source(self.images)
        if self.eyes and len(source) != 1:
            raise UserError(f"{PLACE}.eyes are those of one photo; '{self.images}' has {len(source)}.")
        for entry in base.progress(range(len(source)), len(source), "align"):
            key = source.key(entry)
            try:
                content = source[entry]
                yield key, to_channels(content, 3) if isinstance(content, np.ndarray) else decode(content, 3, key)
            except BadEntry as error:
                log.warning("%s", error)

    def _eyes(self, key: str, photo: np.ndarray) -> np.ndarray | None:
        """[2, 2]; None where they are not seen, and the log says so."""
        if self.eyes:
            return np.reshape(self.eyes, (2, 2))
        find = faces.detector()
        if find is None:
            raise UserError(
                "Eyes are looked for with OpenCV 4: pip install 'diffrep_jax[faces]'; or give those of one photo with "
                f"--config.{PLACE}.eyes=(x,y,x,y)."
            )
        face = find(photo)
        if face is None or face.eyes is None:
            log.warning("%s: %s; left out.", key, "no face from the front" if face is None else "no pair of eyes")
            return None
        return face.eyes


Task = Align
