"""The peer protocol without I/O: bytes in, events out, the time passed in; see docs/wire.md."""
