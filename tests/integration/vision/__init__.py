"""Tasks whose models see: what the manager answers is what transformers answers."""
