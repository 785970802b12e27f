"""Real services and processes for tests, benchmarks and `make run`: started from packages, gone afterwards."""
