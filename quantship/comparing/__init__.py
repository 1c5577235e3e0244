"""Models of several runs set side by side, as far as their numbers may be compared."""
