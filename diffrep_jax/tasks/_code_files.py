"""Files of codes: with them is kept all that they were made of, so that stale ones are known, and why they are."""

import dataclasses
import json
import logging
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath

from diffrep_jax.runs.weights import same_network

log = logging.getLogger(__name__)

Arrays = dict[str, np.ndarray]

EARLIER = "an earlier version wrote them and did not keep which images they are of"
UNREADABLE = "none of the images could be read then"


@dataclasses.dataclass(frozen=True)
class Identity:
    """All that codes depend on. Labels are no part of it: they belong to the data set and may be mended there.

    Attributes:
      facts: for JSON; of the images the fingerprint of the data set, how many it has and how many of these are encoded,
        the first ones; and how they are encoded.
      network: its fingerprint, [d].
    """

    facts: Mapping[str, Any]
    network: np.ndarray

    def arrays(self) -> Arrays:
        """For the file."""
        return {"facts": np.array(self.text()), "fingerprint": self.network}

    def text(self) -> str:
        return json.dumps(self.facts, sort_keys=True)

    def of_part(self, numbers: range) -> "Identity":
        """That of a part of the file, however many images there are after these."""
        return dataclasses.replace(self, facts={**self.facts, "part": numbers.start, "count": numbers.stop})

    def stale(self, kept: Mapping[str, np.ndarray]) -> str:
        """Why the codes of a file are other ones, "" where they are these, or more of the same images."""
        if "facts" not in kept or "fingerprint" not in kept:
            return EARLIER
        ours, theirs = dict(self.facts), dict(json.loads(str(kept["facts"])))
        reasons = [] if same_network(kept["fingerprint"], self.network) else ["the network changed"]
        pairs = {name: (theirs.pop(name, None), ours.pop(name)) for name in ("images", "of", "count")}
        if pairs["images"][0] != pairs["images"][1]:
            then, now = pairs["of"]
            counts = f", {then:,} then and {now:,} now" if then != now else ""
            reasons.append(f"the images changed{counts}")
        elif pairs["count"][0] < pairs["count"][1]:
            reasons.append("they are those of the first {:,} images, {:,} are wanted".format(*pairs["count"]))
        for name in sorted(ours.keys() | theirs.keys()):
            if ours.get(name) != theirs.get(name):
                reasons.append(f"{name} is {ours.get(name)}, it was {theirs.get(name)}")
        return ", ".join(reasons)


def read(path: epath.Path) -> Arrays:
    """All arrays of a file, each by its checksum; none where there is no file. ValueError where it is damaged."""
    if not path.is_file():
        return {}
    try:
        with path.open("rb") as opened, np.load(opened) as file:
            return {name: file[name] for name in file.files}
    except (OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(str(error)) from error


def fresh(path: epath.Path, identity: Identity) -> tuple[Arrays | None, str]:
    """(what the file holds, "") where that is of this identity, else (None, why not), "" where there is no file."""
    try:
        if not (kept := read(path)):
            return None, ""
        why = identity.stale(kept) or ("" if {"codes", "rows"} <= kept.keys() else EARLIER)
        why = why or ("" if len(kept["rows"]) else UNREADABLE)
    except (ValueError, TypeError, AttributeError, KeyError):
        return None, "the file is damaged"
    return (None, why) if why else (kept, "")
