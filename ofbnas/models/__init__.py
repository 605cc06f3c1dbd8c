"""timm's models: what can be searched in them, masks, costs, shrinking, subnets."""
