"""A server that speaks the Hugging Face Hub's protocol for model directories on this machine."""
