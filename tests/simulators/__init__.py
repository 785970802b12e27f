"""Simulated providers, their media host and Tencent COS: real servers, for tests, benchmarks and `make run`."""
