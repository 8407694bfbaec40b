"""The same jobs done by others: one small program for each peer, run by an interpreter of its own.

    benchmarks (project's interpreter)
        │ catalog.py       which peers there are, what each needs installed, how much work it is given
        │ environments.py  a virtual environment for each
        │ broker.py        a Valkey for those that need one
        │ running.py       starts a peer's program, reads the JSON that it prints, leaves no process behind
        v
    python -m benchmarks.peers NAME PLAN   (peer's interpreter)
        driver.py     does what the plan says, with a stopwatch
        interface.py  what a peer can be asked
        NAME.py       how that peer does it, as its documentation recommends

All that runs in a peer's interpreter imports the standard library and that peer, nothing else. No peer is imported by the
name of a file here: programs start with the checkout's root on their path, where `celery` is the installed one.
"""
