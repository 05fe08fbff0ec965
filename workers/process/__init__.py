"""The process of a worker: slots that claim jobs and run them, and what keeps it healthy."""
