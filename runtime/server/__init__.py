"""The server: registration, admission, supervision, the event bus, and the processes that it keeps beside itself."""
