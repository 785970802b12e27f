"""The tables as earlier releases knew them, one module a release, frozen.

To add a release: when it is out, write a module here named after its head revision, with `HEAD` and the Core tables
`USER`, `JOB`, `ARTIFACT` and `TOOL` as its models had them (names, types, keys and what may be NULL: nothing else
matters), and put it into `RELEASES`. Never change one that is there.
"""

from tests.compat.releases import release_9c2e5b7f1a60

RELEASES = (release_9c2e5b7f1a60,)
