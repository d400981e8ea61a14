"""LMDB's file, read by its published layout (lmdb.h and mdb.c of OpenLDAP, version 1 of the format).

The library maps the file into memory and trusts it: of a damaged one it reads past the end, which kills the process
with SIGBUS. It also refuses to open a file twice, and may not be used after a fork. Here each number that leads to
another place is held against the file's size first, and there is nothing that a fork or a thread could spoil.
"""

import struct
from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path

from diffrep_jax.data import limits
from diffrep_jax.data.sources._positional import PositionalFile

MAGIC, VERSION = 0xBEEFC0DE, 1
HEADER = struct.Struct("<QHHHH")  # of a page: its number, unused, flags, end of the pointers, start of the nodes
META = struct.Struct("<IIQQ IHHQQQQQ IHHQQQQQ QQ")  # magic, version, address, size; two trees; last page, transaction
NODE = struct.Struct("<HHHH")  # low and high half of the value's size or the child's page, flags, length of the key
POINTER = struct.Struct("<H")
PAGE = struct.Struct("<Q")
BRANCH, LEAF, OVERFLOW = 1, 2, 4  # flags of a page
ELSEWHERE, NO_VALUE = 1, 2 | 4  # flags of a node: the value has pages of its own; it is a tree, or one of duplicates
OTHER_ORDER = 2 | 4 | 8 | 16  # flags of a tree whose keys are reversed, integers or not unique
NO_PAGE = (1 << 64) - 1
DEEPEST = 32  # levels of a tree
KEPT_BRANCHES = 4096


class Damaged(ValueError):
    """The file is no LMDB, or contradicts itself."""


class LmdbFile:
    """The keys and values of an LMDB, as they were when it was opened.

    Attributes: entries, as the file says; needed: the size of the whole file, size: that which it has.
    Raises Damaged, here and when it is read; OSError where it does not open.
    """

    def __init__(self, path: Path):
        self._file = PositionalFile(path)
        self.size = self._file.size
        first = self._meta(0)
        self._page_size = first[4]
        if not 256 <= self._page_size <= 1 << 16 or self._page_size & (self._page_size - 1):
            raise Damaged(f"its pages have {self._page_size} bytes")
        second = self._meta(self._page_size) if self.size >= 2 * self._page_size else first
        latest = max(first, second, key=lambda meta: meta[-1])
        *_, flags, _, _, _, _, self.entries, self._root, self._last, _ = latest
        if flags & OTHER_ORDER:
            raise Damaged("its keys are not in the usual order")
        self.needed = (self._last + 1) * self._page_size
        self._branches: dict[int, tuple[list[bytes], list[int]]] = {}

    def _meta(self, start: int) -> tuple[int, ...]:
        if self.size < start + HEADER.size + META.size:
            raise Damaged("it is too short")
        meta = META.unpack(self._file.read(META.size, start + HEADER.size))
        if meta[0] != MAGIC or meta[1] != VERSION:
            raise Damaged("it does not begin as one")
        return meta

    def fingerprint(self) -> str:
        return self._file.fingerprint()

    def get(self, key: bytes) -> bytes | None:
        """The value, None where there is no such key."""
        number = self._root
        for _ in range(DEEPEST):
            if number == NO_PAGE:
                return None
            page, kind, count = self._page(number)
            if kind == LEAF:
                return self._in_leaf(page, count, key)
            keys, children = self._branch(number, page, count)
            number = children[bisect_right(keys, key, lo=1) - 1]  # the first key stands for all that are smaller
        raise Damaged("its tree has no end")

    def keys(self, backwards: bool = False) -> Iterator[bytes]:
        """All keys that have a value, in the file's order or from its end."""
        waiting, left = [self._root], self._last + 1
        while waiting:
            if (number := waiting.pop()) == NO_PAGE:
                continue
            left -= 1
            if left < 0:
                raise Damaged("its tree has no end")
            page, kind, count = self._page(number)
            if kind == BRANCH:
                waiting += self._branch(number, page, count)[1][:: 1 if backwards else -1]
                continue
            for i in reversed(range(count)) if backwards else range(count):
                key, _, flags, _ = self._node(page, i)
                if not flags & NO_VALUE:
                    yield key

    def _page(self, number: int) -> tuple[bytes, int, int]:
        """(the page, BRANCH or LEAF, how many nodes it has)"""
        page = self._read(self._page_size, number * self._page_size)
        own, _, flags, lower, _ = HEADER.unpack_from(page)
        kind = flags & (BRANCH | LEAF)
        if own != number or kind not in (BRANCH, LEAF) or not HEADER.size <= lower <= len(page):
            raise Damaged(f"page {number} is spoiled")
        return page, kind, (lower - HEADER.size) // POINTER.size

    def _read(self, size: int, start: int) -> bytes:
        try:
            return self._file.read(size, start)
        except ValueError as error:
            raise Damaged(str(error)) from error

    def _node(self, page: bytes, i: int) -> tuple[bytes, int, int, int]:
        """(key, size of the value, flags, where the value is)"""
        (at,) = POINTER.unpack_from(page, HEADER.size + POINTER.size * i)
        if at + NODE.size > len(page):
            raise Damaged("a node lies outside its page")
        low, high, flags, length = NODE.unpack_from(page, at)
        end = at + NODE.size + length
        if end > len(page):
            raise Damaged("a key lies outside its page")
        return page[at + NODE.size : end], low | high << 16, flags, end

    def _branch(self, number: int, page: bytes, count: int) -> tuple[list[bytes], list[int]]:
        """(keys, the page below each), kept since few pages are branches and all look-ups pass through them."""
        if number in self._branches:
            return self._branches[number]
        nodes = [self._node(page, i) for i in range(count)]
        if not nodes:
            raise Damaged(f"page {number} is empty")
        branch = [key for key, *_ in nodes], [low | flags << 32 for _, low, flags, _ in nodes]
        if len(self._branches) < KEPT_BRANCHES:
            self._branches[number] = branch
        return branch

    def _in_leaf(self, page: bytes, count: int, key: bytes) -> bytes | None:
        low, high = 0, count
        while low < high:
            middle = (low + high) // 2
            if self._node(page, middle)[0] < key:
                low = middle + 1
            else:
                high = middle
        if low == count:
            return None
        name, size, flags, at = self._node(page, low)
        if name != key or flags & NO_VALUE:
            return None
        if not flags & ELSEWHERE:
            if at + size > len(page):
                raise Damaged("a value lies outside its page")
            return page[at : at + size]
        if at + PAGE.size > len(page):
            raise Damaged("a value lies outside its page")
        return self._elsewhere(PAGE.unpack_from(page, at)[0], size)

    def _elsewhere(self, number: int, size: int) -> bytes:
        limits.check_bytes(size)
        start = number * self._page_size
        own, _, flags, pages, more = HEADER.unpack(self._read(HEADER.size, start))
        if own != number or not flags & OVERFLOW or size + HEADER.size > (pages | more << 16) * self._page_size:
            raise Damaged(f"page {number} is spoiled")
        return self._read(size, start + HEADER.size)
