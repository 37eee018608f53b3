"""The HTTP API, server-sent events, metrics and the page, on the services of a server. `import paddock` does not load it."""
