"""How much the loss of a network bends along its weights: the Fisher information, diagonal or Kronecker-factored."""

from sinkhorn_rebasin.curvature.diagonal import DiagonalFisher, diagonal_fisher
from sinkhorn_rebasin.curvature.gram import GramMatrices, LayerGram, gram_matrices
from sinkhorn_rebasin.curvature.kronecker import KroneckerFisher, LayerFactors, kronecker_fisher
from sinkhorn_rebasin.curvature.quadratic import QuadraticForm

__all__ = [
    "DiagonalFisher",
    "GramMatrices",
    "KroneckerFisher",
    "LayerFactors",
    "LayerGram",
    "QuadraticForm",
    "diagonal_fisher",
    "gram_matrices",
    "kronecker_fisher",
]
