"""Who may make which call: the one table, by method and path.

A role may also do what the roles before it may: viewer, submitter, admin. Jobs and files belong
to the key that made them; to any other but an admin's they do not exist (``api/ownership.py``).
"""

from starlette.routing import compile_path

from shared.identity.roles import Role

#: No key is asked for.
ANYBODY = None
VIEWER, SUBMITTER, ADMIN = Role.VIEWER, Role.SUBMITTER, Role.ADMIN

CALLS: dict[str, Role | None] = {
    # The process itself, and what may be asked of it.
    "GET /health/live": ANYBODY,
    "GET /health/ready": ANYBODY,
    "GET /docs": ANYBODY,
    "GET /docs/oauth2-redirect": ANYBODY,
    "GET /redoc": ANYBODY,
    "GET /openapi.json": ANYBODY,
    "GET /metrics": VIEWER,
    # The stores.
    "GET /models/local": VIEWER,
    "GET /models/lakefs_repos": VIEWER,
    "GET /models/registered_in_mlflow": VIEWER,
    "GET /models/registered_in_mlflow/{name}": VIEWER,
    "GET /models/stats": VIEWER,
    "GET /models/health": VIEWER,
    # Jobs that bring models in. A `stage` in their request is part of the submit.
    "POST /models/download": SUBMITTER,
    "POST /models/batch_download": SUBMITTER,
    "POST /models/upload_to_lakefs": SUBMITTER,
    "POST /models/register_from_lakefs": SUBMITTER,
    "POST /models/register_ollama": SUBMITTER,
    "POST /models/import": SUBMITTER,
    # What is served to everybody.
    "POST /models/transition_stage": ADMIN,
    "POST /models/rollback_stage": ADMIN,
    # Inference.
    "GET /inference/health": VIEWER,
    "GET /inference/stats": VIEWER,
    "POST /inference/infer": SUBMITTER,
    "POST /inference/cache/clear": ADMIN,
    # One's own jobs and files.
    "GET /jobs": VIEWER,
    "GET /jobs/{job_id}": VIEWER,
    "GET /jobs/{job_id}/events": VIEWER,
    "POST /jobs/{job_id}/cancel": SUBMITTER,
    "POST /jobs/{job_id}/retry": SUBMITTER,
    "POST /files": SUBMITTER,
    "GET /files/{file_id}": VIEWER,
    "DELETE /files/{file_id}": SUBMITTER,
}

#: Answered also while Redis is away and no key can be checked: to tell of just that. They then
#: show nothing of the platform (``callers.UNCHECKED``).
ANSWERED_UNCHECKED = {"GET /metrics"}

_PATTERNS = [
    (call, method, compile_path(path)[0])
    for call, (method, path) in ((call, call.split(" ")) for call in CALLS)
    if "{" in path
]


def role_for(method: str, path: str) -> Role | None:
    """Return what a call takes; an admin, if the table does not say."""
    return CALLS.get(_call(method, path), ADMIN)


def template_of(method: str, path: str) -> str | None:
    """Return the path of a call as the table has it; None if it has not."""
    call = _call(method, path)
    return call.partition(" ")[2] if call in CALLS else None


def _call(method: str, path: str) -> str:
    method = "GET" if method == "HEAD" else method
    if (call := f"{method} {path}") in CALLS:
        return call
    return next((each for each, of, at in _PATTERNS if of == method and at.match(path)), call)
