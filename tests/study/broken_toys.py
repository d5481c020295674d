"""A module of a user's that cannot be imported."""

from vilau.errors import NoSuchError as Toy  # type: ignore[attr-defined]  # noqa: F401
