"""The whole road: from what a user asks to a folder of checked artifacts, and many of them from one file."""
