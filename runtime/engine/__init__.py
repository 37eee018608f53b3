"""The engine: one durable core that every front end compiles to."""
