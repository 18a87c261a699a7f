"""A peer endpoint that every node can run: local memory, peers at other sites, a relay."""
