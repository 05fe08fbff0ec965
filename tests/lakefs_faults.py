"""A lakeFS for tests that answers as the real one does under contention and in outages.

The embedded server runs in this process behind two addresses: calls to `settings` pass the
faults, calls to `direct` do not.  A test writes what happens around each call:

    with faulty_lakefs(tmp_path) as lakefs:
        lakefs.on("merge", CONTENDED_MERGE, times=2)     # the next two merges answer 429
        lakefs.on("commit", CONTENDED_COMMIT)            # the next commit answers 500
        lakefs.on("merge", hook_refuses("pre-merge"), after=True)  # merged; the answer is lost
        lakefs.before = move_the_target                  # called ahead of every call
        with lakefs.database_away(): ...                 # 500, then 401; /_health stays 200
        with merge_that_drops(): ...                     # lakeFS' own merge, with its defect

The names of calls are the keys of `CALLS`.
`before` and `after` run in a thread, so they may wait (as a slow hook of an action does) and may
call the server, through `direct` alone.  What they raise is raised again at the end of the block.
"""

import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import uvicorn
from anyio.to_thread import run_sync
from fastapi import FastAPI
from starlette.responses import JSONResponse
from starlette.routing import compile_path
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from embedded.lakefs import changes
from embedded.lakefs.app import API, create_app
from embedded.lakefs.auth import Credentials
from embedded.lakefs.changes import Strategy
from embedded.lakefs.model import same
from embedded.lakefs.trees import Changes, Tree
from shared.settings import LakeFSSettings

ACCESS_KEY_ID = "AKIAIOSFODNN7EXAMPLE"
SECRET_ACCESS_KEY = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"

#: The calls that faults know by name.
CALLS = {
    "create_repository": "POST /repositories",
    "get_repository": "GET /repositories/{repository}",
    "create_branch": "POST /repositories/{repository}/branches",
    "get_branch": "GET /repositories/{repository}/branches/{branch}",
    "delete_branch": "DELETE /repositories/{repository}/branches/{branch}",
    "diff_branch": "GET /repositories/{repository}/branches/{branch}/diff",
    "commit": "POST /repositories/{repository}/branches/{branch}/commits",
    "get_commit": "GET /repositories/{repository}/commits/{commit}",
    "log": "GET /repositories/{repository}/refs/{ref}/commits",
    "diff": "GET /repositories/{repository}/refs/{ref}/diff/{right}",
    "merge": "POST /repositories/{repository}/refs/{source}/merge/{destination}",
    "merge_base": "GET /repositories/{repository}/refs/{source}/merge/{destination}",
    "upload_object": "POST /repositories/{repository}/branches/{branch}/objects",
    "get_physical_address": "GET /repositories/{repository}/branches/{branch}/staging/backing",
    "link_physical_address": "PUT /repositories/{repository}/branches/{branch}/staging/backing",
    "delete_objects": "POST /repositories/{repository}/branches/{branch}/objects/delete",
    "list_objects": "GET /repositories/{repository}/refs/{ref}/objects/ls",
    "get_object": "GET /repositories/{repository}/refs/{ref}/objects",
}
_CALLS = {
    name: (method, compile_path(API + path)[0])
    for name, (method, path) in ((name, call.split()) for name, call in CALLS.items())
}


@dataclass(frozen=True, slots=True)
class Call:
    """One request that arrived through the faults."""

    #: Its key in `CALLS`; empty for any other call.
    name: str
    method: str
    path: str
    #: What the path names, such as `repository` and `branch`.
    parameters: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Answer:
    """What the client gets instead of the server's own answer."""

    status: int
    message: str


#: Another merge or commit moved the branch ten times while this one was made.
CONTENDED_MERGE = Answer(429, "Too many attempts, try again later")
#: The same, as releases before 1.70 answer it.
CONTENDED_MERGE_OLD = Answer(423, "Too many attempts, try again later")
#: Another call moved the branch while the commit sealed its staging area; nothing was committed.
CONTENDED_COMMIT = Answer(500, "predicate failed")
#: Another commit of the same branch took along what was staged for this one.
COMMITTED_BY_ANOTHER = Answer(400, "no changes")
DATABASE_AWAY = Answer(
    500, "postgres get: failed to connect to `user=lakefs database=lakefs`: connection refused"
)
#: What lakeFS says once it no longer remembers the credentials and cannot look them up.
CREDENTIALS_UNKNOWN = Answer(401, "error authenticating request")


def hook_refuses(event: str, words: str = "not on a Friday", branch: str = "main") -> Answer:
    """Return the answer to a call that a hook of an action refused: `pre-merge` and the like."""
    where = f"update branch {branch}: " if event == "pre-merge" else ""
    return Answer(
        412,
        f"{where}{event} hook aborted, run id '5lufa8kl0pq2d': 1 error occurred:\n"
        f"\t* hook run id '0000_0000' failed on action 'rules' hook 'check': "
        f"action failed: {words}\n\n",
    )


@dataclass(slots=True)
class _Fault:
    name: str
    answer: Answer
    times: int
    after: bool


