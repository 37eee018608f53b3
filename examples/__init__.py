"""Examples: complete programs that use nothing but Paddock's public face. Run one with ``python -m paddock.examples.<name>``."""
