"""Reads a file with large statements without copying them."""

from __future__ import annotations

from bisect import bisect_right
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_CHUNK_BYTES = 1 << 20
"""A statement of at least this size is a separate chunk."""


class ChunkedFile:
    """The bytes of a *file*. A slice that is exactly one of its large *statements* is not copied.

    libpq keeps two copies of the SQL that it sends. With the file and a copied slice there would be
    four.
    """

    def __init__(self, file: bytes, statements: Iterable[tuple[int, int]]) -> None:
        large = ((start, end) for start, end in statements if end - start >= _CHUNK_BYTES)
        self._edges = sorted({0, len(file), *(edge for span in large for edge in span)})
        self._chunks = [file[start:end] for start, end in pairwise(self._edges)]

    def __len__(self) -> int:
        return self._edges[-1]

    def __getitem__(self, index: slice) -> bytes:
        start, end, _ = index.indices(len(self))
        number = max(0, bisect_right(self._edges, start) - 1)
        found: list[bytes] = []
        while start < end:
            before = self._edges[number]
            found.append(self._chunks[number][start - before : end - before])
            number += 1
            start = self._edges[number]
        return b"".join(found)