@dataclass
class FaultyLakeFS:
    """A running server, and what happens around the calls to it."""

    #: How to reach the server through the faults.
    settings: LakeFSSettings
    #: How to reach it past them.
    direct: LakeFSSettings
    #: Runs ahead of each call, which is not made if it returns an answer.
    before: Callable[[Call], Answer | None] | None = None
    #: Runs after each call; an answer that it returns replaces the server's own.
    after: Callable[[Call], Answer | None] | None = None
    #: Every call that arrived through the faults.
    calls: list[Call] = field(default_factory=list)
    #: What `before` and `after` raised; the end of the server's block raises the first.
    failures: list[BaseException] = field(default_factory=list)
    _faults: list[_Fault] = field(default_factory=list)

    def on(self, name: str, answer: Answer, *, times: int = 1, after: bool = False) -> None:
        """Answer the next calls of a name so; with `after` they still do what they do."""
        assert name in CALLS, name
        self._faults.append(_Fault(name, answer, times, after))

    @contextmanager
    def database_away(self, remembered: int = 3) -> Iterator[None]:
        """Refuse every call to the API as lakeFS does without its database.

        The first calls, whose credentials are `remembered`, are answered 500, later ones 401.
        """
        left = iter(range(remembered))

        def refuse(call: Call) -> Answer | None:
            if not call.path.startswith("/api/"):
                return None
            return CREDENTIALS_UNKNOWN if next(left, None) is None else DATABASE_AWAY

        usual, self.before = self.before, refuse
        try:
            yield
        finally:
            self.before = usual

    def answer_to(self, call: Call, *, after: bool) -> Answer | None:
        """Return what replaces the server's answer; hooks come first, then faults by name."""
        hook = self.after if after else self.before
        try:
            if hook and (answer := hook(call)):
                return answer
        except BaseException as error:
            self.failures.append(error)
            raise
        for fault in self._faults:
            if fault.name == call.name and fault.after is after and fault.times > 0:
                fault.times -= 1
                return fault.answer
        return None


class _Faults:
    """The application with a server's faults in front of one of its addresses."""

    def __init__(self, app: FastAPI, lakefs: FaultyLakeFS, port: int) -> None:
        self._app = app
        self._lakefs = lakefs
        self._port = port

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["server"][1] != self._port:
            await self._app(scope, receive, send)
            return
        call = _call(scope)
        self._lakefs.calls.append(call)
        answer = await run_sync(lambda: self._lakefs.answer_to(call, after=False))
        if answer is None:
            held: list[Message] = []  # the answer, until it is known whether it goes out
            await self._app(scope, receive, _keep_in(held))
            answer = await run_sync(lambda: self._lakefs.answer_to(call, after=True))
            if answer is None:
                for message in held:
                    await send(message)
                return
        response: ASGIApp = JSONResponse({"message": answer.message}, answer.status)
        await response(scope, receive, send)


def _call(scope: Scope) -> Call:
    method, path = scope["method"], scope["path"]
    for name, (expected, pattern) in _CALLS.items():
        if method == expected and (match := pattern.fullmatch(path)):
            return Call(name, method, path, match.groupdict())
    return Call("", method, path, {})


def _keep_in(held: list[Message]) -> Send:
    async def send(message: Message) -> None:
        held.append(message)

    return send


class _AnnouncedServer(uvicorn.Server):
    """A server that says when it serves."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.serves = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.serves.set()


@contextmanager
def faulty_lakefs(directory: Path, *, presign: bool = False) -> Iterator[FaultyLakeFS]:
    """Run a server over files in `directory` for the length of a block."""
    doors = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    ports = [door.getsockname()[1] for door in doors]
    lakefs = FaultyLakeFS(_settings(ports[0]), _settings(ports[1]))
    app = create_app(directory, Credentials(ACCESS_KEY_ID, SECRET_ACCESS_KEY), presign=presign)
    config = uvicorn.Config(
        _Faults(app, lakefs, ports[0]), log_config=None, ws="none", timeout_graceful_shutdown=1
    )
    server = _AnnouncedServer(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": doors})
    thread.start()
    try:
        assert server.serves.wait(30), "the server did not start"
        yield lakefs
    finally:
        server.should_exit = True
        thread.join()
        for door in doors:
            door.close()
    for failure in lakefs.failures:
        raise failure


def _settings(port: int) -> LakeFSSettings:
    return LakeFSSettings.model_validate(
        {
            "endpoint": f"http://127.0.0.1:{port}",
            "access_key_id": ACCESS_KEY_ID,
            "secret_access_key": SECRET_ACCESS_KEY,
        }
    )


@contextmanager
def merge_that_drops() -> Iterator[None]:
    """Merge as lakeFS does, with its defect, for the length of a block.

    Its merge walks source, destination and base in step.  Once one of the first two ends, it
    compares each remaining record of the other with the base's next record at or after it, by
    content alone: a record that was added is taken for one that the ended side deleted.
    """
    exact = changes.merged

    def dropping(base: Tree, destination: Tree, source: Tree, strategy: Strategy) -> Changes:
        result = dict(exact(base, destination, source, strategy))
        ends = min(_last_path(side) for side in (destination, source))
        for path, entry in destination.with_changes(result).walk(ends):
            _, following = next(base.walk(path), (None, None))
            if path > ends and base.get(path) is None and same(following, entry):
                result[path] = None
        return result

    with mock.patch.object(changes, "merged", dropping):
        yield


def _last_path(tree: Tree) -> str:
    return tree.parts[-1].last if tree.parts else ""
