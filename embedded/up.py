"""`lifecycle up`: the stack in the foreground."""

from embedded.running import running
from embedded.session import Session
from embedded.stack import Wishes, plan
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
            screen.say("Ctrl-C stops all of it.")
            await supervisor.run()
