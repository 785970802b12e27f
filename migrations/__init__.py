"""The database's schema: the chain of revisions, and the runner that applies it exactly once."""
