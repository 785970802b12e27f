"""Taking over what wxiai has written: `import-legacy`, as an operator runs it."""
