"""The largest face of a photo and its eyes, by the Haar cascades that OpenCV 4 brings along (Viola and Jones, 2001).

They see upright faces from the front. OpenCV 5 has none of them.
"""

import functools

import cv2  # pyright: ignore[reportMissingImports]
import numpy as np

from diffrep_jax.data.faces import Face

if not hasattr(cv2, "CascadeClassifier") or not hasattr(cv2, "data"):
    raise ImportError("OpenCV 4 has the cascades")

LONGEST = 1024  # pixels of a photo's long side that is searched for a face
FACE_WIDTH = 240  # to which a face is brought to look for its eyes
SEARCHED = (0.15, 0.6)  # of a face's box, from above: where eyes are
APART = (0.25, 0.6)  # of a face's width: the eyes
TILT = 0.2  # of a face's width: how much higher one eye may be
EYES = ("eye_tree_eyeglasses", "eye")  # tried in turn


@functools.cache
def _cascade(name: str) -> "cv2.CascadeClassifier":
    return cv2.CascadeClassifier(f"{cv2.data.haarcascades}haarcascade_{name}.xml")


def largest(photo: np.ndarray) -> Face | None:
    """uint8 [h, w, c] -> the face of the widest box; None where there is none."""
    grey = np.ascontiguousarray(photo[:, :, 0] if photo.shape[2] == 1 else cv2.cvtColor(photo, cv2.COLOR_RGB2GRAY))
    shrunk = min(1.0, LONGEST / max(grey.shape))
    small = cv2.resize(grey, None, fx=shrunk, fy=shrunk, interpolation=cv2.INTER_AREA) if shrunk < 1 else grey
    boxes = _cascade("frontalface_alt2").detectMultiScale(small, 1.1, 4, minSize=(24, 24))
    if len(boxes) == 0:
        return None
    x, y, width, height = (round(value / shrunk) for value in max(boxes, key=lambda box: box[2]))
    top = y + int(SEARCHED[0] * height)
    eyes = _eyes(grey[top : y + int(SEARCHED[1] * height), x : x + width])
    return Face(width, None if eyes is None else eyes + (x, top))


def _eyes(part: np.ndarray) -> np.ndarray | None:
    """[2, 2]: (x, y) of the left and the right eye in the part of a face; None where no pair is likely."""
    width = part.shape[1]
    enlarged = FACE_WIDTH / width
    way = cv2.INTER_AREA if enlarged < 1 else cv2.INTER_CUBIC
    part = cv2.resize(part, None, fx=enlarged, fy=enlarged, interpolation=way)
    for name in EYES:
        boxes, _, weights = _cascade(name).detectMultiScale3(
            part, 1.05, 3, minSize=(30, 30), maxSize=(100, 100), outputRejectLevels=True
        )
        if len(boxes) == 0:
            continue
        centres, weights = boxes[:, :2] + boxes[:, 2:] / 2, np.ravel(weights)
        pairs = [
            (weights[i] + weights[j], i, j)
            for i, left in enumerate(centres)
            for j, right in enumerate(centres)
            if left[0] < FACE_WIDTH / 2 < right[0]
            and APART[0] < (right[0] - left[0]) / FACE_WIDTH < APART[1]
            and abs(right[1] - left[1]) < TILT * FACE_WIDTH
        ]
        if pairs:
            _, i, j = max(pairs)
            return np.stack([centres[i], centres[j]]) / enlarged
    return None
