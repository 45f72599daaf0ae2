"""What runs a build where it is deployed: NumPy, Pillow and one engine. Importing it imports no engine and no torch."""
