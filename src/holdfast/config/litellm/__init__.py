"""The config file of LiteLLM's proxy, as far as it is about MCP, in our own form. Pure."""

from __future__ import annotations

from holdfast.config.litellm.file import Imported, convert, is_of_litellm

__all__ = ["Imported", "convert", "is_of_litellm"]
