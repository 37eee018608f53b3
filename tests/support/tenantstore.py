"""Stores of one's own, for tests: a file for each tenant; and one that forgets."""

import os

from paddock.stores import SqliteDatabase, SqliteStore

emptied_name = "no class"


class Tenant(SqliteDatabase):
    """`tenant://acme` is the file of acme, in the folder of the tenants."""

    def __init__(self, url: str) -> None:
        self.tenant = url.partition("://")[2]
        super().__init__(os.path.join(os.environ["TENANTS"], f"{self.tenant}.db"))

    @property
    def rest(self) -> str:
        return self.tenant


class _ForgetfulStore(SqliteStore):
    async def events(self, window, **options):
        found = await super().events(window, **options)
        return found[1:] if window.after else found


class Forgetful(SqliteDatabase):
    """A file whose reader skips events."""

    def open(self, pragmas, lock=None):
        SqliteStore.open(self.path, pragmas).close()
        return _ForgetfulStore(self.path, pragmas)
