"""The versioned store: lakeFS' control plane through its SDK, bytes by streaming HTTP.

The front uses ``listing`` only: the SDK builds a thousand pydantic models when it is imported.
"""
