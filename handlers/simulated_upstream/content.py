"""
Bytes of files: small ones in memory, large ones in temporary files, joined ones as the list of their parts.

Everything is read in pieces of `PIECE_BYTES`, so that memory stays constant however large a file is.
"""

import os
import shutil
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Protocol

PIECE_BYTES = 65_536
_MEMORY_BYTES = 65_536  # larger contents go to disk
_PATTERN = bytes(range(256)) * (PIECE_BYTES // 256)


class Content(Protocol):
    """Bytes of known size that can be read any number of times."""

    @property
    def size(self) -> int:
        """Number of bytes."""

    def pieces(self) -> Iterator[bytes]:
        """The bytes from the start, in pieces of at most `PIECE_BYTES`."""


class MemoryContent:
    """Content held in memory."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    @property
    def size(self) -> int:
        """Number of bytes."""
        return len(self._data)

    def pieces(self) -> Iterator[bytes]:
        """The bytes from the start."""
        for start in range(0, len(self._data), PIECE_BYTES):
            yield self._data[start : start + PIECE_BYTES]


class GeneratedContent:
    """Content of any size that is stored nowhere: 0, 1, … 255 over and over."""

    def __init__(self, size: int) -> None:
        self._size = size

    @property
    def size(self) -> int:
        """Number of bytes."""
        return self._size

    def pieces(self) -> Iterator[bytes]:
        """The bytes from the start."""
        whole, rest = divmod(self._size, PIECE_BYTES)
        for _ in range(whole):
            yield _PATTERN
        if rest:
            yield _PATTERN[:rest]


class FileContent:
    """Content in a temporary file, which goes when the content is no longer referred to."""

    def __init__(self, path: Path, size: int) -> None:
        self._path = path
        self._size = size
        weakref.finalize(self, path.unlink, missing_ok=True)

    @property
    def size(self) -> int:
        """Number of bytes."""
        return self._size

    def pieces(self) -> Iterator[bytes]:
        """The bytes from the start."""
        with self._path.open("rb") as file:
            while piece := file.read(PIECE_BYTES):
                yield piece


class JoinedContent:
    """Several contents, one behind the other."""

    def __init__(self, parts: Sequence[Content]) -> None:
        self._parts = tuple(parts)

    @property
    def size(self) -> int:
        """Number of bytes."""
        return sum(part.size for part in self._parts)

    def pieces(self) -> Iterator[bytes]:
        """The bytes from the start."""
        for part in self._parts:
            yield from part.pieces()


class Spool:
    """
    Takes in contents of unknown size.

    Args:
        folder: Where its temporary folder is made, once one is needed; `None` means the system's place.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._parent = folder
        self._folder: Path | None = None

    def writer(self) -> "SpoolWriter":
        """Begin a new content."""
        return SpoolWriter(self)

    def open_file(self) -> tuple[IO[bytes], Path]:
        """Create an empty temporary file; returns it open for writing, with its path."""
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="simulated-upstream-", dir=self._parent))
            weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        descriptor, name = tempfile.mkstemp(dir=self._folder)
        return os.fdopen(descriptor, "wb"), Path(name)


class SpoolWriter:
    """Collects the bytes of one content."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool
        self._memory = bytearray()
        self._file: IO[bytes] | None = None
        self._path = Path()
        self._size = 0

    def write(self, data: bytes) -> None:
        """Add bytes to the end."""
        self._size += len(data)
        if self._file is None and self._size <= _MEMORY_BYTES:
            self._memory += data
            return
        if self._file is None:
            self._file, self._path = self._spool.open_file()
            self._file.write(self._memory)
            self._memory.clear()
        self._file.write(data)

    def finish(self) -> Content:
        """End the content and return it."""
        if self._file is None:
            return MemoryContent(bytes(self._memory))
        self._file.close()
        return FileContent(self._path, self._size)

    def abandon(self) -> None:
        """Throw away what was written."""
        if self._file is not None:
            self._file.close()
            self._path.unlink(missing_ok=True)
