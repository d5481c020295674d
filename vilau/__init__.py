"""vilau: an experiment kit for unified autoregressive vision-language models."""

from typing import Any

__version__ = "0.1.0"
__all__ = ["__version__", "export", "load", "load_tokenizer", "load_tower"]


def __getattr__(name: str) -> Any:
    """Load the public functions on first use: ``import vilau`` stays light, without torch."""
    if name in ("export", "load", "load_tokenizer", "load_tower"):
        from vilau.models import loading  # noqa: PLC0415

        return getattr(loading, name)
    raise AttributeError(f"module 'vilau' has no attribute {name!r}")


def __dir__() -> list[str]:
    """Name the public functions too, which are not loaded yet, so that tab completion shows them."""
    return sorted({*globals(), *__all__} - {"Any"})
