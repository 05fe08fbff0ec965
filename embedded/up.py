"""`lifecycle up`: the stack in the foreground."""

from embedded.lakefs_program import find_lakefs
from embedded.running import running
from embedded.session import Session
from embedded.stack import Wishes, plan
from embedded.stores import EMBEDDED
from shared.settings import Settings


async def up(session: Session, wishes: Wishes) -> None:
    """Run the stack until a signal comes."""
    directory, screen = session.directory, session.screen
    session.interrupts.status = 0
    with directory.alone() as lock:
        stack = plan(Settings(), directory, wishes)
        async with running(stack, session, lock) as (now, supervisor):
            await supervisor.healthy()
            screen.pause()
            screen.addresses(now.record.components, directory.logs)
            for wanted, given in wishes.ports.replaced.items():
                screen.say(f"[yellow]Port {wanted} was taken: {given} stands in for it.[/]")
            lakefs = now.record.component("lakefs")
            if lakefs.note == EMBEDDED and find_lakefs():
                screen.say(
                    "lakeFS is installed, but this directory's models are in the embedded server. "
                    "To move them: lifecycle lakefs move"
                )
            screen.say("Ctrl-C stops all of it.")
            await supervisor.run()
