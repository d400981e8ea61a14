"""Lists and tables as people have them: in any of Unicode's encodings, with the line ends of any system."""

import codecs
from pathlib import Path

from diffrep_jax.errors import UserError

MARKS = (  # the longer ones first: UTF-32's begins as UTF-16's
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
MAX_BYTES = 1 << 30


def read_text(file: Path) -> str:
    """The text of a file, UTF-8 unless its first bytes are the mark of UTF-16 or 32; each line ends in a newline.

    Raises UserError where it cannot be read, or is in another encoding.
    """
    try:
        if (size := file.stat().st_size) > MAX_BYTES:
            raise UserError(f"'{file}' has {size:,} bytes, which is no list of images: give the file that is meant.")
        data = file.read_bytes()
        encoding = next((name for mark, name in MARKS if data.startswith(mark)), "utf-8")
        text = data.decode(encoding)
    except OSError as error:
        raise UserError(f"'{file}' cannot be read ({error.strerror}): copy it again.") from error
    except UnicodeError as error:
        raise UserError(f"'{file}' is not in UTF-8 or UTF-16 ({error}): save it as UTF-8.") from error
    return text.replace("\r\n", "\n").replace("\r", "\n")
