"""Basis of every package: errors, files, processes, devices, options."""
