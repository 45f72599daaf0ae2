"""What every page is made of: parts, drawings, HTML and Markdown."""
