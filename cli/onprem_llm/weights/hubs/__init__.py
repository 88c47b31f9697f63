"""The hubs that weights are pulled from: one interface (`hub`), one file an implementation."""

from pathlib import Path

from onprem_llm.weights.hubs.hub import Hub


def hub_named(name: str, clients: Path) -> Hub:
    """Return the hub `name`; its client package is imported now, and keeps what it writes below `clients`."""
    if name == "huggingface":
        from onprem_llm.weights.hubs.huggingface import HuggingFace

        return HuggingFace(clients)
    from onprem_llm.weights.hubs.modelscope import ModelScope

    return ModelScope(clients)
