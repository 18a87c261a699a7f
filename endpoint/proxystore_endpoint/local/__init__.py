"""Access for the processes of one node: shared memory, and a unix socket to agree about it."""
