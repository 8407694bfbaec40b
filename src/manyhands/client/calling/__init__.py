"""Calls from the caller's side: a session that sends calls and hands out what they came to.

    Executor.submit ──> Group (open calls) ──take──> messages ──Put──> engine ──> children
                                                                          │
    CallFuture, Mapping <── deliver <── read <── Collected <──Collect─────┘

`state` decides (pure): which calls share a message, what is sent, whose a result is. `session` does: threads, the engine's
port, codec. `futures` are what callers hold; `mapping` is the iterator that `map` returns.
"""
