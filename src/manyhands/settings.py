"""What the caller did not say: which server, and which key.

The key is the caller's, else the environment's, else on loopback one made on first use and kept for the user. The kept key
lets programs of one user on one machine find each other with nothing configured, while other users of that machine stay
out: its file can be read by its owner only.
"""

from __future__ import annotations

import os
import secrets
import stat
import sys
from pathlib import Path
from typing import NamedTuple

from manyhands.address import DEFAULT_URL
from manyhands.auth import Keyring
from manyhands.errors import UsageError

URL_VARIABLE = "MANYHANDS_URL"
KEY_VARIABLE = "MANYHANDS_AUTHKEY"
GENERATED_BYTES = 32
SHORT_BYTES = 16
"""A shorter key can be guessed by someone who recorded a handshake; said where a server is reachable from the network."""


class FoundKey(NamedTuple):
    """The keyring to use and where its key came from, so that people can be told without being shown it."""

    keyring: Keyring
    source: str
    """"argument", "MANYHANDS_AUTHKEY" or the path of the kept key's file."""

    @property
    def is_short(self) -> bool:
        return len(self.keyring.raw) < SHORT_BYTES


def find_url(url: str | None) -> str:
    """The address to connect to: the argument, else MANYHANDS_URL, else this machine's default."""
    return DEFAULT_URL if (found := url if url is not None else os.environ.get(URL_VARIABLE)) is None else found


def find_key(authkey: str | bytes | None, *, is_loopback: bool, what: str) -> FoundKey:
    """The key for an address: the argument, else MANYHANDS_AUTHKEY, else on loopback the user's own kept key.

    Args:
        authkey: what the caller passed, None for nothing.
        is_loopback: whether both ends are on this machine.
        what: the address or store, for the sentence.

    Raises:
        UsageError: there is no key and `what` is not on loopback, or the key found cannot be used.
    """
    if authkey is not None:
        return FoundKey(Keyring(authkey), "argument")
    named = os.environ.get(KEY_VARIABLE)
    if named is not None:
        if not named:
            raise UsageError(f"{KEY_VARIABLE} is set but empty, which would let anybody in; set a key or unset it.")
        return FoundKey(Keyring(named), KEY_VARIABLE)
    if not is_loopback:
        raise UsageError(f"{what} needs a key, and none was given; pass authkey= or set {KEY_VARIABLE} on both sides.")
    path = key_file()
    return FoundKey(Keyring(kept_key(path)), str(path))


def state_folder() -> Path:
    """Where this platform keeps a user's program state."""
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Application Support"
    else:
        named = os.environ.get("XDG_STATE_HOME", "")
        # The XDG specification: a relative path is to be ignored.
        base = Path(named) if os.path.isabs(named) else Path.home() / ".local" / "state"
    return base / "manyhands"


def key_file() -> Path:
    """The file of the kept key."""
    return state_folder() / "authkey"


def kept_key(path: Path) -> bytes:
    """The key in that file; made there first if there is none, whole or not at all, and the same for all who race to it.

    Raises:
        UsageError: it can be read by others, is empty, or cannot be read or written.
    """
    try:
        try:
            return _read(path)
        except FileNotFoundError:
            _create(path, secrets.token_urlsafe(GENERATED_BYTES))
            return _read(path)
    except OSError as error:
        raise UsageError(
            f"No key was given, and the kept one at {path} cannot be used ({error.strerror or error}); pass authkey= or set "
            f"{KEY_VARIABLE}."
        ) from error


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        found = os.fstat(file.fileno())
        if os.name == "posix" and stat.S_IMODE(found.st_mode) & 0o077:
            raise UsageError(
                f"The key file {path} can be read by other users (mode {stat.S_IMODE(found.st_mode):04o}), so it is no "
                "secret any more; delete it to get a new one, or chmod 600 it if you are sure that nobody looked."
            )
        if os.name == "posix" and found.st_uid != os.geteuid():
            raise UsageError(f"The key file {path} belongs to another user; delete it to get a new one, or pass authkey=.")
        key = file.read().strip()
    if not key:
        raise UsageError(f"The key file {path} is empty; delete it to get a new one.")
    return key


def _create(path: Path, key: str) -> None:
    """Write the file unless another process was faster. Readers see no file or the whole key, never a part."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(key + "\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(draft, path)  # unlike a rename on POSIX, this never replaces the key of a faster process
        except FileExistsError:
            return
        except OSError:  # a file system without hard links
            if not path.exists():
                os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)
