"""The files: `resolve`, which sends small ones, and the CDN that it sends clients to for others."""

from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from embedded.hub.access import Door
from embedded.hub.faults import FaultPlan
from embedded.hub.links import LinkSigner
from embedded.hub.names import Address, parse_file, split_path
from embedded.hub.ranges import parse_range
from embedded.hub.records import DEFAULT_BRANCH, Commit, FileEntry
from embedded.hub.repository import ModelStore
from embedded.hub.stats import Stats
from embedded.hub.transfer import Manner, Transfer

_CDN_ACTION = "blob"


class Files:
    """Handlers of `/{id}/resolve/{revision}/{path}` and `/cdn/{id}/blob/{commit}/{path}`."""

    def __init__(
        self,
        store: ModelStore,
        door: Door,
        signer: LinkSigner,
        faults: FaultPlan,
        stats: Stats,
        cdn_url: str | None,
    ) -> None:
        self._store = store
        self._door = door
        self._signer = signer
        self._faults = faults
        self._stats = stats
        self._cdn_url = cdn_url

    async def resolve(self, request: Request) -> Response:
        """Send a small file; send the client to the CDN for a large one."""
        address = parse_file(split_path(request.scope["raw_path"]), "resolve")
        if address is None:
            return JSONResponse({"error": "Not found"}, 404)
        visitor = self._door.identify(request.headers.get("Authorization"))
        repo = self._door.enter(address.model_id, visitor)
        commit = self._store.commit(repo, address.revision or DEFAULT_BRANCH)
        entry = commit.file(address.path)
        if not entry.is_lfs:
            return self._send(request, address, commit, entry)
        path = f"/cdn/{address.model_id}/{_CDN_ACTION}/{commit.sha}/{entry.path}"
        base = self._cdn_url or f"{request.url.scheme}://{request.url.netloc}"
        headers = _headers(commit, entry) | {"Location": base + self._signer.sign(path)}
        return PlainTextResponse("Found. Redirecting to the CDN", 302, headers)

    async def from_cdn(self, request: Request) -> Response:
        """Send a large file to whoever holds a signed link to it.

        The headers that belong to the redirect are repeated: a client that is sent to the same
        host follows with HEAD and reads them here (huggingface_hub 2.4 does).
        """
        self._signer.verify(request.scope["path"], request.query_params)
        address = parse_file(split_path(request.scope["raw_path"])[1:], _CDN_ACTION)
        if address is None:
            return JSONResponse({"error": "Not found"}, 404)
        repo = self._store.repo(address.model_id)
        commit = self._store.commit(repo, address.revision or DEFAULT_BRANCH)
        return self._send(request, address, commit, commit.file(address.path))

    def _send(
        self, request: Request, address: Address, commit: Commit, entry: FileEntry
    ) -> Response:
        headers = _headers(commit, entry) | {
            "Content-Disposition": f"inline; filename*=UTF-8''{quote(entry.path.split('/')[-1])}",
            "Content-Type": (
                "application/octet-stream" if entry.is_lfs else "text/plain; charset=utf-8"
            ),
        }
        if request.method == "HEAD":
            headers["Content-Length"] = str(entry.size_bytes)
            return Response(headers=headers)
        faults = self._faults.take("GET", request.scope["path"], of_body=True)
        manner = Manner.of(faults)
        asked = request.headers.get("Range")
        name = f"{address.model_id}/{entry.path}"
        self._stats.begin_transfer(name, asked)
        size = max(0, entry.size_bytes + manner.extra_bytes)
        honoured = request.headers.get("If-Range") in {None, headers["ETag"]}
        span = None if manner.ignore_range or not honoured else parse_range(asked, size)
        if span is not None:
            headers["Content-Range"] = f"bytes {span.start}-{span.stop - 1}/{size}"
        sent = span if span is not None else range(size)
        headers["Content-Length"] = str(len(sent))
        return Transfer(
            self._store.blob(entry),
            sent,
            headers,
            status_code=200 if span is None else 206,
            manner=manner,
            counted=(self._stats, name),
        )


def _headers(commit: Commit, entry: FileEntry) -> dict[str, str]:
    etag = f'"{entry.etag}"'
    headers = {"X-Repo-Commit": commit.sha, "Accept-Ranges": "bytes", "ETag": etag}
    if entry.is_lfs:
        headers |= {"X-Linked-Etag": etag, "X-Linked-Size": str(entry.size_bytes)}
    return headers
