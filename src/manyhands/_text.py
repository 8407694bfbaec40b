"""Words that come from elsewhere, names and reasons, made fit to be stored, logged and shown."""

from __future__ import annotations

NAME_CHARS = 200
"""A session's name is cut at this length."""
REASON_CHARS = 500
"""So is the reason of a refusal or failure, which a message's history keeps."""


def is_text(text: str) -> bool:
    """Whether it can be written as UTF-8: half a surrogate pair, as in an odd file name, cannot be stored or sent."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def readable(text: str, limit: int) -> str:
    """Somebody's words as they may be stored, logged and shown: at most limit characters, the unprintable ones escaped."""
    if len(text) > limit:
        text = text[: limit - 1] + "…"
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char in "\n\t" else char.encode("unicode_escape").decode() for char in text)
