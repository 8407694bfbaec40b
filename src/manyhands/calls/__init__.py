"""Calls as bytes: what an Executor sends, what a worker's child makes of it, and what comes back. No sockets, no clock.

client                                                     child
bodies.Functions.head(fn)  ─┐                              running.Loader.load(queue, message) -> Calls
bodies.argument(args, kw)  ─┴> bodies.encode ──message──>  Calls.run(first, end, into=Outcomes)   (as often as it likes)
outcomes.Ended <── outcomes.read ───────────────result───  Outcomes.encode()
"""
