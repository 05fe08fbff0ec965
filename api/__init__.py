"""The front: accepts requests, writes them to the ledger and answers from it."""
