"""One file for each family of timm's models that can be searched; each has its FAMILY."""
