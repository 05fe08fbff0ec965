"""Plain FastAPI and Celery: a call that returns a job id, one that waits, and one without a job.

The result backend is Celery's own for Redis. A handler that waits is a plain function, as in
FastAPI's and Celery's documentation: FastAPI runs it in a thread.
"""

import os

from celery import Celery
from fastapi import FastAPI
from pydantic import BaseModel

REDIS_URL = os.environ["REDIS_URL"]
ANSWER_SECONDS = 60

queue = Celery("fastapi_celery", broker=REDIS_URL, backend=REDIS_URL)
app = FastAPI()


class Echo(BaseModel):
    """A request, and an answer."""

    text: str


@queue.task
def echo(text: str) -> str:
    """Return the input."""
    return text


@app.post("/alone")
async def answer_without_a_job(body: Echo) -> Echo:
    """Answer in the API process itself."""
    return body


@app.post("/submit")
def submit(body: Echo) -> dict[str, str]:
    """Queue a job and return its id."""
    return {"job_id": echo.delay(body.text).id}


@app.post("/answer")
def answer(body: Echo) -> Echo:
    """Queue a job and wait for its result."""
    return Echo(text=echo.delay(body.text).get(timeout=ANSWER_SECONDS))
