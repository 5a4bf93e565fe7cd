"""One toolkit for reports: blocks, HTML, Markdown, SVG, sheets."""
