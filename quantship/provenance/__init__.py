"""Where models and numbers come from, so that they can be checked and made again."""
