"""From a Python object to signed bytes and back: the only package that unpickles.

items.py    items and results: a pickle, or the very bytes
pickles.py  calls: functions, arguments, outcomes, with large arrays beside the pickle
sealing.py  the seal of a body: who can write to the store but does not hold the key cannot make a worker run code
stock.py    the pickles of standard-library peers
"""

from manyhands.codec.items import (
    PICKLE,
    PICKLED_CALLS,
    PLAIN,
    PLAIN_CALLS,
    RAW_BYTES,
    Bytes,
    check_size,
    decode,
    encode,
)
from manyhands.codec.sealing import LARGE_SEAL_BYTES, POLY1305_FROM_BYTES, Codec

__all__ = [
    "LARGE_SEAL_BYTES",
    "PICKLE",
    "PICKLED_CALLS",
    "PLAIN",
    "PLAIN_CALLS",
    "POLY1305_FROM_BYTES",
    "RAW_BYTES",
    "Bytes",
    "Codec",
    "check_size",
    "decode",
    "encode",
]
