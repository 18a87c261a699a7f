"""Limits of the REST API."""

from __future__ import annotations

HEAD_TIMEOUT_S = 15.0
"""Within which the head of a request has to be there, counted from its first byte or from
the connection, whichever is later; connections between requests last as long."""

STALL_S = 15.0
"""After which a client is dropped that neither sends its body nor reads its answer."""

MIN_BODY_BYTES = 64 * 1024
"""Least bytes of a body that have to arrive in every `STALL_S`, unless it ends."""

HANDSHAKE_TIMEOUT_S = 15.0
"""Within which a TLS handshake has to be over."""

HEAD_BYTES = 32 * 1024
"""Most bytes of the head of a request."""

SPOOLED_BYTES = 8 * 1024 * 1024
"""Bytes of a body of unknown length that are kept in memory; what is more goes to a file."""

JSON_BYTES = 64 * 1024
"""Most bytes of a JSON body."""

SEND_BYTES = 256 * 1024
"""Bytes of an answer that are sent at once."""

MAX_CONNECTIONS = 2048
"""Connections at one time; what is more gets 503."""

REQUEST_TIMEOUT_S = 60.0
"""What a request to a peer may take unless `timeout=` says otherwise, if it carries no object."""

TRANSFER_TIMEOUT_S = 3600.0
"""What one may take that carries an object; a transfer that stalls fails long before."""

MAX_TIMEOUT_S = 3600.0
"""Most that `timeout=` may be."""
