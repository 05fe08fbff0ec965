"""The JSON calls: models, revisions, trees, paths and refs."""

import json
from itertools import islice
from typing import Any
from urllib.parse import parse_qs, urlencode

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from embedded.hub.access import Door, Visitor
from embedded.hub.errors import InvalidNameError
from embedded.hub.info import expanded_info, model_info, refs, summary
from embedded.hub.names import Address, parse_api, split_path
from embedded.hub.records import DEFAULT_BRANCH, Commit, Repo
from embedded.hub.repository import ModelStore
from embedded.hub.tree import list_paths, list_tree

_PREFIX_SEGMENTS = 2  # /api/models


class Api:
    """Handlers of `/api/models`."""

    def __init__(self, store: ModelStore, door: Door, tree_page_size: int) -> None:
        self._store = store
        self._door = door
        self._tree_page_size = tree_page_size

    async def list_models(self, request: Request) -> Response:
        """List the models that the visitor may see."""
        visitor = self._door.identify(request.headers.get("Authorization"))
        search = request.query_params.get("search", "").lower()
        author = request.query_params.get("author")
        shown = (
            summary(repo)
            for repo in map(self._store.repo, self._store.model_ids())
            if (visitor is Visitor.MEMBER or not repo.private)
            and search in repo.model_id.lower()
            and (author is None or repo.model_id.startswith(f"{author}/"))
        )
        return JSONResponse(list(islice(shown, _number(request, "limit", 1000))))

    async def answer(self, request: Request) -> Response:
        """Answer any call about one model."""
        address = parse_api(split_path(request.scope["raw_path"])[_PREFIX_SEGMENTS:])
        visitor = self._door.identify(request.headers.get("Authorization"))
        posts = address.action == "paths-info"
        if posts is not (request.method == "POST"):
            return JSONResponse({"error": "Method not allowed"}, 405)
        if address.action == "auth-check":
            self._door.enter(address.model_id, visitor)
            return JSONResponse({})
        repo = self._door.see(address.model_id, visitor)
        if address.action == "refs":
            return JSONResponse(refs(repo, pull_requests="include_prs" in request.query_params))
        commit = self._store.commit(repo, address.revision or DEFAULT_BRANCH)
        match address.action:
            case "tree":
                return self._tree(request, address, commit)
            case "paths-info":
                return JSONResponse(await _paths_info(request, commit))
            case _:
                return _info(request, repo, commit)

    def _tree(self, request: Request, address: Address, commit: Commit) -> Response:
        entries = list_tree(
            commit,
            address.path,
            recursive=_flag(request, "recursive"),
            expand=_flag(request, "expand"),
        )
        size = max(1, min(self._tree_page_size, _number(request, "limit", self._tree_page_size)))
        start = _number(request, "cursor", 0)
        headers = {}
        if start + size < len(entries):
            query = {**request.query_params, "cursor": str(start + size)}
            path = request.scope["raw_path"].decode("ascii")
            base = f"{request.url.scheme}://{request.url.netloc}"
            headers["Link"] = f'<{base}{path}?{urlencode(query)}>; rel="next"'
        return JSONResponse(entries[start : start + size], headers=headers)


def _info(request: Request, repo: Repo, commit: Commit) -> Response:
    query = request.query_params
    if expand := [*query.getlist("expand"), *query.getlist("expand[]")]:
        return JSONResponse(expanded_info(repo, commit, expand))
    blobs, security = _flag(request, "blobs"), _flag(request, "securityStatus")
    return JSONResponse(model_info(repo, commit, blobs=blobs, security=security))


async def _paths_info(request: Request, commit: Commit) -> list[Any]:
    body = (await request.body()).decode("utf-8", errors="replace")
    if request.headers.get("Content-Type", "").startswith("application/json"):
        try:
            asked = json.loads(body)
            paths, expand = [str(path) for path in asked["paths"]], asked.get("expand") is True
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InvalidNameError('The body must be {"paths": [...]}') from error
    else:
        form = parse_qs(body)
        paths, expand = form.get("paths", []), form.get("expand", [""])[0].lower() == "true"
    return list_paths(commit, paths, expand=expand)


def _flag(request: Request, name: str) -> bool:
    return request.query_params.get(name, "").lower() in {"true", "1"}


def _number(request: Request, name: str, default: int) -> int:
    text = request.query_params.get(name, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else default
