"""Shared terms: schema, space, plugin contracts, ratio, lineage, plugin registry."""
