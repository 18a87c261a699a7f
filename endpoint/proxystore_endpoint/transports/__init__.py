"""The paths that lead to a peer: direct TCP, a WebRTC data channel, a circuit of the relay."""
