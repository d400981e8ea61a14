"""A checkpoint's checksums are CRC-32, whichever library computes them, and see each change of a file."""

import json
import zlib

import pytest
from etils import epath

from diffrep_jax.runs import checksums


@pytest.fixture(params=["zlib", "isal"])
def crc32(request, monkeypatch):
    function = zlib.crc32 if request.param == "zlib" else pytest.importorskip("isal.isal_zlib").crc32
    monkeypatch.setattr(checksums, "crc32", function)


def test_the_sums_are_those_of_the_standard(crc32, tmp_path, monkeypatch):
    """The check value of CRC-32/ISO-HDLC, and the same over blocks."""
    monkeypatch.setattr(checksums, "BLOCK", 4)
    (tmp_path / "params").mkdir()
    (tmp_path / "params" / "a").write_bytes(b"123456789")
    (tmp_path / "b").write_bytes(b"")
    checksums.seal(epath.Path(tmp_path))
    assert json.loads((tmp_path / checksums.NAME).read_text()) == {"b": [0, 0], "params/a": [9, 0xCBF43926]}
    assert checksums.damage(epath.Path(tmp_path)) is None


def test_each_single_bit_counts(crc32, tmp_path):
    content = bytes(range(16))
    path = tmp_path / "a"
    path.write_bytes(content)
    checksums.seal(epath.Path(tmp_path))
    for bit in range(8 * len(content)):
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        assert checksums.damage(epath.Path(tmp_path)) == "a has changed"
    path.write_bytes(content[:-1])
    assert checksums.damage(epath.Path(tmp_path)) == "a has 15 bytes, not 16"
