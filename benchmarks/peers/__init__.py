"""This platform beside plain Celery, LitServe, BentoML and Ray Serve: same model, same clients."""
