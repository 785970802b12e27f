"""Celery: claims due steps, calls the providers, stores the results."""
