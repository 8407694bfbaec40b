"""The NATS engine: queues in a replicated log of JetStream, kept by one of the programs that use them."""

from manyhands.engines.nats.engine import NatsEngine

__all__ = ["NatsEngine"]
