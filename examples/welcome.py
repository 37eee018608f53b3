"""Welcome a user: create a profile, wait five minutes, send a mail.

    python -m paddock.examples.welcome                  with a wait of two seconds, so that you see the end
    python -m paddock.examples.welcome --wait 5min      as it is meant

Two of the steps are actions in processes of their own; the message is made in the flow's process. During the wait there is no process
at all: the instance is a row with a time in it, and steps that are finished do not run again when it wakes.
"""

import argparse
import asyncio
import os
import tempfile

from pydantic import BaseModel

from paddock import AppServer, Context, Event, FlowContext, action, flow


class Newcomer(BaseModel):
    """Who has just come, and how long we leave them alone first."""

    email: str
    user_id: str
    wait: str = "5min"


class Mail(BaseModel):
    """A mail."""

    to: str
    message: str


class Welcomed(BaseModel):
    """What came of it."""

    profile: str
    delivery: str
    waited: float


@action("create-profile", description="Creates a user's profile.")
def create_profile(user: Newcomer) -> str:
    """Create a profile."""
    print(f"profile of {user.user_id} created")
    return f"profile-{user.user_id}"


@action("send-mail", description="Sends a mail.")
def send_mail(mail: Mail, ctx: Context) -> str:
    """Send a mail; the key is the same however often this is tried, so a good mail service sends it once."""
    print(f"mail to {mail.to}: {mail.message}")
    return f"delivery {ctx.idempotency_key.partition(':')[2]}"


def write_message(user: Newcomer) -> str:
    """Write the message."""
    return f"Welcome, {user.email.partition('@')[0]}!"


@flow("welcome", description="Welcomes a user.", tags=["onboarding", "users"], timeout="1d")
async def welcome(user: Newcomer, ctx: FlowContext) -> Welcomed:
    """Welcome a user."""
    profile = await ctx.run_action(create_profile, user, isolated=True)
    message = await ctx.step("write welcome message", write_message, user)
    before = ctx.now()
    await ctx.sleep("wait before welcome mail", user.wait)
    delivery = await ctx.run_action(send_mail, Mail(to=user.email, message=message), isolated=True)
    return Welcomed(profile=profile, delivery=delivery, waited=(ctx.now() - before).total_seconds())


def show(event: Event) -> None:
    """Print where the instance's process is born and goes, and what handlers print."""
    if event.name == "log.workflow":
        print(f"  {event.data['message']}")
    elif event.workflow_name == "welcome":
        print(f"{event.name.removeprefix('workflow.')}: {event.data.get('reason', event.data.get('pid'))}")


async def main() -> None:
    """Welcome one user."""
    parser = argparse.ArgumentParser(prog="welcome", description="Welcome a user after a wait.")
    parser.add_argument("--wait", default="2s", help="how long to wait before the mail, such as 5min (default: 2s)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        server = AppServer(db=os.path.join(folder, "users.db"))
        server.workflows.register(welcome)
        for pattern in ("workflow.started", "workflow.suspended", "workflow.resumed", "log.workflow"):
            server.events.on(pattern, show)
        async with server:
            user = Newcomer(email="ada@example.org", user_id="user-123", wait=options.wait)
            result = await server.workflows.run(welcome, user)
            print(result.model_dump_json(exclude={"waited"}))


if __name__ == "__main__":
    asyncio.run(main())
