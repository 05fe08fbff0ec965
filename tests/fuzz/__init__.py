"""The API held to its own OpenAPI by requests that nobody thought of."""
