"""LitServe with one worker of a model that returns its input: ``litserve_echo.py PORT``."""

import sys

import litserve


class EchoAPI(litserve.LitAPI):
    """Holds no model."""

    def setup(self, device: str) -> None:
        """Load nothing."""

    def decode_request(self, request: dict[str, str]) -> str:
        """Read the input."""
        return request["text"]

    def predict(self, text: str) -> str:
        """Return the input."""
        return text

    def encode_response(self, text: str) -> dict[str, str]:
        """Write the answer."""
        return {"text": text}


if __name__ == "__main__":
    server = litserve.LitServer(EchoAPI(), accelerator="cpu", workers_per_device=1)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False)
