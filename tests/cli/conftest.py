from tests.release.small import candidate, folder, state  # noqa: F401 (fixtures)
