"""A disk that loses power: what was synced is there, of the rest anything may be missing or half written."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from powercut.tracing import Record

SECTOR_BYTES = 512


@dataclass
class _File:
    synced: bytearray = field(default_factory=bytearray)
    pending: list[Record] = field(default_factory=list)

    def sync(self) -> None:
        for record in self.pending:
            _apply(self.synced, record, record.data)
        self.pending.clear()

    def after_cut(self, chance: random.Random) -> bytearray:
        """The content that one unlucky moment could leave: each unsynced write is kept, dropped or torn."""
        content = bytearray(self.synced)
        for record in self.pending:
            fate = chance.random()
            if fate < 0.4:
                _apply(content, record, record.data)
            elif fate < 0.7 and record.kind == "W":
                _tear(content, record, chance)
        return content


def _apply(content: bytearray, record: Record, data: bytes) -> None:
    if record.kind == "W":
        end = record.offset + len(data)
        if len(content) < end:
            content.extend(bytes(end - len(content)))
        content[record.offset : end] = data
    elif len(content) > record.offset:  # truncated
        del content[record.offset :]
    else:
        content.extend(bytes(record.offset - len(content)))


def _tear(content: bytearray, record: Record, chance: random.Random) -> None:
    for start in range(0, len(record.data), SECTOR_BYTES):
        if chance.random() < 0.5:
            sector = record.data[start : start + SECTOR_BYTES]
            _apply(content, Record("W", record.name, record.offset + start, b""), sector)


class Disk:
    """The files of one folder, replayed call by call."""

    def __init__(self) -> None:
        self._files: dict[str, _File] = {}
        self._removed: dict[str, _File] = {}
        """Removals that no sync of the folder has made lasting: a cut may bring these files back."""

    def replay(self, record: Record) -> None:
        """One more call."""
        name = record.name
        match record.kind:
            case "S" if not name:
                self._removed.clear()
            case "S":
                self._file(name).sync()
            case "O":
                # Opened and emptied at once; only files that no cut may need are opened so.
                self._files[name] = _File()
            case "U":
                self._removed[name] = self._files.pop(name, _File())
            case "R":
                # The store is renamed into place before anything in it is acknowledged, and the folder synced after.
                self._files[Path(record.data.decode()).name] = self._files.pop(name)
            case _:
                self._file(name).pending.append(record)

    def _file(self, name: str) -> _File:
        self._removed.pop(name, None)
        return self._files.setdefault(name, _File())

    def cut(self, folder: Path, chance: random.Random, is_wanted: Callable[[str], bool]) -> None:
        """Write into folder what a power cut now could leave of the wanted files."""
        for name, file in self._files.items():
            if is_wanted(name):
                (folder / name).write_bytes(file.after_cut(chance))
        for name, file in self._removed.items():
            if is_wanted(name) and chance.random() < 0.5:
                (folder / name).write_bytes(file.after_cut(chance))
