"""The state dicts that an official checkpoint holds together, such as `ema_encoder` and `ema_decoder`.

A file of rules names its parts in PARTS, {official part: what its names start with in the rules}. Each is there twice:
averaged as `ema_<part>`, and as training left it as `<part>`.
"""

import logging
from collections.abc import Mapping

from diffrep_jax.errors import UserError
from diffrep_jax.port.files import Contents, Tensors

log = logging.getLogger(__name__)

AVERAGE = "ema_"
WEIGHTS = ("ema", "live")


def choose(contents: Contents, parts: Mapping[str, str], weights: str, source: str) -> tuple[Tensors, list[str]]:
    """(the tensors by the names of the rules, the parts that they come from: none for a plain state dict).

    `weights`: "ema" takes the averaged ones, and where there are none the others, which the log says; "live" takes
    the others. Raises UserError, naming `source`, where a part is missing.
    """
    if "" in contents.parts:
        if weights != "ema":
            raise UserError(
                f"{source} is one plain state dict: config.tasks.import.weights={weights} is of no use, leave it out."
            )
        return contents.parts[""], []
    if not parts:
        raise UserError(
            f"{source} holds {', '.join(contents.parts)}, but official checkpoints of this method are one plain state "
            "dict; save it alone, or use the config of the file's method."
        )
    live, averaged = list(parts), [AVERAGE + part for part in parts]
    chosen = averaged if weights == "ema" else live
    if weights == "ema" and not set(averaged) & contents.parts.keys() and set(live) <= contents.parts.keys():
        log.warning("%s has no averaged weights: %s are used.", source, ", ".join(live))
        chosen = live
    if missing := [part for part in chosen if part not in contents.parts]:
        raise UserError(
            f"{source} lacks {', '.join(missing)}; it holds {', '.join(contents.parts)}. Is the config the file's?"
        )
    log.info("%s: the weights are those of %s.", source, ", ".join(chosen))
    tensors = {}
    for part, prefix in zip(chosen, parts.values(), strict=True):
        tensors |= {prefix + name: value for name, value in contents.parts[part].items()}
    return tensors, chosen


def nest(tensors: Tensors, parts: Mapping[str, str], step: int) -> dict[str, object]:
    """The dict that the official code saves, with the same weights as averaged and as others; the inverse of `choose`.

    Where there are no parts, the state dict itself.
    """
    if not parts:
        return dict(tensors)
    nested: dict[str, object] = {"step": step}
    for part, prefix in parts.items():
        state = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
        nested |= {part: state, AVERAGE + part: state}
    return nested
