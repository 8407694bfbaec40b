"""Damage in the write-ahead log that SQLite would take for its end.

SQLite reads a log up to the first frame whose checksum is wrong and forgets the rest, because that is how the last
transaction before a power cut looks. A flipped bit in the middle looks the same, and everything acknowledged after it would
be gone without a word. The two can be told apart: the next transaction is written only after the last one was synced, so
behind a torn transaction there is nothing. A wrong frame with a *later* transaction behind it is damage.

```
  header | frame … frame commit | frame … WRONG … commit | frame (its checksum follows from the one before it: real)
                                                             └ written after the commit to its left was synced
```

Format: https://www.sqlite.org/fileformat2.html#the_write_ahead_log. Damage in the last transaction cannot be told from a
torn one, nor can damage to the salts that end the last but one.
"""

from __future__ import annotations

import struct
from pathlib import Path

_HEADER_BYTES, _FRAME_HEADER_BYTES = 32, 24
_MAGIC, _BIG_ENDIAN = 0x377F0682, 1


def damaged_frame(log: Path) -> int:
    """The number of the first wrong frame that has a later transaction behind it; 0 if there is none, or no log."""
    try:
        content = log.read_bytes()
    except FileNotFoundError:
        return 0
    if len(content) < _HEADER_BYTES:
        return 0
    magic, _, page_bytes, _, *salts, seed_0, seed_1 = struct.unpack_from(">8I", content)
    if magic & ~_BIG_ENDIAN != _MAGIC or not 512 <= page_bytes <= 65536:
        return 0
    order = ">" if magic & _BIG_ENDIAN else "<"
    words = struct.Struct(f"{order}{(page_bytes + 8) // 4}I")
    step, seed, wrong, is_commit_behind = _FRAME_HEADER_BYTES + page_bytes, (seed_0, seed_1), 0, False
    for number, start in enumerate(range(_HEADER_BYTES, len(content) - step + 1, step), 1):
        _, commits, salt_0, salt_1, sum_0, sum_1 = struct.unpack_from(">6I", content, start)
        is_ours = [salt_0, salt_1] == salts
        if not wrong or is_commit_behind:
            summed = content[start : start + 8] + content[start + _FRAME_HEADER_BYTES : start + step]
            is_right = is_ours and _checksum(words.unpack(summed), seed) == (sum_0, sum_1)
            if is_right and wrong:
                return wrong
            if not is_right and not wrong:
                wrong = number
        if wrong and commits and is_ours:  # what is not ours was left by an earlier round of the log
            is_commit_behind = True
        seed = (sum_0, sum_1)
    return 0


def _checksum(words: tuple[int, ...], seed: tuple[int, int]) -> tuple[int, int]:
    s_0, s_1 = seed
    pairs = iter(words)
    for even, odd in zip(pairs, pairs, strict=True):
        s_0 = (s_0 + even + s_1) & 0xFFFFFFFF
        s_1 = (s_1 + odd + s_0) & 0xFFFFFFFF
    return s_0, s_1
