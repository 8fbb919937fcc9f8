"""Shipped for users and for us: a scriptable MCP server, a fault proxy, a manual clock."""
