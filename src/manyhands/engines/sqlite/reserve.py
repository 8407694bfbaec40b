"""Some room kept back on the disk, so that a full disk refuses new messages and still lets the old ones be finished.

The room is a file beside the store, `jobs.db.reserve`. When a commit finds the disk full the file is removed. Its room must
hold what the log has and the store's file has not yet (about half of it, see store.CHECKPOINT_PAGES): once that is copied,
SQLite writes the log from its beginning again and finishing messages needs no new room. The file is made again as soon as
there is space, and stays when the store is closed, so that a store on a full disk can still be opened.
"""

from __future__ import annotations

import os
from pathlib import Path

RESERVE_BYTES = 8 * 1024 * 1024


class Reserve:
    """The file beside the store at path."""

    def __init__(self, path: Path, size_bytes: int = RESERVE_BYTES) -> None:
        self._file = Path(f"{path}.reserve")
        self._size_bytes = size_bytes

    def hold(self) -> bool:
        """Make the file, unless it is there; whether there was room for it."""
        try:
            if self._file.exists() and self._file.stat().st_size >= self._size_bytes:
                return True
            with self._file.open("wb") as file:
                # Blocks, not just a length: a file with a hole in it holds no room.
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(file.fileno(), 0, self._size_bytes)
                else:
                    file.write(bytes(self._size_bytes))
                    file.flush()
                    os.fsync(file.fileno())  # some file systems find room only now
        except OSError:
            self.free()
            return False
        return True

    def free(self) -> bool:
        """Give the room to the store; whether there was any."""
        try:
            self._file.unlink()
        except OSError:
            return False
        return True
