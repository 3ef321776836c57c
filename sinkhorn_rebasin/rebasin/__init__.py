"""The re-basin: a module whose parameters are scores; read ``module.py`` first."""

from sinkhorn_rebasin.rebasin.module import SinkhornRebasin
from sinkhorn_rebasin.rebasin.sinkhorn_matching import sinkhorn_matching

__all__ = ["SinkhornRebasin", "sinkhorn_matching"]
