"""The one exception for bad input: its text names the value, the place and the remedy."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


class UserError(Exception):
    """A mistake that a user can mend. `launch/main.py` prints it as one line and exits with code 2."""

    def __init__(self, message: str):
        super().__init__(" ".join(message.split()))  # one line, whatever a library put into it


class NotFinite(UserError):
    """Numbers that are NaN or infinite where pictures or measures would be made of them."""


def check_finite(values: "np.ndarray", what: str, remedy: str = "they cannot be measured.") -> None:
    """Raise NotFinite, naming the first row that is not finite, such as "image 3 of 8"."""
    import numpy as np

    finite = np.atleast_1d(np.isfinite(values))
    if finite.all():
        return
    first = int(np.argmin(finite.reshape(len(finite), -1).all(1)))
    raise NotFinite(f"{what} {first} of {len(finite)} (from 0 on) has values that are not finite: {remedy}")


def unknown(kind: str, value: object, known, place: str = "") -> UserError:
    """An error for a name that is not one of `known`, with the closest one suggested."""
    import difflib

    known = sorted(str(k) for k in known)
    near = difflib.get_close_matches(str(value)[:100], known, n=1)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    where = f" in {place}" if place else ""
    text = str(value) if len(str(value)) <= 100 else f"{str(value)[:80]} ... {str(value)[-10:]}"
    return UserError(f"Unknown {kind} '{text}'{where}.{hint} Known: {', '.join(known)}.")
