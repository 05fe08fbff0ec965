"""BentoML with one worker of a model that returns its input."""

import bentoml


@bentoml.service(workers=1)
class Echo:
    """Holds no model."""

    @bentoml.api
    def answer(self, text: str) -> dict[str, str]:
        """Return the input."""
        return {"text": text}
