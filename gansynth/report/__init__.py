"""Toolkit for reports: blocks, HTML, Markdown, SVG, preview grids."""
