"""Watch Paddock's children from a process of its own, and end those that are stale.

`beats` is the table in shared memory through which children show life, `policy` says what stale means, `observer`
applies it, `process` acts on it. `identity` and `tree` are how any process of ours finds and ends another without
ever touching a stranger.
"""
