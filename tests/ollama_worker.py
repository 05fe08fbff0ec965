"""``python -m tests.ollama_worker ollama``: an Ollama worker whose registry knows one model.

It is registered as ``echo`` and is Ollama's ``echo:0.5b``; no MLflow is needed.
"""

from unittest import mock

from shared.tasks import Engine
from tests.model_stores import StaticRegistry
from workers import __main__ as workers

if __name__ == "__main__":
    registry = StaticRegistry()
    registry.add("echo", None, engine=Engine.OLLAMA, ollama_model_name="echo:0.5b")
    with mock.patch("workers.app.ModelRegistry", return_value=registry):
        workers.main()
