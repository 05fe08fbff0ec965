"""Jobs that move a model: download, upload, register. They run on CPU workers, without torch."""
