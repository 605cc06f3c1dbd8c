from ._pruner import ParetoFrontPruner


__all__ = ["ParetoFrontPruner"]
