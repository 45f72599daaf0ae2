"""How accurate, how fast and how large anything is that maps images to outputs."""
