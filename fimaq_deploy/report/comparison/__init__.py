"""A build against earlier ones: judged, and written as pages, text, JUnit and annotations."""
