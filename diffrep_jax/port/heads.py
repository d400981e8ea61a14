"""Linear heads on codes in the authors' files: the classifiers of DBAE, PDAE, DiTi (with its ProMask) and DiffAE.

    DBAE     best.pt                 {weight, bias}                                     on codes as they are
    PDAE     checkpoint.pt           {classifier, ema_classifier, ...}, averaged taken  on normalised codes
    DiTi     <epoch>.pt              {classifier, mask: {scores}}                       on normalised codes
    DiffAE   last.ckpt               `diffae.classifier`                                on normalised codes

PDAE and DiTi keep the mean and the deviation of the codes elsewhere. A mask is drawn there, a dimension being kept with
the probability of its score; the scores have come to 0 or 1 by then, and here one above 1/2 keeps it.
"""

import dataclasses

import numpy as np

from diffrep_jax.errors import UserError
from diffrep_jax.port import diffae
from diffrep_jax.port.files import Contents, Tensors
from diffrep_jax.port.parts import flat

# The attributes of CelebA and CelebA-HQ in the order of their files, in which all of these heads have them.
CELEBA = tuple(
    "5_o_Clock_Shadow Arched_Eyebrows Attractive Bags_Under_Eyes Bald Bangs Big_Lips Big_Nose Black_Hair Blond_Hair "
    "Blurry Brown_Hair Bushy_Eyebrows Chubby Double_Chin Eyeglasses Goatee Gray_Hair Heavy_Makeup High_Cheekbones Male "
    "Mouth_Slightly_Open Mustache Narrow_Eyes No_Beard Oval_Face Pale_Skin Pointy_Nose Receding_Hairline Rosy_Cheeks "
    "Sideburns Smiling Straight_Hair Wavy_Hair Wearing_Earrings Wearing_Hat Wearing_Lipstick Wearing_Necklace "
    "Wearing_Necktie Young".split()
)


@dataclasses.dataclass(frozen=True)
class OfficialHead:
    """logits = z @ kernel + bias, of z as it is or where `normalised` of (z - mean) / std.

    kernel [d, k], 0 where a mask leaves a dimension out; bias [k]; mean, std [d], None where the file has them not.
    """

    kernel: np.ndarray
    bias: np.ndarray
    normalised: bool
    mean: np.ndarray | None = None
    std: np.ndarray | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Of the k attributes: CelebA's where there are 40, else their numbers."""
        k = len(self.bias)
        return CELEBA if k == len(CELEBA) else tuple(map(str, range(k)))


def head(contents: Contents, source: str) -> OfficialHead:
    """The head in an official file; UserError, naming `source`, where there is none."""
    parts = contents.parts
    if "classifier.weight" in flat(contents):
        theirs = diffae.classifier(contents, source)
        return OfficialHead(theirs.kernel, theirs.bias, True, theirs.mean, theirs.std)
    for part in ("ema_classifier", "classifier"):
        if part in parts and _is_linear(parts[part]):
            kernel, bias = _linear(parts[part])
            scores = parts["mask"]["scores"] if "mask" in parts and "scores" in parts["mask"] else np.ones(len(kernel))
            return OfficialHead(kernel * (scores > 0.5)[:, None], bias, True)
    if "" in parts and _is_linear(parts[""]):
        return OfficialHead(*_linear(parts[""]), False)
    raise UserError(
        f"{source} holds no linear head: neither weight and bias nor a classifier, but "
        f"{', '.join(parts) if '' not in parts else ', '.join(list(parts[''])[:4])}."
    )


def _is_linear(tensors: Tensors) -> bool:
    return {"weight", "bias"} == set(tensors) and tensors["weight"].ndim == 2


def _linear(tensors: Tensors) -> tuple[np.ndarray, np.ndarray]:
    return np.asarray(tensors["weight"], np.float32).T, np.asarray(tensors["bias"], np.float32)
