"""What web, workers and migrations share. Knows nothing of HTTP servers, Celery tasks or Flask."""

import gc

# Python looks for garbage after every 700 new objects. A start makes a million that all stay, a tick makes
# thousands at once: so often, the collector takes a fifth of a start and finds nothing.
gc.set_threshold(50_000, 20, 20)
