"""Speak between Paddock's processes: frames, messages, handshake, and the sockets that carry them.

`frames`, `messages` and `handshake` are pure: bytes in, values out. `connection` and `listener` need an event loop,
`client` has a form for each world. This package imports nothing of ours.
"""
