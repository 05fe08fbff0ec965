"""What the platform and lakeFS's own clients rely on, through lakeFS's own clients.

Runs against the embedded server, with and without presigned links.  With
`LAKEFS_ENDPOINT`, `LAKEFS_ACCESS_KEY_ID`, `LAKEFS_SECRET_ACCESS_KEY` and
`LAKEFS_STORAGE_NAMESPACE` (such as `s3://bucket/tests`) it runs unchanged
against a real lakeFS.
"""
