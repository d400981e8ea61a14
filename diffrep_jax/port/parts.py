"""The state dicts that an official checkpoint holds together, such as `ema_encoder` and `ema_decoder`.

A file of rules names its parts in PARTS, {official part: what its names start with in the rules}. Each is there twice:
averaged as `ema_<part>`, and as training left it as `<part>`. A part that ends in a dot is no dict of its own, but the
names of `state_dict` that start so, as Lightning keeps them.
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

    A plain one whose names start with a part that ends in a dot is what Lightning keeps as `state_dict`.

    `weights`: "ema" takes the averaged ones, and where there are none the others, which the log says; "live" takes
    the others. Raises UserError, naming `source`, where a part is missing.
    """
    held = contents.parts | _dotted(contents, parts)
    if "" in held and len(held) == 1:
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
    if weights == "ema" and not set(averaged) & held.keys() and set(live) <= held.keys():
        log.warning("%s has no averaged weights: %s are used.", source, ", ".join(live))
        chosen = live
    if missing := [part for part in chosen if part not in held]:
        raise UserError(f"{source} lacks {', '.join(missing)}; it holds {', '.join(held)}. Is the config the file's?")
    log.info("%s: the weights are those of %s.", source, ", ".join(chosen))
    tensors = {}
    for part, prefix in zip(chosen, parts.values(), strict=True):
        tensors |= {prefix + name: value for name, value in held[part].items()}
    return tensors, chosen


def flat(contents: Contents) -> Tensors:
    """All names of a checkpoint of Lightning, or of its state dict alone; {} where it is neither."""
    return contents.parts.get("state_dict", contents.parts.get("", {}))


def _dotted(contents: Contents, parts: Mapping[str, str]) -> dict[str, Tensors]:
    """{part: its tensors} for the parts that end in a dot and are there."""
    names = [start + part for part in parts if part.endswith(".") for start in ("", AVERAGE)]
    found = {
        part: {name.removeprefix(part): x for name, x in flat(contents).items() if name.startswith(part)}
        for part in names
    }
    return {part: tensors for part, tensors in found.items() if tensors}


def nest(tensors: Tensors, parts: Mapping[str, str], step: int) -> dict[str, object]:
    """The dict that the official code saves, with the same weights as averaged and as others; the inverse of `choose`.

    Where there are no parts, the state dict itself.
    """
    if not parts:
        return dict(tensors)
    states = {
        part: {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
        for part, prefix in parts.items()
    }
    both = {start + part: state for part, state in states.items() for start in ("", AVERAGE)}
    if all(part.endswith(".") for part in parts):
        state_dict = {part + name: value for part, state in both.items() for name, value in state.items()}
        return {"epoch": 0, "global_step": step, "state_dict": state_dict}
    return {"step": step, **both}
