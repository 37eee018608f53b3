"""Runtime: the engine, the store, the server and the children of Paddock.

Floors, lowest first: `base`, `store`, `engine`, `authoring`, `child`, `server`, `cli`. Imports run downwards only.
"""
