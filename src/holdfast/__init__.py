"""Holdfast keeps MCP sessions alive between the programs that chat and the servers that remember."""

__version__ = "0.1.0"
