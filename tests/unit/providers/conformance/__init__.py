"""One table per API: what every documented answer means. A row per status word and error code of its sheet."""
