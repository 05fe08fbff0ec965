"""The HTTP side: one module per noun of lakeFS's API."""
