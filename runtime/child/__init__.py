"""The child process: one instance, its plugin set, its engine, its own connection to the database; and the server that forks it."""
