"""Queues in Redis or Valkey: every step one Lua script, every wait a place in a line there."""

from manyhands.engines.redis.engine import RedisEngine

__all__ = ["RedisEngine"]
