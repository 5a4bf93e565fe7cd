"""Toolkit for reports: Markdown from templates, pages, figures, preview grids."""
