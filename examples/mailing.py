"""Write to many users over weeks: an instance for each, all side by side, each on its own time.

    python -m paddock.examples.mailing                       five users, pauses of a second or so
    python -m paddock.examples.mailing --users 50 --pause 0.1

Each user gets a welcome, then promotions with pauses of different lengths in between. The state of a user's campaign is a class with
data. Between two mails a campaign has no process, so thousands of them cost rows; at most four run at the same moment.
"""

import argparse
import asyncio
import os
import random
import tempfile
from typing import Any

from pydantic import BaseModel

from paddock import AppServer, Context, Event, StateMachine, WorkflowsConfig, state


class Campaign(BaseModel):
    """What there is to know of one user."""

    email: str
    pauses: list[float]
    sent: list[str] = []


def send(email: str, subject: str, ctx: Context) -> str:
    """Send one mail, and return the delivery's number: the same if this must be tried again."""
    print(f"mail to {email}: {subject}")
    return f"{subject} ({ctx.idempotency_key.rpartition(':')[2]})"


class Mailing(StateMachine[Campaign], name="mailing", start="welcome", description="Writes to one user now and then."):
    """Welcome a user, then promote something after each pause."""

    @state
    async def welcome(self) -> Any:
        """Send the first mail."""
        delivery = await self.action("send", send, self.data.email, "welcome")
        self.data.sent.append(delivery)
        return self.pause if self.data.pauses else self.enough

    @state
    async def pause(self) -> Any:
        """Leave the user alone. A state may be visited again; what it asked for before does not count as asked again."""
        await self.sleep(self.data.pauses[0], "pause")
        self.data.pauses = self.data.pauses[1:]
        return self.promote

    @state
    async def promote(self) -> Any:
        """Send another mail."""
        subject = f"promotion {len(self.data.sent)}"
        delivery = await self.action("send", send, self.data.email, subject)
        self.data.sent.append(delivery)
        self.log("promoted", mails=len(self.data.sent))
        return self.pause if self.data.pauses else self.enough

    @state
    async def enough(self) -> Any:
        """Leave it at that."""


def show(event: Event) -> None:
    """Print what each campaign does: begin, give its process back, come back, end."""
    what = event.data.get("message") if event.name == "log.workflow" else event.name.removeprefix("workflow.")
    print(f"  {event.instance_id:<8} {what}")


async def write_to_all(users: int, pause: float, seed: int) -> list[Campaign]:
    """Run a campaign for each user; return their last data."""
    draw = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        config = WorkflowsConfig(suspend_after=pause / 4)  # a shorter sleep is not worth a new process
        server = AppServer(db=os.path.join(folder, "mailing.db"), workflows=config)
        server.workflows.register(Mailing, max_concurrent=4)
        for pattern in ("workflow.started", "workflow.suspended", "workflow.resumed", "workflow.completed"):
            server.events.on(pattern, show)
        server.events.on("log.workflow", show)
        async with server:
            idents = [
                await server.workflows.start(
                    Mailing,
                    Campaign(
                        email=f"user{number}@example.org", pauses=[pause * draw.uniform(0.5, 1.5) for _ in range(2)]
                    ),
                    id=f"user-{number}",
                )
                for number in range(users)
            ]
            ended: list[Campaign] = await asyncio.gather(*(server.workflows.result(ident) for ident in idents))
            return ended


def main() -> None:
    """Run the campaigns."""
    parser = argparse.ArgumentParser(prog="mailing", description="Write to many users over weeks.")
    parser.add_argument("--users", type=int, default=5, help="how many (default: 5)")
    parser.add_argument("--pause", type=float, default=1.0, help="about how many seconds between mails (default: 1)")
    parser.add_argument("--seed", type=int, default=1, help="of the pauses' lengths (default: 1)")
    options = parser.parse_args()
    for campaign in asyncio.run(write_to_all(options.users, options.pause, options.seed)):
        print(f"{campaign.email}: {', '.join(campaign.sent)}")


if __name__ == "__main__":
    main()
