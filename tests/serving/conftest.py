from tests.release.small import (  # noqa: F401 (fixtures)
    bento,
    candidate,
    environment,
    folder,
    second,
    state,
    tracking,
)
