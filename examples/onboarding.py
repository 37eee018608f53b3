"""Take a new user on board: an account, a welcome mail, then what the plan asks for.

    python -m paddock.examples.onboarding

The input is checked before anything is stored: a wrong plan is refused at the door.
"""

import asyncio
import json
import os
import tempfile
from dataclasses import dataclass
from typing import Literal
from uuid import NAMESPACE_URL, uuid5

from paddock import AppServer, Context, Core, Event, InvalidInput, Plugin, workflow


@dataclass
class Signup:
    """The input."""

    email: str
    name: str
    plan: Literal["free", "pro", "enterprise"]


class Users(Plugin[None]):
    """The table of users, beside Paddock's own tables."""

    name = "users"

    async def setup(self, core: Core) -> None:
        """Make the table; this runs in the server and again in each instance's process."""
        self._db = core.db
        await self._db.execute("CREATE TABLE IF NOT EXISTS users (id TEXT PRIMARY KEY, email TEXT, name TEXT)")
        await self._db.commit()

    async def create(self, id: str, email: str, name: str) -> None:
        """Create a user; the same id again changes nothing."""
        await self._db.execute("INSERT OR IGNORE INTO users VALUES (?, ?, ?)", (id, email, name))
        await self._db.commit()


@dataclass
class Sender:
    """Whose name stands under the mails."""

    sender: str


class Email(Plugin[Sender]):
    """Mail. The first try fails, as mail servers do, so that you see a retry."""

    name = "email"

    async def send(self, to: str, template: str, attempt: int) -> None:
        """Send a mail from a template."""
        if attempt == 1:
            raise ConnectionError("the mail server is busy")
        print(f"mail from {self.config.sender} to {to}: {template}")


class Accounts(Plugin[None]):
    """What the plans include. Needs the users, so it is set up after them."""

    name = "accounts"
    requires = ("users",)

    async def setup_enterprise(self, user_id: str, features: list[str]) -> None:
        """Prepare an enterprise account."""
        print(f"{user_id}: {', '.join(features)}")

    async def setup_standard(self, user_id: str) -> None:
        """Prepare a standard account."""
        print(f"{user_id}: standard")


@dataclass
class Account:
    """What the first step returns."""

    user_id: str


@dataclass
class Welcome:
    """What the mail step takes."""

    to: str
    template: str


async def create_account(signup: Signup, ctx: Context) -> Account:
    """Create the user; the key is the same however often this is tried."""
    account = Account(f"user-{uuid5(NAMESPACE_URL, ctx.idempotency_key).hex[:8]}")
    await ctx.plugin(Users).create(account.user_id, signup.email, signup.name)
    return account


async def send_welcome_email(mail: Welcome, ctx: Context) -> dict[str, bool]:
    """Welcome the user."""
    await ctx.plugin(Email).send(mail.to, mail.template, ctx.attempt)
    return {"sent": True}


async def enterprise_setup(ctx: Context) -> dict[str, str]:
    """Prepare what enterprises get."""
    user_id = ctx.steps["create-account"].user_id
    await ctx.plugin(Accounts).setup_enterprise(user_id, ["sso", "audit-logs", "dedicated-support"])
    return {"setup": "enterprise", "user_id": user_id}


async def standard_setup(ctx: Context) -> dict[str, str]:
    """Prepare what everybody gets."""
    user_id = ctx.steps["create-account"].user_id
    await ctx.plugin(Accounts).setup_standard(user_id)
    return {"setup": "standard", "user_id": user_id}


onboarding = (
    workflow("user-onboarding", input=Signup)
    .timeout("24h")
    .default_retry(max_attempts=3, interval="200ms")
    .task("create-account", create_account)
    .task(
        "send-welcome-email",
        send_welcome_email,
        input=lambda prev, signup: Welcome(to=signup.email, template=f"welcome, {prev.user_id}"),
    )
    .choice(
        "check-plan",
        choices=[(lambda ctx: ctx.input.plan == "enterprise", "enterprise-setup")],
        default="standard-setup",
    )
    .task("enterprise-setup", enterprise_setup, next="complete")
    .task("standard-setup", standard_setup, next="complete")
    .pass_(
        "complete",
        transform=lambda ctx: {
            "user_id": ctx.steps["create-account"].user_id,
            "plan": ctx.input.plan,
            "setup_complete": True,
        },
        end=True,
    )
    .build()
)


def show(event: Event) -> None:
    """Print what happens; what a handler prints or logs comes as an event too."""
    print(f"  {event.name:<26} {event.data.get('step') or event.data.get('message')}")


async def main() -> None:
    """Take two users on board, and refuse a third."""
    with tempfile.TemporaryDirectory() as folder:  # your application names a file that stays
        server = AppServer(
            db=os.path.join(folder, "users.db"),
            plugins=[Accounts(), Email(Sender("the team")), Users()],  # in any order: `requires` sorts them
        )
        server.workflows.register(onboarding)
        server.events.on("workflow.step.*", show)
        server.events.on("log.workflow", show)
        async with server:
            for name, plan in (("Ada", "enterprise"), ("Bob", "free")):
                print(f"{name}:")
                signup = {"email": f"{name.lower()}@example.org", "name": name, "plan": plan}
                ident = await server.workflows.start(onboarding, signup)
                print(json.dumps(await server.workflows.result(ident, timeout="1min")))
            try:
                await server.workflows.start(onboarding, {"email": "eve@example.org", "name": "Eve", "plan": "gold"})
            except InvalidInput as error:
                print(f"refused: {error}")


if __name__ == "__main__":
    asyncio.run(main())
