"""Workers: a parent that supervises, and children that lease, run and settle over our wire themselves.

parent (control plane)                                     child (child.py), one call at a time
starts, limits, drains, replaces  ── settings, words ──>   line     socket and wire, blocking
                                  <── shared block ───>    running  a delivery becomes calls, calls become outcomes
                                                           keeper   what has to happen while a call runs
"""
