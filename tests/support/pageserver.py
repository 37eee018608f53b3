"""A server with the page, in a process of its own, so that a test can end it and start it again: pageserver.py DB PORT [TOKEN]."""

import asyncio
import signal
import socket
import sys

import pageflows
import uvicorn

from paddock import AppServer, WatchdogConfig, WorkflowsConfig


async def main(path: str, port: int, token: str | None = None) -> None:
    server = AppServer(
        db=path,
        workflows=WorkflowsConfig(max_resumes=0, kill_grace="1s", max_processes=4),
        watchdog=WatchdogConfig(interval="200ms", heartbeat_timeout="2s", kill_grace="1s"),
    )
    for definition in pageflows.ALL:
        server.workflows.register(definition)
    server.workflows.register(pageflows.holder, max_concurrent=1)
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)  # whoever starts this holds the port
        listener.bind(("127.0.0.1", port))
        listener.listen(64)
        async with server:
            config = uvicorn.Config(
                server.asgi(token=token), lifespan="off", log_level="critical", timeout_graceful_shutdown=1
            )
            web = uvicorn.Server(config)
            loop = asyncio.get_running_loop()
            loop.add_signal_handler(signal.SIGTERM, lambda: setattr(web, "should_exit", True))
            print("ready", flush=True)
            await web._serve([listener])


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), *sys.argv[3:]))
