"""The workers: Celery consumers that run the jobs which the front accepted."""
