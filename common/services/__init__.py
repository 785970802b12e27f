"""What the platform does, as functions that take a session. They never commit: the door that opened the
transaction does. Only these modules touch tables."""
