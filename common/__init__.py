"""What web, workers and migrations share. Knows nothing of HTTP servers, Celery tasks or Flask."""
