"""The relay: where endpoints meet that cannot reach each other directly.

It knows who is registered, by a signature over its nonce, and passes on signalling messages and
the ciphertext of circuits. What it passes on it can neither read nor change unnoticed.
"""
