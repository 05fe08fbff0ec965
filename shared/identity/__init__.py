"""Who may call the front: API keys, kept in Redis beside the ledger, and how often each may."""
