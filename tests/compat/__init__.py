"""New code on an old schema, old code on a new one."""
