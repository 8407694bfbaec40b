"""What `serializer='xmlrpclib'` means here: values are narrowed to the plain data that XML-RPC knows.

The standard library then sends XML instead of pickles. We send what we always do, sealed; a program that chose the
serializer gets what it would have got: lists for tuples, Binary for bytes, and an error for what XML-RPC cannot carry.
"""

from __future__ import annotations

from typing import Any

PICKLE, XMLRPC = "pickle", "xmlrpclib"
SERIALIZERS = (PICKLE, XMLRPC)


def narrowed(value: Any) -> Any:
    """The value as XML-RPC brings it over.

    Raises:
        TypeError, OverflowError: it cannot be carried.
    """
    from xmlrpc import client  # seldom needed

    ((arrived,), _) = client.loads(client.dumps((value,), None, None, None, True))
    return arrived
