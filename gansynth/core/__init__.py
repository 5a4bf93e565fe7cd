"""What everything speaks of: schema, space, contracts of plugins, ratio, lineage, the registry."""
