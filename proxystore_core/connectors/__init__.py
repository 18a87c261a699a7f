"""Channels that carry bytes from a producer to consumers, one module a channel."""
