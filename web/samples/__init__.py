"""A typed example of every call in curl, Python and JavaScript: `x-codeSamples` of the OpenAPI document.

Each is a whole program that runs as it is. It reads the token from WXIAI_TOKEN; the file that it sends, or fetches, is
beside it. What it sends are the examples of the call's models (`web.schemas`).
"""

from __future__ import annotations

from web.endpoints import Endpoint
from web.samples import curl, javascript, python
from web.samples.call import PATH_VALUES, Call

__all__ = ["BASE", "PATH_VALUES", "of"]

BASE = "http://127.0.0.1:8000"  # PUBLIC_URL, where nothing else is said


def of(method: str, path: str, declared: Endpoint, base: str = BASE) -> list[dict[str, str]]:
    """The samples of one operation (`GET`, `/v1/jobs/{job_id}`), which is served at `base`."""
    call = Call(method, path, declared, base)
    written = (
        ("Shell", "curl", curl.program(call)),
        ("Python", "openai", python.with_openai(call)),
        ("Python", "requests", python.with_requests(call)),
        ("JavaScript", "JavaScript", javascript.program(call)),
    )
    return [{"lang": lang, "label": label, "source": source} for lang, label, source in written if source]
